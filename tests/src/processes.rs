//! Every service as a process of its own, as `deploy/local` configures them, moved to free ports.
//!
//! Knows the executable only from outside, as `platform` does. Ingress nodes beyond the two of `deploy/local` are told what
//! the second is, at ports of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use drover_backends::ports;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::patience::{LOOK, Patience, pause};
use crate::platform::executable;
use crate::tools::rest;

/// Processes by the names of their configuration files, each with its service and its admin port there.
const PROCESSES: [(&str, &str, u16); 9] = [
    ("gateway", "gateway", 9469),
    ("storage", "storage", 9467),
    ("shadow-0", "shadow", 9465),
    ("shadow-1", "shadow", 9565),
    ("rules-0", "rules", 9466),
    ("rules-1", "rules", 9566),
    ("ingress-0", "ingress", 9468),
    ("ingress-1", "ingress", 9568),
    ("registry", "registry", 9464),
];
/// Ingress nodes of tests that want more of them; their files are made of that of [`LIKE`].
const FURTHER: [(&str, &str, u16); 4] = [
    ("ingress-2", "ingress", 9668),
    ("ingress-3", "ingress", 9768),
    ("ingress-4", "ingress", 9868),
    ("ingress-5", "ingress", 9968),
];
const LIKE: &str = "ingress-1";
/// Ports of [`LIKE`], and how much further those of each node after it are: gRPC, HTTP, HTTPS, CoAP, MQTT, MQTT over TLS, admin.
const STEPS: [(u16, u16); 8] =
    [(7175, 100), (8082, 1), (8444, 1), (5693, 10), (5694, 10), (1884, 1), (8884, 1), (9568, 100)];
/// gRPC port of the first ingress node.
const FIRST_GRPC: u16 = 7075;
/// Other ports of the configuration files.
const PORTS: [u16; 17] =
    [1883, 1884, 8883, 8884, 8080, 8081, 8082, 8443, 8444, 7071, 7072, 7172, 7073, 7173, 7074, 7075, 7175];
/// How long the processes may take for anything before the test gives up; generous, since machines are shared.
const PATIENCE: Duration = Duration::from_secs(180);

/// The processes, and the directory they share.
pub struct Processes {
    running: BTreeMap<&'static str, Child>,
    directory: tempfile::TempDir,
    offset: u16,
    environment: Vec<(String, String)>,
}

impl Processes {
    /// Makes what the processes share; starts none of them. `environment` is that of all, and leads to backends that the
    /// test has started: with these came its turn.
    pub fn prepare(mut environment: Vec<(String, String)>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str| directory.path().join(name).display().to_string();
        environment.push(("DROVER_SECURITY__PKI".to_owned(), file("pki")));
        environment.push(("DROVER_SECURITY__ADMIN_TOKEN_FILE".to_owned(), file("admin.token")));
        let made = Command::new(executable()?).args(["init", "--data"]).arg(directory.path()).output()?;
        ensure!(made.status.success(), "drover init: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { running: BTreeMap::new(), directory, offset: free_offset()?, environment })
    }

    /// As [`Self::prepare`], for `nodes` ingress nodes, 2 to 6, of which all processes know: `ingress-0` and so on, at MQTT
    /// ports from 1883 on.
    pub fn prepare_nodes(mut environment: Vec<(String, String)>, nodes: u16) -> anyhow::Result<Self> {
        ensure!((2..=6).contains(&nodes), "{nodes} ingress nodes, 2 to 6 are allowed");
        let (_, step) = STEPS[0];
        let uris: Vec<String> =
            (0..nodes).map(|node| format!("\"http://127.0.0.1:{}\"", FIRST_GRPC + node * step)).collect();
        environment.push(("DROVER_NETWORK__INGRESS".to_owned(), format!("[{}]", uris.join(", "))));
        let processes = Self::prepare(environment)?;
        let like = std::fs::read_to_string(processes.configuration(LIKE))?;
        for (after, (name, ..)) in (1..nodes - 1).zip(FURTHER) {
            std::fs::write(processes.configuration(name), further(&like, name, after))?;
        }
        Ok(processes)
    }

    /// Names of all processes of `deploy/local`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROCESSES.iter().map(|(name, ..)| *name)
    }

