//! `drover up` as a child process on free ports: started, killed, started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use drover_backends::ports;
use serde_json::Value;

use crate::patience::{Patience, pause};
use crate::tools::rest;

/// Ports that `up` binds; a test moves them all by one offset.
const PORTS: [u16; 12] = [1883, 8883, 8080, 8443, 9092, 7071, 7072, 7073, 7074, 7075, 7076, 9464];
/// How long a start or a drain may take before the test gives up; generous, since machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory and a port offset, and the process on them while it runs.
pub struct Platform {
    child: Option<Child>,
    directory: tempfile::TempDir,
    offset: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Platform {
    /// Starts the platform on an empty data directory and free ports.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts with further arguments of `drover up`.
    pub fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(arguments, Vec::new())
    }

    /// Starts with further arguments and variables.
    pub fn start_in(arguments: &[&str], environment: Vec<(String, String)>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let mut platform = Self { child: None, directory, offset: ports::free_offset(&PORTS)?, arguments, environment };
        platform.resume()?;
        Ok(platform)
    }

    /// Starts the process again on the same data and ports, and waits until it is ready.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(executable()?);
        command.arg("up").arg("--data").arg(self.data()).arg("--port-offset").arg(self.offset.to_string());
        command.args(&self.arguments).env("DROVER_LOG__LEVEL", "info");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        self.until("ready", |platform| Ok(platform.admin("/readyz").is_ok()))
    }

    /// Kills the process as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the process to stop (SIGTERM) and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
        ensure!(status.success(), "kill -TERM failed");
        let waiting = Patience::new(PATIENCE);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            ensure!(waiting.lasts(), "it did not stop within {PATIENCE:?}");
            pause();
        }
    }

    /// Waits until `state` holds; fails when the process ends or patience does, with the end of its log.
    pub fn until(&mut self, what: &str, mut state: impl FnMut(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let waiting = Patience::new(PATIENCE);
        while !state(self)? {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("drover ended with {status} before it was {what}:\n{}", self.log_end());
            }
            ensure!(waiting.lasts(), "not {what} within {PATIENCE:?}:\n{}", self.log_end());
            pause();
        }
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// A port of the contract, moved by this platform's offset.
    pub fn port(&self, contract: u16) -> u16 {
        contract + self.offset
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A file of this test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port(9092))
    }

    /// Runs the command line against this platform; its output on success, its complaint as the error.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let server = format!("http://127.0.0.1:{}", self.port(8080));
        let mut command = Command::new(executable()?);
        command.args(arguments).env("DROVER_SERVER", server).env("DROVER_TOKEN", self.admin_token()?);
        let output = command.current_dir(self.directory.path()).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "drover {} ended with {}: {said}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Applies a rule given as JSON.
    pub fn apply_rule(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let rule = serde_json::json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": name}, "spec": spec,
        });
        let file = self.file(&format!("{name}.json"));
        std::fs::write(&file, rule.to_string())?;
        self.cli(&["rule", "apply", "-f", &file.display().to_string()])?;
        Ok(())
    }

    /// Body of a page of the admin port, if its status is a success.
    pub fn admin(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}{path}", self.port(9464));
        Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
    }

    /// Asks the gateway with the administrator's token: method, path under `/api/v1`, body if any. The answer's JSON.
    pub fn rest(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        rest(self.port(8080), &self.data().join("admin.token"), method, path, body)
    }

    fn admin_token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.data().join("admin.token"))?.trim().to_owned())
    }

    /// Where the process writes what it says.
    pub fn log(&self) -> PathBuf {
        self.file("drover.log")
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.kill().expect("our own child can be killed");
    }
}

/// The executable beside this test's own; `cargo test --workspace` builds both.
pub fn executable() -> anyhow::Result<PathBuf> {
    match std::env::var_os("DROVER_BIN") {
        Some(named) => Ok(named.into()),
        None => beside("drover"),
    }
}

/// An executable of the workspace, beside this test's own.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let executable = profile()?.join(name);
    ensure!(executable.exists(), "{} is missing: run `cargo build --workspace`", executable.display());
    Ok(executable)
}

/// A folder for what a test leaves for people to look at: `target/artefacts/NAME`.
pub fn artefacts(name: &str) -> anyhow::Result<PathBuf> {
    let folder = profile()?.parent().context("a profile lies in target")?.join("artefacts").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn profile() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    Ok(test.parent().and_then(Path::parent).context("a test lies in target/PROFILE/deps")?.to_owned())
}
