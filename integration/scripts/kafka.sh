#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real Kafka node for tests, broker and controller in one process, from its published jars: needs
# Java 17 and Maven, no container.
#
#   integration/scripts/kafka.sh build              fetch it once and print its class path
#   integration/scripts/kafka.sh serve DIR [PORT]   run it here, with its data in DIR; the
#                                                   controller listens on PORT + 1
#
# It is ready when it has logged "Kafka Server started": its port is open long before. More
# settings, one a line, in CICADA_KAFKA_SETTINGS; the size of its heap in CICADA_KAFKA_HEAP.
#
# It is one node and every topic has one replica: its restart is an outage, not a change of leader.
# Kafka does not sync what it answers, so kill -9 loses nothing, and the loss of power may.

set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=jars.sh
. "$SCRIPTS/jars.sh"

configure() {
  local dir=$1 port=$2
  cat >"$dir/log4j2.properties" <<'END'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
END
  # One partition for each topic of its own: they are created and elected at the first use, which
  # takes seconds with the default of 50. The short session is what a start after kill -9 waits for.
  cat >"$dir/server.properties" <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
${CICADA_KAFKA_SETTINGS:-}
END
}

format() {
  local dir=$1 id
  if [[ -f $dir/data/meta.properties ]]; then return; fi
  # The tool makes ids itself, but takes those that begin with a dash for an option.
  id=c$(LC_ALL=C tr -dc 'a-zA-Z0-9' </dev/urandom | head -c 20 || true)A
  java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$dir/log4j2.properties" \
    -cp "$CP" kafka.tools.StorageTool format --standalone -t "$id" -c "$dir/server.properties"
}

serve() {
  local dir port=${2:-9092} heap=${CICADA_KAFKA_HEAP:-512m}
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  configure "$dir" "$port"
  format "$dir"
  exec java -Xms"$heap" -Xmx"$heap" -XX:+UseSerialGC -XX:-UsePerfData \
    -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$CP" \
    kafka.Kafka "$dir/server.properties"
}

case ${1:-} in
  build | serve)
    need_java
    CP=$(classpath kafka "$SCRIPTS/kafka.pom.xml")
    ;;&
  build)
    printf '%s\n' "$CP"
    ;;
  serve)
    serve "${2:?a directory for its data}" "${3:-}"
    ;;
  *)
    printf 'want: %s build, or serve DIR [PORT]\n' "$0" >&2
    exit 2
    ;;
esac
