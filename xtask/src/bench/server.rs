//! Servers under test: started on ports of their own, looked at from outside, ended when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::machine;

/// Ports of the servers under test: the contract's, moved by this much.
pub const PORT_OFFSET: u16 = 21_000;
pub const TLS_PORT: u16 = 8883 + PORT_OFFSET;
/// Where peers listen: at no port of ours, so that a server of ours that is left over is not taken for one.
const PEER_PORT: u16 = 22_900;
/// The parts of `drover up` that do what other brokers do; and as many connections as 20,000 descriptors allow.
pub const LIKE_BROKERS: [&str; 4] = ["--only", "ingress,registry", "--set", "ingress.limits.connections=19000"];
/// What starts mosquitto.
pub const MOSQUITTO: &str = "mosquitto -p {port}";
/// Longest wait for a server to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(5);
/// Quiet time before idle memory and descriptors are read.
pub const SETTLE: Duration = Duration::from_secs(3);
/// What is promised of Drover: its start, and idle memory of the whole platform.
const START_MS_MAX: u128 = 2_000;
const IDLE_MB_MAX: f64 = 120.0;
/// Clock ticks per second in `/proc/PID/stat` on Linux (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Where distributions put servers, beside the path.
const SBIN: &str = "/usr/sbin";

/// A server process, ended when dropped.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// `drover up` on a folder of its own, with further arguments.
    pub fn drover(binaries: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binaries.join("drover"));
        command.arg("up").arg("--data").arg(folder).args(["--port-offset", &PORT_OFFSET.to_string()]);
        let child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, url: format!("mqtt://127.0.0.1:{}", 1883 + PORT_OFFSET) };
        let request = "GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n";
        let waited = wait_for_port(&mut server.child, 9464 + PORT_OFFSET, request)?;
        println!("drover         ready after {} ms (ceiling {START_MS_MAX})", waited.as_millis());
        pause(SETTLE);
        let idle_mb = server.resident_mib()? * 1.048_576;
        println!("drover         idle memory {idle_mb:.1} MB (ceiling {IDLE_MB_MAX}, of the whole platform)");
        Ok(server)
    }

    /// Another broker by its command, in which `{port}` is where it listens; `None` if its program is missing.
    pub fn peer(command: &str) -> anyhow::Result<Option<Self>> {
        let command = command.replace("{port}", &PEER_PORT.to_string());
        let mut words = command.split_whitespace();
        let program = words.next().context("a peer's command")?;
        let arguments: Vec<&str> = words.collect();
        let start =
            |place: &String| Command::new(place).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Some(child) = places(program).iter().find_map(|place| start(place).ok()) else { return Ok(None) };
        let mut server = Self { child, url: format!("mqtt://127.0.0.1:{PEER_PORT}") };
        wait_for_port(&mut server.child, PEER_PORT, "")?;
        // The connection that has asked is among its descriptors for a moment longer.
        pause(SETTLE);
        Ok(Some(server))
    }

    /// mosquitto; `None` after saying so where it is missing.
    pub fn mosquitto() -> anyhow::Result<Option<Self>> {
        let server = Self::peer(MOSQUITTO)?;
        if server.is_none() {
            println!("NOT RUN: mosquitto is missing");
        }
        Ok(server)
    }

    /// What the system says of the process (proc(5)): `/proc/PID/{name}`.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS in /proc/PID/status")?;
        let kib: f64 = line.split_whitespace().nth(1).context("a number of KiB")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// User and system time.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_of(&fs::read_to_string(self.proc("stat"))?)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(self.proc("fd")).context("descriptors of the server")?.count())
    }

    /// Descriptors that it may have open.
    pub fn descriptors_max(&self) -> anyhow::Result<usize> {
        let limits = fs::read_to_string(self.proc("limits"))?;
        let [now, _] = machine::descriptors(&limits).context("open files in /proc/PID/limits")?;
        // What is no number is "unlimited".
        Ok(now.parse().unwrap_or(usize::MAX))
    }
}

/// Where a server's program may be.
fn places(program: &str) -> [String; 2] {
    [program.to_owned(), format!("{SBIN}/{program}")]
}

/// The line in which mosquitto says its version; `None` if it is missing.
pub fn mosquitto_version() -> Option<String> {
    places("mosquitto").iter().map(|place| machine::said(place, &["-h"])).find(|said| !said.is_empty())
}

/// User and system time of a process or thread, in seconds: fields 14 and 15 of its `stat` (proc(5)).
pub fn cpu_of(stat: &str) -> anyhow::Result<f64> {
    let after_name = stat.rsplit(')').next().context("a name in parentheses")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Waits until a port of `server` answers `request` with a success, or accepts if there is none; how long that took.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
fn wait_for_port(server: &mut Child, port: u16, request: &str) -> anyhow::Result<Duration> {
    use std::io::{Read, Write};
    let started = std::time::Instant::now();
    loop {
        if let Some(status) = server.try_wait()? {
            bail!("the server has ended with {status} before its port {port} answered");
        }
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

#[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_ends_at_once_and_one_that_is_missing_are_told_apart() {
        let told = Server::peer("sh -c exit {port}").err().expect("it has ended").to_string();
        assert_eq!(told, "the server has ended with exit status: 0 before its port 22900 answered");
        assert!(Server::peer("there-is-no-such-broker -p {port}").expect("no failure").is_none());
    }
}
