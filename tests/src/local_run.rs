//! `deploy/local/run` as the README has it: a script that starts every service, and stops them all.
//!
//! On the data, the ports and the backends of [`Processes`], none of which runs meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Processes;
use crate::platform::{executable, pause};

/// How the README's line begins; the executables of a test are built already.
const BUILD: &str = "cargo build --release && ";
/// How long the script may take to stop everything: longer than a process may take to drain.
const PATIENCE: Duration = Duration::from_secs(120);

/// The script, running; it and what it has started are stopped when dropped.
pub struct LocalRun {
    child: Child,
    output: PathBuf,
}

impl LocalRun {
    /// Enters the README's `line`.
    pub fn start(processes: &Processes, line: &str) -> anyhow::Result<Self> {
        let script = line.strip_prefix(BUILD).with_context(|| format!("{line:?} does not begin with {BUILD:?}"))?;
        let (directory, offset, environment) = processes.layout();
        let output = processes.file("run.out");
        let log = File::create(&output)?;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {script} --data \"$1\" --port-offset \"$2\"")).arg("sh");
        shell.arg(directory).arg(offset.to_string()).envs(environment.iter().cloned());
        shell.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        shell.env("DROVER", std::path::absolute(executable()?)?).stdin(Stdio::null());
        let child = shell.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, output })
    }

    /// Whether every process is ready; an error once the script has ended by itself.
    pub fn is_ready(&mut self, processes: &Processes) -> anyhow::Result<bool> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "deploy/local/run ended with {ended:?}: {}", self.said());
        Ok(Processes::names().all(|name| processes.readiness(name).is_ok_and(|answer| answer["ready"] == true)))
    }

    /// Stops it as Ctrl-C does: it ends well, and nothing that it has started is left.
    pub fn stop(mut self, processes: &Processes) -> anyhow::Result<()> {
        self.terminate()?;
        let mut waited = Duration::ZERO;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(waited < PATIENCE, "deploy/local/run has not stopped within {PATIENCE:?}: {}", self.said());
            waited += pause();
        };
        ensure!(status.success(), "deploy/local/run ended with {status}: {}", self.said());
        let left: Vec<&str> = Processes::names().filter(|name| processes.readiness(name).is_ok()).collect();
        ensure!(left.is_empty(), "still there: {}", left.join(", "));
        Ok(())
    }

    /// SIGTERM does the same as Ctrl-C, also where a shell in the background has SIGINT ignored.
    fn terminate(&self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("signal to deploy/local/run")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for LocalRun {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate().expect("our own child can be told to stop");
            self.child.wait().expect("our own child ends");
        }
    }
}
