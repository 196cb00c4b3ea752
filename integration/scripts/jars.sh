# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the scripts of servers that run on Java: finds their jars once and remembers where.

# classpath NAME POM [ARGUMENT...] prints the class path of the jars that POM names, with arguments
# for Maven, which NAME tells apart. Maven fetches them into its own repository; the list is kept
# below the user's cache directory, and believed as long as POM is the same and every jar is there.
classpath() {
  local name=$1 pom=$2 cache list
  shift 2
  cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/cicada-test
  list=$cache/$name-$(cksum <"$pom" | tr ' ' '-').classpath
  mkdir -p "$cache"
  if ! all_there "$list"; then
    command -v mvn >/dev/null || missing "mvn (Maven), to fetch the jars of $name"
    printf 'fetching the jars of %s\n' "$name" >&2
    (
      # Two at once would fetch the same files: the second waits and finds them.
      if command -v flock >/dev/null; then flock 9; fi
      if all_there "$list"; then exit 0; fi
      mvn --batch-mode --quiet -Dstyle.color=never "$@" -f "$pom" dependency:build-classpath \
        -DincludeScope=runtime -Dmdep.outputFile="$list.part" >&2
      mv "$list.part" "$list"
    ) 9>"$cache/$name.lock"
  fi
  cat "$list"
}

all_there() {
  local jar
  [[ -s $1 ]] || return 1
  while IFS= read -r jar; do
    [[ -f $jar ]] || return 1
  done < <(tr ':' '\n' <"$1")
}

# missing ends the script with the status that tells "cannot be had here" from "does not work".
missing() {
  printf 'this needs %s\n' "$1" >&2
  exit 69
}

need_java() {
  command -v java >/dev/null || missing 'java 17 or newer'
}