    /// Starts one process, on the data it had before.
    pub fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let (name, service, _) = process(name)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(name))?;
        let mut command = Command::new(executable()?);
        command.arg(service).arg("--config").arg(self.configuration(name));
        command.arg("--data").arg(self.directory.path().join(name));
        command.arg("--port-offset").arg(self.offset.to_string()).envs(self.environment.iter().cloned());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.running.insert(name, child);
        Ok(())
    }

    /// Kills one as `kill -9` does.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(name).context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops one as SIGSTOP does: it hangs, its connections stay open.
    pub fn hang(&self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::STOP)
    }

    /// Lets it go on after [`Self::hang`].
    pub fn resume(&self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::CONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let child = self.running.get(name).with_context(|| format!("{name} does not run"))?;
        kill_process(Pid::from_child(child), signal).with_context(|| format!("signal to {name}"))
    }

    /// Asks all to stop (SIGTERM) and waits until they have; fails if one does not end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        for child in self.running.values() {
            let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
            ensure!(status.success(), "kill -TERM failed");
        }
        let waiting = Patience::new(PATIENCE);
        while !self.running.is_empty() {
            if let Some((name, status)) = self.ended()? {
                self.running.remove(name);
                let log = std::fs::read_to_string(self.log(name))?;
                ensure!(status.success(), "{name} ended with {status}:\n{log}");
                continue;
            }
            let left: Vec<_> = self.running.keys().collect();
            ensure!(waiting.lasts(), "{left:?} have not stopped within {PATIENCE:?}:\n{}", self.log_ends());
            pause();
        }
        Ok(())
    }

    /// Waits until `state` holds; fails when a process ends or patience does, with the end of every log.
    pub fn until(&mut self, what: &str, mut state: impl FnMut(&Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let waiting = Patience::new(PATIENCE);
        while !state(self)? {
            if let Some((name, status)) = self.ended()? {
                bail!("{name} ended with {status} before it was {what}:\n{}", self.log_ends());
            }
            ensure!(waiting.lasts(), "not {what} within {PATIENCE:?}:\n{}", self.log_ends());
            pause();
        }
        Ok(())
    }

    /// A process that has ended by itself.
    pub fn ended(&mut self) -> anyhow::Result<Option<(&'static str, ExitStatus)>> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                return Ok(Some((*name, status)));
            }
        }
        Ok(None)
    }

    /// Waits until all running processes are ready.
    pub fn until_ready(&mut self) -> anyhow::Result<()> {
        let names: Vec<_> = self.running.keys().copied().collect();
        self.until("ready", |processes| Ok(names.iter().all(|name| processes.is_ready(name))))
    }

    /// Whether a process answers that it is ready.
    pub fn is_ready(&self, name: &str) -> bool {
        self.readiness(name).is_ok_and(|answer| answer["ready"] == true)
    }

    /// What `/readyz` of a process says.
    pub fn readiness(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.readyz(name)?.1)
    }

    /// Status and body of `/readyz` of a process.
    pub fn readyz(&self, name: &str) -> anyhow::Result<(u16, Value)> {
        let (_, _, admin) = process(name)?;
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LOOK * 100)).build().into();
        let answer = agent.get(format!("http://127.0.0.1:{}/readyz", self.port(admin))).call()?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_str(&answer.into_body().read_to_string()?)?))
    }

    /// What `/metrics` of a process says.
    pub fn metrics(&self, name: &str) -> anyhow::Result<String> {
        let (_, _, admin) = process(name)?;
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LOOK * 100)).build().into();
        let answer = agent.get(format!("http://127.0.0.1:{}/metrics", self.port(admin))).call()?;
        Ok(answer.into_body().read_to_string()?)
    }

    /// The value of a metric of a process, with its labels as they are written; `None`: it is not told.
    pub fn metric(&self, name: &str, metric: &str) -> anyhow::Result<Option<f64>> {
        let text = self.metrics(name)?;
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?)
    }

    /// Memory a process holds in RAM, in MiB.
    pub fn resident_mib(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(name)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// Connections that each of these ingress nodes says it has.
    pub fn connections(&self, nodes: &[&str]) -> anyhow::Result<Vec<usize>> {
        let of = |node: &&str| Ok(self.metric(node, "drover_ingress_connections")?.unwrap_or(0.0) as usize);
        nodes.iter().map(of).collect()
    }

    /// Process id of one that runs.
    pub fn pid(&self, name: &str) -> anyhow::Result<u32> {
        Ok(self.running.get(name).with_context(|| format!("{name} does not run"))?.id())
    }

    /// Asks the gateway with the administrator's token: method, path under `/api/v1`, body if any. The answer's JSON.
    pub fn rest(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        rest(self.port(8080), &self.file("admin.token"), method, path, body)
    }

    /// A port of the configuration files, moved.
    pub fn port(&self, configured: u16) -> u16 {
        configured + self.offset
    }

    /// What leads anybody else to the same data, ports and backends: directory, offset, environment.
    pub(crate) fn layout(&self) -> (&Path, u16, &[(String, String)]) {
        (self.directory.path(), self.offset, &self.environment)
    }

    /// A file of this test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a process of this name is told.
    fn configuration(&self, name: &str) -> PathBuf {
        let file = format!("{name}.toml");
        if FURTHER.iter().any(|(further, ..)| *further == name) {
            return self.file(&file);
        }
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(file)
    }

    /// Where a process writes what it says.
    pub fn log(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.log"))
    }

    /// Runs the command line against these processes; its output on success, its complaint as the error.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(executable()?);
        command.args(arguments).env("DROVER_SERVER", format!("http://127.0.0.1:{}", self.port(8080)));
        command.env("DROVER_TOKEN_FILE", self.file("admin.token")).stdin(Stdio::null());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "drover {} ended with {}: {said}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `drover doctor` finds that is not well, with the configuration of a process.
    pub fn complaints(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let mut command = Command::new(executable()?);
        command.args(["doctor", "-o", "json", "--port-offset", &self.offset.to_string()]);
        command.arg("--config").arg(self.configuration(name)).arg("--data").arg(self.directory.path().join(name));
        let output = command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).output()?;
        let found: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("drover doctor: {}", String::from_utf8_lossy(&output.stderr)))?;
        let items = found["items"].as_array().context("items")?;
        Ok(items.iter().filter(|finding| finding["verdict"] == "fail").cloned().collect())
    }

    /// The end of each process's log, for a failure.
    pub fn log_ends(&self) -> String {
        let end = |name: &str| {
            let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let readiness = self.readiness(name).map_or_else(|error| error.to_string(), |answer| answer.to_string());
            format!("{name}: {readiness}\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
        };
        let ends = self.told().map(end).collect::<Vec<_>>().join("\n");
        match self.keep_logs() {
            Ok(kept) => format!("{ends}\nwhole logs: {}", kept.display()),
            Err(error) => format!("{ends}\nwhole logs are lost: {error}"),
        }
    }

    /// Names of the processes that have written a log.
    fn told(&self) -> impl Iterator<Item = &'static str> {
        let names = PROCESSES.into_iter().chain(FURTHER).map(|(name, ..)| name);
        names.filter(|name| self.log(name).exists())
    }

    /// Copies the logs to where they outlive the test.
    fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let kept = tempfile::Builder::new().prefix("drover-logs-").disable_cleanup(true).tempdir()?;
        for name in self.told() {
            std::fs::copy(self.log(name), kept.path().join(format!("{name}.log")))?;
        }
        Ok(kept.path().to_owned())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child ends");
        }
    }
}

