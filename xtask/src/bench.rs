//! `cargo xtask bench`: start, idle memory and durable QoS 1 throughput of the release build, mosquitto in the same run.
//!
//! Prints figures beside what the project promises, and judges none of these: what they are worth depends on the machine and on
//! what else it does. `bench mqtt` and `bench kafka` are about what the server itself spends, and fail where that is over a
//! ceiling of the project.

mod figures;
mod generator;
mod kafka;
mod mqtt;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

/// Ports of the servers under test: the contract's, moved by this much.
const PORT_OFFSET: u16 = 21_000;
const TLS_PORT: u16 = 8883 + PORT_OFFSET;
const MOSQUITTO_PORT: u16 = 22_883;
/// The parts of `drover up` that do what other brokers do; and as many connections as 20,000 descriptors allow.
const LIKE_BROKERS: [&str; 4] = ["--only", "ingress,registry", "--set", "ingress.limits.connections=19000"];
/// Longest wait for a server to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Quiet time before idle memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// What is promised of Drover: start and idle memory of the whole platform, and durable QoS 1 messages a second from 200 clients
/// with a window of 10 on 2 cores.
const START_MS_MAX: u128 = 2_000;
const IDLE_MB_MAX: f64 = 120.0;
const MESSAGES_PER_SECOND_MIN: f64 = 40_000.0;
/// Clock ticks per second in `/proc/PID/stat` on Linux (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Where built executables lie; without it a release build is made.
    #[arg(long, global = true)]
    binaries: Option<PathBuf>,
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Unacknowledged messages of each client.
    #[arg(long, default_value_t = 10)]
    window: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each server is measured; figures of all runs are printed.
    #[arg(long, default_value_t = 2)]
    runs: usize,
}

#[derive(Subcommand)]
enum What {
    /// What a connection and a message cost: idle memory, connect, QoS 0 and 1, a subscriber to everything, TLS.
    Mqtt,
    /// What a message costs over a real Kafka: processor time of ours and of librdkafka's, rate, latency.
    Kafka,
    /// Six ingress processes hold as many connections as there are descriptors for; what a million would take.
    Connections {
        /// Of all processes together.
        #[arg(long, default_value_t = 110_000)]
        connections: usize,
    },
    /// From a revocation to the closed socket at three ingress nodes, in calm and while Kafka hangs.
    Revoke {
        /// Of all nodes together.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Devices revoked in each of the two parts.
        #[arg(long, default_value_t = 300)]
        revocations: usize,
    },
}

/// A server process, ended when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Builds in release, measures, prints.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.binaries {
        Some(binaries) => binaries.clone(),
        None => build(root)?,
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("cores          {cores}");
    println!("load before    {}", load.trim());
    match &options.what {
        Some(What::Kafka) => return kafka::run(&binaries, options),
        Some(What::Connections { connections }) => {
            let sizes = [("DROVER_CONNECTIONS", *connections)];
            return whole::run(root, &binaries, "connections::", &sizes);
        }
        Some(What::Revoke { connections, revocations }) => {
            let sizes = [("DROVER_REVOCATIONS_CONNECTIONS", *connections), ("DROVER_REVOCATIONS", *revocations)];
            return whole::run(root, &binaries, "revocations::", &sizes);
        }
        Some(What::Mqtt) => return mqtt::run(&binaries, options),
        None => {}
    }
    for round in 1..=options.runs {
        println!("\nround {round}");
        let folder = folder(round);
        measure("drover", drover(&binaries, &folder, &[], &[])?, &binaries, options)?;
        fs::remove_dir_all(&folder)?;
        match mosquitto()? {
            Some(server) => measure("mosquitto", server, &binaries, options)?,
            None => println!("NOT RUN: mosquitto is missing"),
        }
    }
    Ok(())
}

/// Where a server keeps what it has, for one round.
fn folder(round: usize) -> PathBuf {
    std::env::temp_dir().join(format!("drover-bench-{}-{round}", std::process::id()))
}

/// Builds in release; where the executables are.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let built = ["build", "--release", "--package", "drover", "--package", "drover-load"];
    let status = Command::new("cargo").args(built).current_dir(root).status()?;
    ensure!(status.success(), "cargo {} failed", built.join(" "));
    Ok(target(root)?.join("release"))
}

