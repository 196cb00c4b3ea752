#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The real MinIO server for tests, built from the Go module proxy: needs Go and nothing else.
#
#   integration/scripts/minio.sh build              build it once and print the path of the program
#   integration/scripts/minio.sh serve DIR [ADDR]   run it here, with its data in DIR
#
# CICADA_MINIO=/path/to/minio uses another program. The build takes about three minutes and is kept
# below the user's cache directory.
#
# The server's repository is archived; this is its last source, which has the security fix that the
# last published image lacks. Use it to test against, never to serve. It is AGPL-3.0: run it as a
# program, do not import it.

set -euo pipefail

VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
CACHE=${XDG_CACHE_HOME:-${HOME:?}/.cache}/cicada-test
PROGRAM=${CICADA_MINIO:-$CACHE/minio-$VERSION}

build() {
  if [[ -x $PROGRAM ]]; then return; fi
  if [[ -n ${CICADA_MINIO:-} ]]; then
    printf 'CICADA_MINIO: %s is not a program\n' "$CICADA_MINIO" >&2
    exit 1
  fi
  mkdir -p "$CACHE"
  local dir
  dir=$(mktemp -d "$CACHE/build.XXXXXX")
  # shellcheck disable=SC2064 # the directory of now
  trap "rm -rf -- '$dir'" EXIT
  printf 'building MinIO %s, about three minutes\n' "$VERSION" >&2
  # Other tests run meanwhile, and some of them measure time.
  GOBIN=$dir GOFLAGS='' CGO_ENABLED=0 GOWORK=off nice -n 10 \
    go install -ldflags='-s -w' "github.com/minio/minio@$VERSION" >&2
  mv "$dir/minio" "$PROGRAM" # whole or not at all, also when two build at once
}

case ${1:-} in
  build)
    build
    printf '%s\n' "$PROGRAM"
    ;;
  serve)
    build
    export MINIO_ROOT_USER=${MINIO_ROOT_USER:-cicada}
    export MINIO_ROOT_PASSWORD=${MINIO_ROOT_PASSWORD:-cicada-secret}
    export MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off
    exec "$PROGRAM" server --quiet --address "${3:-127.0.0.1:9000}" "${2:?a directory for its data}"
    ;;
  *)
    printf 'want: %s build, or serve DIR [ADDR]\n' "$0" >&2
    exit 2
    ;;
esac
