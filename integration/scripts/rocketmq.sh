#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real RocketMQ for tests, from its published jars: needs Java 17 and Maven, no container.
#
#   integration/scripts/rocketmq.sh build                   fetch it once, print its class path
#   integration/scripts/rocketmq.sh serve DIR [PORT]        a name server and a broker, until ^C
#   integration/scripts/rocketmq.sh namesrv DIR [PORT]      the name server alone
#   integration/scripts/rocketmq.sh broker DIR [PORT]       the broker alone
#   integration/scripts/rocketmq.sh proxy DIR [PORT]        a proxy before it, of its own
#   integration/scripts/rocketmq.sh admin DIR ARGUMENT...   its mqadmin, for the server in DIR
#   integration/scripts/rocketmq.sh client DIR              its official client behind lines of JSON
#                                                           (RocketMQClient.java), for the same
#   integration/scripts/rocketmq.sh grpc DIR                its official gRPC client likewise
#                                                           (RocketMQGrpcClient.java)
#
# The name server listens on PORT (9876), the broker on PORT + 4 (and + 2 and + 5, its fast port and
# replication), the proxy on PORT + 7 (gRPC) and + 8 (remoting). Only the name server and the
# broker's remoting ports obey an address; the others listen everywhere.
#
#   CICADA_ROCKETMQ_VERSION=5.3.3  the release; 5.3.3, 5.4.0 and 5.5.0 were tried
#   CICADA_ROCKETMQ_PROXY=1        the broker inside a proxy
#   CICADA_ROCKETMQ_TIERED=1       with RocketMQ's own tiered store, on files in DIR/tiered
#   CICADA_ROCKETMQ_SETTINGS=...   more lines of broker.conf
#   CICADA_ROCKETMQ_HEAP=512m      the broker's heap
#   CICADA_ROCKETMQ_NAME_SERVER=host:port
#                                  of another start, which the broker joins
#   CICADA_ROCKETMQ_ADMIN=name:password
#                                  access control (ACL 2.0) is on, with this administrator, who is
#                                  whom the client and mqadmin say they are; not with a proxy
#
# A process is ready when it has logged "boot success", a proxy "startup successfully"; the name
# server may know the broker up to ten seconds later. A setting that RocketMQ cannot parse is
# ignored without a word. Logs are in DIR/logs, in UTC+8.

set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=jars.sh
. "$SCRIPTS/jars.sh"

VERSION=${CICADA_ROCKETMQ_VERSION:-5.3.3}

# The files are small, so that a test can fill and expire them, and so is what is mapped for them.
configure() {
  local dir=$1 port=$2
  mkdir -p "$dir/conf" "$dir/store" "$dir/tmp"
  cat >"$dir/conf/namesrv.conf" <<END
listenPort=$port
bindAddress=127.0.0.1
kvConfigPath=$dir/store/namesrv-kv.json
END
  cat >"$dir/conf/broker.conf" <<END
brokerClusterName=DefaultCluster
brokerName=broker-a
brokerId=0
brokerIP1=127.0.0.1
bindAddress=127.0.0.1
listenPort=$((port + 4))
namesrvAddr=${CICADA_ROCKETMQ_NAME_SERVER:-127.0.0.1:$port}
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
storePathRootDir=$dir/store
storePathCommitLog=$dir/store/commitlog
mappedFileSizeCommitLog=67108864
mappedFileSizeConsumeQueue=600000
mappedFileSizeTimerLog=10485760
maxHashSlotNum=500000
maxIndexNum=2000000
maxMessageSize=1048576
fileReservedTime=72
recallMessageEnable=true
END
  if [[ -n ${CICADA_ROCKETMQ_TIERED:-} ]]; then
    cat >>"$dir/conf/broker.conf" <<END
messageStorePlugIn=org.apache.rocketmq.tieredstore.TieredMessageStore
tieredBackendServiceProvider=org.apache.rocketmq.tieredstore.provider.PosixFileSegment
tieredStoreFilePath=$dir/tiered
END
  fi
  # A proxy takes delays of a day at most if it is not told otherwise.
  cat >"$dir/conf/rmq-proxy.json" <<END
{"rocketMQClusterName": "DefaultCluster", "namesrvAddr": "127.0.0.1:$port",
 "localServeAddr": "127.0.0.1", "grpcServerPort": $((port + 7)),
 "remotingListenPort": $((port + 8)), "maxDelayTimeMills": 259200000}
END
  if [[ -n ${CICADA_ROCKETMQ_ADMIN:-} ]]; then
    control_access "$dir" "${CICADA_ROCKETMQ_ADMIN%%:*}" "${CICADA_ROCKETMQ_ADMIN#*:}"
  fi
  printf '%s\n' "${CICADA_ROCKETMQ_SETTINGS:-}" >>"$dir/conf/broker.conf"
}

# control_access switches ACL 2.0 on at the broker.
control_access() {
  local dir=$1 name=$2 password=$3 auth=org.apache.rocketmq.auth
  cat >>"$dir/conf/broker.conf" <<END
authenticationEnabled=true
authenticationProvider=$auth.authentication.provider.DefaultAuthenticationProvider
authenticationMetadataProvider=$auth.authentication.provider.LocalAuthenticationMetadataProvider
initAuthenticationUser={"username":"$name","password":"$password"}
innerClientAuthenticationCredentials={"accessKey":"$name","secretKey":"$password"}
authorizationEnabled=true
authorizationMetadataProvider=$auth.authorization.provider.LocalAuthorizationMetadataProvider
END
  printf 'accessKey: %s\nsecretKey: %s\n' "$name" "$password" >"$dir/conf/tools.yml"
}

