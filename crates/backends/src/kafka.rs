//! Apache Kafka: one node, broker and controller, from the jars its project publishes; three of them in [`cluster`].
//!
//! All calls block, up to [`PATIENCE`]; an asynchronous test makes them off its runtime. `scripts/kafka.sh` knows how to
//! fetch and to start, and runs Kafka's own tools for other tests.

pub mod cluster;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::guard::Guard;
use crate::ports;

/// Fetches the jars, starts brokers, runs Kafka's command line tools; its first lines say how.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh");
/// What the script exits with where Kafka cannot be had; it has said why.
pub const NOT_RUN: i32 = 3;
/// Longest start, on a machine that does many other things.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Starts, each on other ports, before a broker is given up: somebody may take a port that was free a moment ago.
const STARTS: u32 = 3;
/// What the broker prints when it serves.
const SERVES: &str = "Kafka Server started";

/// A broker of its own; killed, and its directory removed, when dropped or when the process ends.
pub struct Kafka {
    guard: Guard,
    port: u16,
}

impl Kafka {
    /// A new broker that serves. `None`, after one line that says why, where Kafka cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        Self::start_with("")
    }

    /// A new broker at `port` of 127.0.0.1, for people who want to know where it is.
    pub fn start_at(port: u16) -> anyhow::Result<Option<Self>> {
        Ok(if fetched()? { Some(Self::try_start("", port)?) } else { None })
    }

    /// As [`Self::start`], with further lines of `server.properties`; `PORT` and `CONTROLLER_AT` in them are its ports.
    pub fn start_with(properties: &str) -> anyhow::Result<Option<Self>> {
        started(|| Self::try_start(properties, ports::free()?))
    }

    fn try_start(properties: &str, port: u16) -> anyhow::Result<Self> {
        let kafka = Self::new(properties, port, ports::free()?)?;
        kafka.serve()?;
        Ok(kafka)
    }

    /// A broker that nobody has started yet.
    fn new(properties: &str, port: u16, controller: u16) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("drover-kafka-").tempdir()?.keep();
        let properties =
            properties.replace("PORT", &port.to_string()).replace("CONTROLLER_AT", &controller.to_string());
        std::fs::write(directory.join("extra.properties"), properties)?;
        let command: [PathBuf; 5] =
            [SCRIPT.into(), "server".into(), directory.clone(), port.to_string().into(), controller.to_string().into()];
        Ok(Self { guard: Guard::new(directory, command)?, port })
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.guard.kill()
    }

    /// SIGTERM: it hands over what it leads, and ends.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.guard.stop(PATIENCE)
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same data and port.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.serve()
    }

    /// SIGSTOP: connections stay, answers do not come.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.guard.pause()
    }

    /// SIGCONT.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.guard.resume()
    }

    /// Whatever was done to it, it serves again.
    fn restore(&self) -> anyhow::Result<()> {
        if self.guard.is_running() { self.resume() } else { self.serve() }
    }

    fn serve(&self) -> anyhow::Result<()> {
        let served = |output: &str| output.matches(SERVES).count();
        let before = served(&self.guard.output());
        self.guard.start()?;
        let since = Instant::now();
        while served(&self.guard.output()) == before {
            if !self.guard.is_running() {
                bail!("kafka on port {} ended at its start: {}", self.port, tail(&self.guard.output()));
            }
            if since.elapsed() > PATIENCE {
                bail!("kafka on port {} does not serve after {PATIENCE:?}", self.port);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Starts on new ports until it succeeds, [`STARTS`] times at most. `None`, after one line that says why, where Kafka cannot
/// be had.
fn started<T>(start: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    if !fetched()? {
        return Ok(None);
    }
    let mut failure = anyhow::anyhow!("not started");
    for _ in 0..STARTS {
        match start() {
            Ok(started) => return Ok(Some(started)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Writes what a broker is told into a directory, for somebody who starts and stops it: [`SCRIPT`]` server DIRECTORY PORT
/// CONTROLLER_PORT`; `advertised` is the `HOST:PORT` that clients are told. `false`, after one line that says why, where
/// Kafka cannot be had.
pub fn prepare(directory: &Path, advertised: &str) -> anyhow::Result<bool> {
    let is_here = fetched()?;
    let told = format!("advertised.listeners=PLAINTEXT://{advertised}\n");
    std::fs::write(directory.join("extra.properties"), told).context("extra.properties")?;
    Ok(is_here)
}

/// Whether the jars are here now; says why where they cannot be had.
fn fetched() -> anyhow::Result<bool> {
    for step in ["fetch", "archive"] {
        let Output { status, stdout, stderr } = Command::new(SCRIPT).arg(step).output().context(SCRIPT)?;
        let said = String::from_utf8_lossy(&stdout);
        if status.code() == Some(NOT_RUN) {
            println!("{}", said.trim_end());
            return Ok(false);
        }
        anyhow::ensure!(status.success(), "{SCRIPT} {step}: {said}{}", String::from_utf8_lossy(&stderr));
    }
    Ok(true)
}

/// The last lines, for an error.
fn tail(output: &str) -> String {
    const LINES: usize = 10;
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
