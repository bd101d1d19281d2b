//! The files and the command line a server starts with: small, quick to start, one node that waits for nobody.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use super::Options;

/// Largest heap; what the server holds besides is about as much again.
const HEAP: &str = "-Xmx320m";

/// Packages that Cassandra reaches into; Java 17 asks to name them.
const EXPORTS: [&str; 13] = [
    "java.base/java.lang.ref",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.management/com.sun.management.internal",
];
const OPENS: [&str; 19] = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.nio.charset",
    "java.base/java.nio.file.spi",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/sun.nio.ch",
    "java.rmi/sun.rmi.transport.tcp",
    "jdk.management/com.sun.management.internal",
];
/// No waiting for a ring that is not there, no port for management.
const PROPERTIES: [&str; 11] = [
    "cassandra-foreground=yes",
    "cassandra.consistent.rangemovement=false",
    "cassandra.disable_auth_caches_remote_configuration=true",
    "cassandra.initial_token=0",
    "cassandra.jmx.local.port=0",
    "cassandra.ring_delay_ms=0",
    "cassandra.skip_wait_for_gossip_to_settle=0",
    "cassandra.superuser_setup_delay_ms=0",
    "io.netty.tryReflectionSetAccessible=true",
    "java.net.preferIPv4Stack=true",
    "jdk.attach.allowAttachSelf=true",
];
/// Name of the file with the arguments of `java`.
const ARGUMENTS: &str = "java.args";

/// Writes `cassandra.yaml` and the configuration of its log.
pub fn write_config(directory: &Path, port: u16, storage_port: u16, options: &Options) {
    let at = directory.display();
    let authenticator = if options.passwords { "PasswordAuthenticator" } else { "AllowAllAuthenticator" };
    let authorizer = if options.passwords { "CassandraAuthorizer" } else { "AllowAllAuthorizer" };
    let encryption = options.tls.as_ref().map_or_else(String::new, |store| {
        format!(
            "client_encryption_options:\n  enabled: true\n  optional: false\n  keystore: {}\n  ssl_context_factory: \
             {{class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}}\n",
            store.display()
        )
    });
    let told = options.advertised.as_ref().map_or_else(String::new, |at| format!("broadcast_rpc_address: {at}\n"));
    let text = format!(
        r#"cluster_name: drover tests
num_tokens: 1
allocate_tokens_for_local_replication_factor: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
authenticator: {authenticator}
authorizer: {authorizer}
role_manager: CassandraRoleManager
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {port}
storage_port: {storage_port}
start_native_transport: true
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{storage_port}"}}]
endpoint_snitch: SimpleSnitch
data_file_directories: [{at}/data]
commitlog_directory: {at}/commitlog
saved_caches_directory: {at}/saved_caches
hints_directory: {at}/hints
cdc_raw_directory: {at}/cdc_raw
commitlog_sync: batch
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
memtable_allocation_type: heap_buffers
key_cache_size: 4MiB
row_cache_size: 0MiB
counter_cache_size: 4MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
concurrent_reads: 8
concurrent_writes: 8
concurrent_counter_writes: 8
concurrent_compactors: 1
native_transport_max_threads: 16
auto_bootstrap: false
auto_snapshot: false
hinted_handoff_enabled: false
disk_failure_policy: stop
commit_failure_policy: stop
storage_compatibility_mode: NONE
{told}{encryption}"#
    );
    fs::write(directory.join("cassandra.yaml"), text).expect("the directory is writable");
    let logback = format!(
        r#"<configuration><appender name="F" class="ch.qos.logback.core.FileAppender"><file>{at}/system.log</file>
<encoder><pattern>%d %-5level [%thread] %logger{{0}} %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="F"/></root></configuration>
"#
    );
    fs::write(directory.join("logback.xml"), logback).expect("the directory is writable");
}

/// Writes the arguments of `java`, one a line.
pub fn write_launcher(directory: &Path, jars: &Path) {
    let at = directory.display();
    let mut arguments: Vec<String> =
        ["-Xms128m", HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k", "-XX:MaxDirectMemorySize=256m"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(format!("-javaagent:{}", agent(jars)));
    arguments.push(format!("-Dcassandra.config=file://{at}/cassandra.yaml"));
    arguments.push(format!("-Dlogback.configurationFile={at}/logback.xml"));
    arguments.push(format!("-Dcassandra.storagedir={at}"));
    arguments.extend(PROPERTIES.map(|property| format!("-D{property}")));
    arguments.extend(EXPORTS.map(|package| format!("--add-exports={package}=ALL-UNNAMED")));
    arguments.extend(OPENS.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
    arguments.push(format!("-cp\n{at}:{}/*", jars.display()));
    arguments.push("org.apache.cassandra.service.CassandraDaemon".to_owned());
    fs::write(directory.join(ARGUMENTS), arguments.join("\n")).expect("the directory is writable");
}

/// The instrumentation that measures objects, which Cassandra insists on.
fn agent(jars: &Path) -> String {
    let files = fs::read_dir(jars).expect("the jars are there").map(|file| file.expect("readable").path());
    let is_agent =
        |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-"));
    files.filter(is_agent).map(|path| path.display().to_string()).next().expect("jamm is among the jars")
}

/// The server, to die with the thread that starts it.
pub fn launch(directory: &Path) -> Command {
    let output = File::create(directory.join("output.log")).expect("the directory is writable");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "java"])
        .arg(format!("@{}", directory.join(ARGUMENTS).display()))
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output);
    command
}
