//! The two commands of the README's separate processes: Kafka and Cassandra by `cargo xtask backends`, and every service by
//! `deploy/local/run`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use drover_backends::ports;
use tempfile::TempDir;

use crate::Processes;
use crate::backends::environment;
use crate::held::Held;
use crate::patience::{Patience, pause};
use crate::platform::{beside, executable};
use crate::turn::Turn;

/// How the first line begins; the task is run without cargo, whose lock a test run may hold.
const TASK: &str = "cargo xtask ";
/// How the second line begins; the executables of a test are built already.
const BUILD: &str = "cargo build --release && ";
/// What the task prints when both serve.
const SERVES: &str = "Ctrl-C stops both";
/// How long both may take to start on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(300);

/// `cargo xtask backends`, on ports of its own.
pub struct LocalBackends {
    _held: Held,
    brokers: String,
    cassandra: String,
    _directory: TempDir,
    _turn: Turn,
}

impl LocalBackends {
    /// Enters the README's `line`, once no other test has such backends, and waits until both serve. `None`, after one line
    /// that says why, where one of them cannot be had.
    pub fn start(line: &str) -> anyhow::Result<Option<Self>> {
        let task = line.strip_prefix(TASK).with_context(|| format!("{line:?} does not begin with {TASK:?}"))?;
        let turn = Turn::wait();
        let (kafka, cassandra) = (ports::free()?.to_string(), ports::free()?.to_string());
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(beside("xtask")?);
        command.args(task.split_whitespace()).args(["--kafka-port", &kafka, "--cassandra-port", &cassandra]);
        let mut held = Held::start(&command, directory.path().join("out"))?;
        let waiting = Patience::new(PATIENCE);
        while !held.said().contains(SERVES) {
            if let Some(status) = held.ended()? {
                let said = held.said();
                let Some(why) = said.lines().find(|line| line.starts_with("NOT RUN")) else {
                    bail!("{line} ended with {status}: {said}");
                };
                println!("{why}");
                return Ok(None);
            }
            ensure!(waiting.lasts(), "{line} does not serve within {PATIENCE:?}: {}", held.said());
            pause();
        }
        let [brokers, cassandra] = [kafka, cassandra].map(|port| format!("127.0.0.1:{port}"));
        Ok(Some(Self { _held: held, brokers, cassandra, _directory: directory, _turn: turn }))
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        self.brokers.clone()
    }

    /// The environment that leads every process to them.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.brokers, &self.cassandra)
    }
}

/// `deploy/local/run`, on the data, the ports and the backends of [`Processes`], none of which runs meanwhile.
pub struct LocalRun(Held);

impl LocalRun {
    /// Enters the README's `line`.
    pub fn start(processes: &Processes, line: &str) -> anyhow::Result<Self> {
        let script = line.strip_prefix(BUILD).with_context(|| format!("{line:?} does not begin with {BUILD:?}"))?;
        let (directory, offset, environment) = processes.layout();
        let mut command = Command::new(script);
        command.arg("--data").arg(directory).args(["--port-offset", &offset.to_string()]);
        command.envs(environment.iter().cloned()).env("DROVER", std::path::absolute(executable()?)?);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        Ok(Self(Held::start(&command, processes.file("run.out"))?))
    }

    /// Whether every process is ready; an error once the script has ended by itself.
    pub fn is_ready(&mut self, processes: &Processes) -> anyhow::Result<bool> {
        let ended = self.0.ended()?;
        ensure!(ended.is_none(), "deploy/local/run ended with {ended:?}: {}", self.0.said());
        Ok(Processes::names().all(|name| processes.is_ready(name)))
    }

    /// Stops it as Ctrl-C does: it ends well, and nothing that it has started is left.
    pub fn stop(self, processes: &Processes) -> anyhow::Result<()> {
        let status = self.0.stop()?;
        ensure!(status.success(), "deploy/local/run ended with {status}");
        let left: Vec<&str> = Processes::names().filter(|name| processes.readiness(name).is_ok()).collect();
        ensure!(left.is_empty(), "still there: {}", left.join(", "));
        Ok(())
    }
}
