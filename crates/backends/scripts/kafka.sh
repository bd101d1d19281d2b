#!/usr/bin/env bash
# Kafka's server and its own command line tools, resolved by Maven into one cache.
#   kafka.sh fetch              resolves the jars; exit code 3 and one NOT RUN line if java or mvn is missing
#   kafka.sh server DIR PORT CONTROLLER_PORT [JVM OPTIONS...]
#                               runs a broker on DIR, with the lines of DIR/extra.properties added to its configuration
#   kafka.sh archive            makes later starts quicker
#   kafka.sh CLASS [ARGS...]    runs a tool, e.g. org.apache.kafka.tools.TopicCommand --list
# KAFKA_VERSION (default 4.2.0: 4.3 loses marks of transactions, docs/adr/0046), DROVER_KAFKA_CACHE (default ~/.cache/drover/kafka-VERSION)
set -euo pipefail
version=${KAFKA_VERSION:-4.2.0}
cache=${DROVER_KAFKA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drover/kafka-$version}
java=(java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off -Djava.awt.headless=true)

not_run() { echo "NOT RUN: $1"; exit 3; }

pom() {
  cat <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>dev.drover</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
POM
}

# Test binaries run side by side: whoever holds the lock fetches, the others wait for it.
fetch() {
  [ -e "$cache/.complete" ] && return 0
  command -v mvn >/dev/null || not_run "mvn is not installed"
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock 9
  if [ ! -e "$cache/.complete" ]; then
    pom >"$cache/pom.xml"
    mvn -q -B -f "$cache/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DoutputDirectory="$cache/lib" -DincludeScope=runtime >"$cache/mvn.log" 2>&1 ||
      not_run "maven could not resolve kafka $version, see $cache/mvn.log"
    touch "$cache/.complete"
  fi
  exec 9>&-
}

# One node that is broker and controller; quick to start, to give up a dead self and to form groups.
properties() {
  cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$1/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=2
background.threads=2
PROPERTIES
  cat "$1/extra.properties" 2>/dev/null || true
}

server() {
  local archive=$cache/server.jsa
  [ -e "$archive" ] && java+=("-XX:SharedArchiveFile=$archive")
  if [ ! -e "$1/log/meta.properties" ]; then
    properties "$@" >"$1/server.properties"
    "${java[@]}" -Xmx128m -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$cache/lib/*" kafka.tools.StorageTool \
      format -t MkU3OEVBNTcwNTJENDM2Qg -c "$1/server.properties"
  fi
  exec "${java[@]}" "${@:4}" -Dorg.slf4j.simpleLogger.showDateTime=true -Xms64m -Xmx256m -cp "$cache/lib/*" \
    kafka.Kafka "$1/server.properties"
}

# The classes of the server as the JVM has loaded them halve its start. They come from a broker that starts and ends in
# an orderly way, before the first test needs one; a broker starts without them, too.
archive() {
  [ -e "$cache/server.jsa" ] && return 0
  exec 9>"$cache/.lock"
  flock 9
  if [ ! -e "$cache/server.jsa" ]; then
    local dir port; dir=$(mktemp -d); port=$((20000 + RANDOM % 10000))
    (exec 9>&-; server "$dir" "$port" $((port + 1)) -XX:ArchiveClassesAtExit="$cache/server.tmp") >"$dir/out" 2>&1 &
    local pid=$!
    for _ in $(seq 600); do
      grep -q 'Kafka Server started' "$dir/out" && break
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
    [ ! -e "$cache/server.tmp" ] || mv "$cache/server.tmp" "$cache/server.jsa"
    rm -rf "$dir"
  fi
  exec 9>&-
}

command -v java >/dev/null || not_run "java is not installed"
fetch
case "${1:-fetch}" in
fetch) ;;
archive) archive ;;
server) server "${@:2}" ;;
*) exec "${java[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=off -Xmx128m -cp "$cache/lib/*" "$@" ;;
esac
