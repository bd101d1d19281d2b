#!/usr/bin/env bash
# Kafka's own command line tools, resolved by Maven into a cache.
#   kafka-tools.sh fetch              resolve the jars; exit code 3 and one NOT RUN line if java or mvn is missing
#   kafka-tools.sh CLASS [ARGS...]    run a tool, e.g. org.apache.kafka.tools.TopicCommand --list
# KAFKA_VERSION (default 4.3.1), KAFKA_TOOLS_CACHE (default ~/.cache/drover/kafka-tools-VERSION)
set -euo pipefail
version=${KAFKA_VERSION:-4.3.1}
cache=${KAFKA_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drover/kafka-tools-$version}

not_run() { echo "NOT RUN: $1"; exit 3; }

fetch() {
  [ -e "$cache/.complete" ] && return 0
  command -v mvn >/dev/null || not_run "mvn is not installed"
  mkdir -p "$cache"
  cat >"$cache/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>dev.drover</groupId><artifactId>kafka-tools</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
POM
  mvn -q -B -f "$cache/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$cache/lib" -DincludeScope=runtime >"$cache/mvn.log" 2>&1 ||
    not_run "maven could not resolve kafka-tools $version, see $cache/mvn.log"
  touch "$cache/.complete"
}

command -v java >/dev/null || not_run "java is not installed"
fetch
[ "${1:-fetch}" = fetch ] && exit 0
exec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -cp "$cache/lib/*" "$@"
