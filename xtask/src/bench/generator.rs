//! The load generator as a process of its own: loads, of which it reports, and waves of idle connections.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{LOOK, SETTLE, Server, pause};

/// How long idle connections are held if nobody ends them before, in seconds: further waves come meanwhile.
const HOLD_SECONDS: u64 = 600;
/// Longest wait for a wave to be connected, in looks.
const LOOKS_MAX: usize = 24_000;
/// Connections from one local address; more make connect(2) slow.
const PER_SOURCE: usize = 8_000;

/// Where load goes.
pub struct Generator<'a> {
    pub binaries: &'a Path,
    pub url: &'a str,
    /// Certificate of the authority of an `mqtts` server.
    pub authority: Option<&'a Path>,
}

/// What the generator has reported.
pub struct Report(Value);

impl Report {
    /// A number of the report by its name in JSON.
    pub fn number(&self, field: &str) -> f64 {
        self.0[field].as_f64().unwrap_or_default()
    }
}

impl Generator<'_> {
    fn command(&self) -> Command {
        let mut generator = Command::new(self.binaries.join("drover-load"));
        generator.args(["bench", "--url", self.url]);
        if let Some(authority) = self.authority {
            generator.arg("--ca").arg(authority);
        }
        generator
    }

    /// Publishes for so long, and waits for the end of it.
    pub fn load(&self, arguments: &[&str], seconds: u64) -> anyhow::Result<Report> {
        let mut generator = self.command();
        generator.args(["--json", "--payload", "128"]).args(arguments).args(["--seconds", &seconds.to_string()]);
        let output = generator.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("drover-load: {said}"))?;
        ensure!(output.status.success(), "drover-load: {}", report["errors"]);
        Ok(Report(report))
    }

    /// Connects `count` idle clients, and returns when the server holds all of them. `number` tells waves apart.
    pub fn wave(&self, server: &Server, number: u8, count: usize) -> anyhow::Result<Wave> {
        let before = descriptors(server)?;
        let mut generator = self.command();
        generator.args(["--clients", "0", "--idle", &count.to_string(), "--seconds", &HOLD_SECONDS.to_string()]);
        generator.args(["--client-id", &format!("wave-{number}-{{i}}")]);
        for source in 1..=count.div_ceil(PER_SOURCE) {
            generator.args(["--source", &format!("127.9.{number}.{source}")]);
        }
        let wave = Wave(generator.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        for _ in 0..LOOKS_MAX {
            if descriptors(server)? >= before + count {
                pause(SETTLE);
                return Ok(wave);
            }
            pause(LOOK);
        }
        anyhow::bail!("{count} connections were not there in time");
    }
}

/// Idle connections, closed when dropped.
pub struct Wave(Child);

impl Drop for Wave {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        pause(SETTLE);
    }
}

fn descriptors(server: &Server) -> anyhow::Result<usize> {
    let directory = format!("/proc/{}/fd", server.child.id());
    Ok(std::fs::read_dir(directory).context("descriptors of the server")?.count())
}
