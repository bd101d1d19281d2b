//! The operator as a process of its own beside a platform: killed, measured, and with no more rights than an account has.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use drover_backends::ports;
use tempfile::TempDir;

use crate::patience::{Patience, pause};
use crate::platform::{Platform, executable};

/// Services that it calls, by the ports of the contract.
const CALLED: [(&str, u16); 3] = [("registry", 7071), ("shadow", 7072), ("rules", 7073)];
/// How long it may take to lead, after one that was killed among others: longer than a Lease.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process while it runs, and what it keeps between two of its lives.
pub struct OperatorProcess {
    child: Option<Child>,
    directory: TempDir,
    arguments: Vec<String>,
    admin: u16,
}

impl OperatorProcess {
    /// Starts it over `platform`, which runs none, with the rights of `kubeconfig` (its text), and waits until it answers.
    pub fn start(platform: &Platform, kubeconfig: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig)?;
        let (admin, grpc) = (ports::free()?, ports::free()?);
        let token = platform.data().join("admin.token");
        let mut keys = vec![
            format!("admin.listen=[\"127.0.0.1:{admin}\"]"),
            format!("operator.listen=[\"127.0.0.1:{grpc}\"]"),
            format!("security.admin_token_file={}", token.display()),
        ];
        keys.extend(
            CALLED.map(|(name, port)| format!("network.{name}=[\"http://127.0.0.1:{}\"]", platform.port(port))),
        );
        keys.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let arguments = keys.into_iter().flat_map(|key| ["--set".to_owned(), key]).collect();
        let mut process = Self { child: None, directory, arguments, admin };
        process.resume()?;
        Ok(process)
    }

    /// Starts it again, and waits until it answers; it may not lead yet.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log"))?;
        let mut command = Command::new(executable()?);
        command.args(["up", "--only", "operator", "--data"]).arg(self.directory.path().join("data"));
        command.args(&self.arguments).env("KUBECONFIG", self.directory.path().join("kubeconfig"));
        command.env("DROVER_LOG__LEVEL", "info");
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        self.until("answering", |process| Ok(process.metrics().is_ok()))
    }

    /// Waits until it is the one that works.
    pub fn lead(&mut self) -> anyhow::Result<()> {
        self.until("leading", |process| Ok(process.metric("drover_operator_leading")? > 0.0))
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
        ensure!(status.success(), "kill -TERM failed");
        let waiting = Patience::new(PATIENCE);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if !waiting.lasts() {
                child.kill()?;
                child.wait()?;
                bail!("the operator did not stop within {PATIENCE:?}:\n{}", self.log_end());
            }
            pause();
        }
    }

    /// Waits until `state` holds; fails when the process ends or patience does, with the end of its log.
    pub fn until(&mut self, what: &str, mut state: impl FnMut(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let waiting = Patience::new(PATIENCE);
        while !state(self)? {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the operator ended with {status} before it was {what}:\n{}", self.log_end());
            }
            ensure!(waiting.lasts(), "the operator is not {what} within {PATIENCE:?}:\n{}", self.log_end());
            pause();
        }
        Ok(())
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
    }

    /// The sum of a metric over all labels that begin with `name`, which may end in the first of them; 0 while there is none.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = self.metrics()?;
        let values = metrics.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        Ok(values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }

    /// The most memory that this life of the process has had, in bytes, but for what is mapped of its executable: of a debug
    /// build that is as much again, and the kernel takes it back when it wants to.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.child.as_ref().context("it does not run")?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(kilobytes("VmHWM:")?.saturating_sub(kilobytes("RssFile:")?) * 1024)
    }

    /// All that its lives have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        self.kill().expect("our own child can be killed");
    }
}
