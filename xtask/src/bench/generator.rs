//! The load generator as a process of its own: loads, of which it reports, and waves of idle connections.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::server::{LOOK, SETTLE, Server, pause};

/// How long idle connections are held if nobody ends them before, in seconds: further waves come meanwhile.
pub const HOLD_SECONDS: u64 = 600;
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
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    /// A number of the report by its name in JSON.
    pub fn number(&self, field: &str) -> f64 {
        self.0[field].as_f64().unwrap_or_default()
    }
}

impl<'a> Generator<'a> {
    pub fn new(binaries: &'a Path, server: &'a Server) -> Self {
        Self { binaries, url: &server.url, authority: None }
    }

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
        reported(generator.args(["--json", "--seconds", &seconds.to_string()]).args(arguments))
    }

    /// Connects `count` idle clients, and returns when the server holds all of them. `number` tells waves apart. The server is
    /// at rest before: connections that it closes meanwhile would be missing for ever.
    pub fn wave(&self, server: &Server, number: u8, count: usize) -> anyhow::Result<Wave> {
        let (before, most) = (server.descriptors()?, server.descriptors_max()?);
        ensure!(
            before + count <= most,
            "{count} connections beside {before} descriptors are more than the server's {most}"
        );
        let mut generator = self.command();
        generator.args(["--clients", "0", "--idle", &count.to_string(), "--seconds", &HOLD_SECONDS.to_string()]);
        generator.args(["--client-id", &format!("wave-{number}-{{i}}")]);
        for source in 1..=count.div_ceil(PER_SOURCE) {
            generator.args(["--source", &format!("127.9.{number}.{source}")]);
        }
        let mut wave = Wave(generator.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        for _ in 0..LOOKS_MAX {
            if server.descriptors()? >= before + count {
                pause(SETTLE);
                return Ok(wave);
            }
            still_there(&mut wave.0)?;
            pause(LOOK);
        }
        let held = server.descriptors()?;
        bail!(
            "{count} connections were not there in time: {held} descriptors of the server, {before} of them from before"
        );
    }
}

/// Runs the generator; its report, or why it failed: what it says, and else what it has reported.
fn reported(generator: &mut Command) -> anyhow::Result<Report> {
    let Output { status, stdout, stderr } = generator.output().context("starting drover-load")?;
    let (report, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "drover-load ended with {status}: {}{}", said.trim_end(), report.trim_end());
    serde_json::from_str(&report).map(Report).with_context(|| format!("the report of drover-load: {report}"))
}

/// Fails if the generator has ended, with what it said: its clients could not connect, or were closed.
fn still_there(generator: &mut Child) -> anyhow::Result<()> {
    let Some(status) = generator.try_wait()? else { return Ok(()) };
    let mut said = String::new();
    generator.stderr.take().context("stderr is piped")?.read_to_string(&mut said)?;
    bail!("drover-load ended with {status}: {}", said.trim_end());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_ends_while_it_should_hold_connections_is_told_with_what_it_said() {
        let mut holding = Command::new("sh");
        holding.args(["-c", "read -r _; echo 'no room' >&2; exit 1"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut holding = holding.spawn().expect("it starts");
        still_there(&mut holding).expect("it waits for a line");
        drop(holding.stdin.take());
        let told = loop {
            match still_there(&mut holding) {
                Ok(()) => pause(LOOK),
                Err(told) => break told.to_string(),
            }
        };
        assert_eq!(told, "drover-load ended with exit status: 1: no room");
    }

    #[test]
    fn a_generator_that_fails_is_told_with_its_status_what_it_said_and_what_it_reported() {
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"errors\":{\"no answer\":3}}'; exit 1"]);
        let told = reported(&mut load).expect_err("it fails").to_string();
        assert_eq!(told, "drover-load ended with exit status: 1: {\"errors\":{\"no answer\":3}}");
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"sent\":3}'"]);
        assert_eq!(reported(&mut load).expect("it ends well").number("sent"), 3.0);
    }
}