/// The target directory.
pub fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new("cargo").args(arguments).current_dir(root).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names the target directory")?.into())
}

/// `drover up` on a folder of its own, with these further arguments and settings.
fn drover(binaries: &Path, folder: &Path, arguments: &[&str], settings: &[String]) -> anyhow::Result<Server> {
    let mut command = Command::new(binaries.join("drover"));
    command.arg("up").arg("--data").arg(folder).args(["--port-offset", &PORT_OFFSET.to_string()]);
    command.args(arguments).args(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let server = Server { child, url: format!("mqtt://127.0.0.1:{}", 1883 + PORT_OFFSET) };
    let waited = wait_for_port(9464 + PORT_OFFSET, "GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    println!("drover         ready after {} ms (ceiling {START_MS_MAX})", waited.as_millis());
    pause(SETTLE);
    let idle_mb = resident_mib(server.child.id())? * 1.048_576;
    println!("drover         idle memory {idle_mb:.1} MB (ceiling {IDLE_MB_MAX}, of the whole platform)");
    Ok(server)
}

fn mosquitto() -> anyhow::Result<Option<Server>> {
    let arguments = ["-p", &MOSQUITTO_PORT.to_string()];
    let places = ["mosquitto", "/usr/sbin/mosquitto"];
    let start = |place: &str| Command::new(place).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Some(child) = places.iter().find_map(|place| start(place).ok()) else { return Ok(None) };
    let server = Server { child, url: format!("mqtt://127.0.0.1:{MOSQUITTO_PORT}") };
    wait_for_port(MOSQUITTO_PORT, "")?;
    Ok(Some(server))
}

/// Waits until a port answers `request` with a success, or accepts if there is none; how long that took.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
fn wait_for_port(port: u16, request: &str) -> anyhow::Result<Duration> {
    use std::io::{Read, Write};
    let started = std::time::Instant::now();
    loop {
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            let mut answer = String::new();
            let asked = request.is_empty()
                || (stream.write_all(request.as_bytes()).is_ok()
                    && stream.read_to_string(&mut answer).is_ok()
                    && answer.lines().next().is_some_and(|line| line.contains(" 200 ")));
            if asked {
                return Ok(started.elapsed());
            }
        }
        ensure!(started.elapsed() < PATIENCE, "port {port} did not answer within {PATIENCE:?}");
        pause(LOOK);
    }
}

fn measure(name: &str, server: Server, binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let before = cpu_seconds(server.child.id())?;
    let mut load = Command::new(binaries.join("drover-load"));
    load.args(["bench", "--json", "--qos", "1", "--url", &server.url]);
    load.args(["--clients", &options.clients.to_string(), "--window", &options.window.to_string()]);
    let output = load.args(["--seconds", &options.seconds.to_string()]).output()?;
    ensure!(output.status.success(), "drover-load: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let number = |field: &str| report[field].as_f64().unwrap_or_default();
    let cpu = (cpu_seconds(server.child.id())? - before) * 1e6 / number("acknowledged").max(1.0);
    let promised = match name {
        "drover" => format!(" (promised: {MESSAGES_PER_SECOND_MIN} from 200 clients, window 10, 2 cores)"),
        _ => String::new(),
    };
    println!(
        "{name:14} {:.0} msg/s acknowledged{promised}, p50 {:.1} ms, p99 {:.1} ms, server CPU {cpu:.1} µs a message, generator \
         {:.1}, memory {:.1} MiB",
        number("messages_per_second"),
        number("ack_p50_us") / 1e3,
        number("ack_p99_us") / 1e3,
        number("generator_us_per_message"),
        resident_mib(server.child.id())?
    );
    Ok(())
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS in /proc/PID/status")?;
    let kib: f64 = line.split_whitespace().nth(1).context("a number of KiB")?.parse()?;
    Ok(kib / 1024.0)
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    cpu_of(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
}

/// User and system time of a process or thread, in seconds: fields 14 and 15 of its `stat` (proc(5)).
fn cpu_of(stat: &str) -> anyhow::Result<f64> {
    let after_name = stat.rsplit(')').next().context("a name in parentheses")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

#[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