# Its logs and its scratch files are where user.home and java.io.tmpdir say.
jvm() {
  local dir=$1
  shift
  export ROCKETMQ_HOME=$dir
  exec java -Duser.home="$dir" -Djava.io.tmpdir="$dir/tmp" -XX:+UseSerialGC -XX:-UsePerfData \
    --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED \
    --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-exports=java.base/sun.nio.ch=ALL-UNNAMED \
    --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED -cp "$dir/conf:$CP" "$@"
}

namesrv() {
  jvm "$1" -Xms128m -Xmx128m -XX:TieredStopAtLevel=1 \
    -Drmq.logback.configurationFile=rmq.namesrv.logback.xml \
    org.apache.rocketmq.namesrv.NamesrvStartup -c "$1/conf/namesrv.conf"
}

broker() {
  local dir=$1 port=$2 heap=${CICADA_ROCKETMQ_HEAP:-512m}
  local names=${CICADA_ROCKETMQ_NAME_SERVER:-127.0.0.1:$port}
  local memory=(-Xms"$heap" -Xmx"$heap" -XX:MaxDirectMemorySize=1g)
  if [[ -n ${CICADA_ROCKETMQ_PROXY:-} ]]; then
    jvm "$dir" "${memory[@]}" -Drmq.logback.configurationFile=rmq.proxy.logback.xml \
      org.apache.rocketmq.proxy.ProxyStartup -n "$names" -pm local \
      -bc "$dir/conf/broker.conf" -pc "$dir/conf/rmq-proxy.json"
  fi
  jvm "$dir" "${memory[@]}" -Drmq.logback.configurationFile=rmq.broker.logback.xml \
    org.apache.rocketmq.broker.BrokerStartup -n "$names" -c "$dir/conf/broker.conf"
}

proxy() {
  jvm "$1" -Xms64m -Xmx256m -XX:MaxDirectMemorySize=256m -XX:TieredStopAtLevel=1 \
    -Drmq.logback.configurationFile=rmq.proxy.logback.xml \
    org.apache.rocketmq.proxy.ProxyStartup -n "${CICADA_ROCKETMQ_NAME_SERVER:-127.0.0.1:$2}" \
    -pm cluster -pc "$1/conf/rmq-proxy.json"
}

serve() {
  (namesrv "$1") &
  # shellcheck disable=SC2064 # the process of now
  trap "kill $! 2>/dev/null; wait $! || true" EXIT
  (broker "$1" "$2")
}

name_server() {
  printf '127.0.0.1:%s\n' "$(sed -n 's/^listenPort=//p' "$1/conf/namesrv.conf")"
}

# credentials prints the name and the password that a client in DIR has, a line each, if any.
credentials() {
  if [[ -f $1/conf/tools.yml ]]; then
    sed -n 's/^[a-zA-Z]*Key: //p' "$1/conf/tools.yml"
  fi
}

client() {
  local who
  mapfile -t who < <(credentials "$1")
  jvm "$1" -Xmx512m -XX:TieredStopAtLevel=1 -Drocketmq.client.logRoot="$1/logs" \
    "$SCRIPTS/RocketMQClient.java" "$(name_server "$1")" ${who[@]+"${who[@]}"}
}

grpc() {
  local port
  port=$(sed -n 's/.*"grpcServerPort": \([0-9]*\).*/\1/p' "$1/conf/rmq-proxy.json")
  jvm "$1" -Xmx256m -XX:TieredStopAtLevel=1 -Drocketmq.log.root="$1/logs" \
    -Drocketmq.log.level=warn \
    "$SCRIPTS/RocketMQGrpcClient.java" "127.0.0.1:$port"
}

admin() {
  local dir=$1
  shift
  NAMESRV_ADDR=$(name_server "$dir")
  export NAMESRV_ADDR
  jvm "$dir" -Xmx128m -XX:TieredStopAtLevel=1 \
    -Drmq.logback.configurationFile=rmq.tools.logback.xml \
    org.apache.rocketmq.tools.command.MQAdminStartup "$@"
}

case ${1:-} in
  build | serve | namesrv | broker | proxy | admin | client)
    need_java
    CP=$(classpath "rocketmq-$VERSION" "$SCRIPTS/rocketmq.pom.xml" "-Drocketmq.version=$VERSION")
    ;;&
  grpc)
    need_java
    CP=$(classpath rocketmq-grpc "$SCRIPTS/rocketmq-grpc.pom.xml")
    ;;&
  build)
    printf '%s\n' "$CP"
    ;;
  serve | namesrv | broker | proxy)
    mkdir -p "${2:?a directory for its data}"
    DIR=$(cd "$2" && pwd)
    configure "$DIR" "${3:-9876}"
    "$1" "$DIR" "${3:-9876}"
    ;;
  admin)
    DIR=$(cd "${2:?the directory of its data}" && pwd)
    admin "$DIR" "${@:3}"
    ;;
  client | grpc)
    DIR=$(cd "${2:?the directory of its data}" && pwd)
    "$1" "$DIR"
    ;;
  *)
    printf 'want: %s build, serve DIR [PORT], namesrv, broker, proxy, client DIR, grpc DIR, %s\n' \
      "$0" 'admin DIR ARGUMENT...' >&2
    exit 2
    ;;
esac