/// The file of the node `name`, so many after [`LIKE`] with this file.
fn further(like: &str, name: &str, after: u16) -> String {
    let named = like.replace(&format!("node = \"{LIKE}\""), &format!("node = \"{name}\""));
    STEPS.iter().fold(named, |text, (port, step)| {
        // Places where others are called have a scheme in front, and stay.
        text.replace(&format!("[\"127.0.0.1:{port}\"]"), &format!("[\"127.0.0.1:{}\"]", port + after * step))
    })
}

fn process(name: &str) -> anyhow::Result<(&'static str, &'static str, u16)> {
    PROCESSES
        .into_iter()
        .chain(FURTHER)
        .find(|(known, ..)| *known == name)
        .with_context(|| format!("{name} is no process"))
}

/// An offset at which every port is free now.
fn free_offset() -> anyhow::Result<u16> {
    let admin = PROCESSES.into_iter().chain(FURTHER).map(|(_, _, admin)| admin);
    let further = (1..5).flat_map(|after| STEPS.map(|(port, step)| port + after * step));
    ports::free_offset(&PORTS.into_iter().chain(admin).chain(further).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_node_has_ports_and_a_name_of_its_own() -> anyhow::Result<()> {
        let file =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(format!("{name}.toml"));
        let like = std::fs::read_to_string(file(LIKE))?;
        let third = further(&like, "ingress-2", 1);
        assert!(third.contains("node = \"ingress-2\""));
        let bound = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains("listen = [")).map(str::to_owned).collect()
        };
        assert!(!bound(&like).is_empty() && bound(&like).len() == bound(&third).len());
        assert!(bound(&like).iter().zip(bound(&third)).all(|(second, third)| *second != third));
        Ok(())
    }
}
