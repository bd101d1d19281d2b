//! `cargo xtask bench`: start, idle memory and durable QoS 1 throughput of the release build, mosquitto in the same run.
//!
//! Prints figures and judges none: what they are worth depends on the machine and on what else it does.

mod mqtt;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

/// Ports of the servers under test: the contract's, moved by this much.
const PORT_OFFSET: u16 = 21_000;
const MOSQUITTO_PORT: u16 = 22_883;
/// Longest wait for a server to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Quiet time before idle memory is read.
const SETTLE: Duration = Duration::from_secs(3);
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
    /// What a connection and a message cost: idle memory, connect, QoS 0 and 1.
    Mqtt,
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
    println!("load before    {}", load.trim());
    for round in 1..=options.runs {
        println!("\nround {round}");
        let folder = std::env::temp_dir().join(format!("drover-bench-{}-{round}", std::process::id()));
        measure_one("drover", drover(&binaries, &folder, options)?, &binaries, options)?;
        fs::remove_dir_all(&folder)?;
        match mosquitto()? {
            Some(server) => measure_one("mosquitto", server, &binaries, options)?,
            None => println!("NOT RUN: mosquitto is missing"),
        }
    }
    Ok(())
}

/// Builds in release; where the executables are.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let built = ["build", "--release", "--package", "drover", "--package", "drover-load"];
    let status = Command::new("cargo").args(built).current_dir(root).status()?;
    ensure!(status.success(), "cargo {} failed", built.join(" "));
    Ok(target(root)?.join("release"))
}

fn measure_one(name: &str, server: Server, binaries: &Path, options: &Options) -> anyhow::Result<()> {
    match options.what {
        None => measure(name, server, binaries, options),
        Some(What::Mqtt) => mqtt::measure(name, &server, binaries, options.seconds),
    }
}

/// The target directory.
pub fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new("cargo").args(arguments).current_dir(root).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names the target directory")?.into())
}

fn drover(binaries: &Path, folder: &Path, options: &Options) -> anyhow::Result<Server> {
    let mut command = Command::new(binaries.join("drover"));
    command.arg("up").arg("--data").arg(folder).args(["--port-offset", &PORT_OFFSET.to_string()]);
    if options.what.is_some() {
        command.args(["--only", "ingress,registry", "--set", "ingress.limits.connections=19000"]);
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let server = Server { child, url: format!("mqtt://127.0.0.1:{}", 1883 + PORT_OFFSET) };
    let waited = wait_for_port(9464 + PORT_OFFSET, "GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    println!("drover         ready after {} ms", waited.as_millis());
    pause(SETTLE);
    println!("drover         idle memory {:.1} MiB", resident_mib(server.child.id())?);
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
    let mut load = generator(binaries, &server, options.seconds);
    load.args(["--qos", "1"]);
    load.args(["--clients", &options.clients.to_string(), "--window", &options.window.to_string()]);
    let report = reported(&mut load)?;
    let number = |field: &str| report[field].as_f64().unwrap_or_default();
    let cpu = (cpu_seconds(server.child.id())? - before) * 1e6 / number("acknowledged").max(1.0);
    println!(
        "{name:14} {:.0} msg/s acknowledged, p50 {:.1} ms, p99 {:.1} ms, server CPU {cpu:.1} µs a message, generator \
         {:.1}, memory {:.1} MiB",
        number("messages_per_second"),
        number("ack_p50_us") / 1e3,
        number("ack_p99_us") / 1e3,
        number("generator_us_per_message"),
        resident_mib(server.child.id())?
    );
    Ok(())
}

/// The generator against a server, for so long.
fn generator(binaries: &Path, server: &Server, seconds: u64) -> Command {
    let mut load = Command::new(binaries.join("drover-load"));
    load.args(["bench", "--json", "--url", &server.url, "--seconds", &seconds.to_string()]);
    load
}

/// Runs the generator; its report, or why it failed: what it says, and else what it has reported.
fn reported(load: &mut Command) -> anyhow::Result<Value> {
    let Output { status, stdout, stderr } = load.output().context("starting drover-load")?;
    let (report, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "drover-load ended with {status}: {}{}", said.trim_end(), report.trim_end());
    serde_json::from_str(&report).with_context(|| format!("the report of drover-load: {report}"))
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS in /proc/PID/status")?;
    let kib: f64 = line.split_whitespace().nth(1).context("a number of KiB")?.parse()?;
    Ok(kib / 1024.0)
}

/// User and system time of a process: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().context("a name in parentheses")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

#[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_fails_is_told_with_its_status_what_it_said_and_what_it_reported() {
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"errors\":{\"no answer\":3}}'; exit 1"]);
        let told = reported(&mut load).expect_err("it fails").to_string();
        assert_eq!(told, "drover-load ended with exit status: 1: {\"errors\":{\"no answer\":3}}");
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"sent\":3}'"]);
        assert_eq!(reported(&mut load).expect("it ends well")["sent"], 3);
    }
}
