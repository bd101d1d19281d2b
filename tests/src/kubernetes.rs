//! A real API server with its controllers, of a test's own; nothing there runs pods. Built from Go modules if
//! `DROVER_TEST_KUBERNETES` is set, and kept in the cache; or the cluster that `DROVER_TEST_KUBECONFIG` names. One that runs
//! pods is [`crate::KubernetesNode`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_backends::ports;
use serde_json::Value;
use tempfile::TempDir;

use crate::held::Held;
use crate::patience::{Patience, pause};
use crate::tools::{cache, lines_of, tool};

/// How long the API server may take to answer; generous, since machines are shared.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster, and the way to it.
pub struct Kubernetes {
    /// The test's own, and where its state is.
    running: Option<(Held, TempDir)>,
    /// Of the API server, where it is the test's own.
    port: u16,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

/// One test builds; the others wait for it.
static BUILDING: Mutex<()> = Mutex::new(());

impl Kubernetes {
    /// Starts an API server with nothing in it. `None`, after one line that says why, where it cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        if let Some(kubeconfig) = std::env::var_os("DROVER_TEST_KUBECONFIG").map(PathBuf::from) {
            let Some(kubectl) = tool("kubectl") else { return Ok(None) };
            return Ok(Some(Self { running: None, port: 0, kubectl, kubeconfig }));
        }
        if std::env::var_os("DROVER_TEST_KUBERNETES").is_none() {
            println!(
                "NOT RUN: a real API server (its first build takes many minutes; DROVER_TEST_KUBERNETES=1 wants it)"
            );
            return Ok(None);
        }
        let (Some(_), Some(_)) = (tool("go"), tool("openssl")) else { return Ok(None) };
        Self::run("kubernetes", tempfile::tempdir()?, &[]).map(Some)
    }

    /// The same, for a test that calls back from the API server to this machine, or leaves behind what no other cluster is to
    /// have: never that of `DROVER_TEST_KUBECONFIG`.
    pub fn start_own() -> anyhow::Result<Option<Self>> {
        if std::env::var_os("DROVER_TEST_KUBECONFIG").is_some() {
            println!("NOT RUN: what needs an API server of its own (DROVER_TEST_KUBECONFIG names another)");
            return Ok(None);
        }
        Self::start()
    }

    /// Builds and starts what the folder of scripts makes, on ports of its own, with its state in `directory`; `further` are
    /// arguments that only some of them take.
    pub(crate) fn run(scripts: &str, directory: TempDir, further: &[String]) -> anyhow::Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(scripts);
        let bin = bin(&scripts)?;
        let alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let built = Command::new(scripts.join("build")).arg(&bin).args(further).stdin(Stdio::null()).status()?;
        drop(alone);
        ensure!(built.success(), "{}/build ended with {built}", scripts.display());
        let mut run = Command::new(scripts.join("run"));
        // The first of three.
        let port = ports::free_offset(&[0, 1, 2])?;
        run.arg(&bin).arg(directory.path()).arg(port.to_string()).args(further);
        // Asked to stop, it ends what it has started.
        let held = Held::start(&run, directory.path().join("run.log"))?;
        let (kubectl, kubeconfig) = (bin.join("kubectl"), directory.path().join("admin.kubeconfig"));
        let mut cluster = Self { running: Some((held, directory)), port, kubectl, kubeconfig };
        cluster.wait()?;
        Ok(cluster)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let (held, directory) = self.running.as_mut().context("it is another's")?;
        let waiting = Patience::new(PATIENCE);
        while !directory.path().join("ready").exists() {
            if let Some(status) = held.ended()? {
                anyhow::bail!("the API server ended with {status}:\n{}", held.said());
            }
            ensure!(waiting.lasts(), "the API server does not answer within {PATIENCE:?}:\n{}", held.said());
            pause();
        }
        Ok(())
    }

    /// Kills the API server of one of the test's own, and brings it back once `meanwhile` is done.
    pub fn without_api_server(&self, meanwhile: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (directory, _) = self.place().context("the cluster is another's")?;
        let down = directory.join("down");
        std::fs::write(&down, "")?;
        self.until_it_answers(false)?;
        meanwhile()?;
        std::fs::remove_file(&down)?;
        self.until_it_answers(true)
    }

    /// Waits until the API server answers, or does not.
    fn until_it_answers(&self, wanted: bool) -> anyhow::Result<()> {
        let waiting = Patience::new(PATIENCE);
        while self.kubectl(&["get", "--raw", "/readyz"]).is_ok() != wanted {
            ensure!(waiting.lasts(), "whether the API server answers is not {wanted} within {PATIENCE:?}");
            pause();
        }
        Ok(())
    }

    /// Where the state of one of the test's own is, and its port.
    pub(crate) fn place(&self) -> Option<(&Path, u16)> {
        self.running.as_ref().map(|(_, directory)| (directory.path(), self.port))
    }

    /// The variables that lead a process to it.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("KUBECONFIG".to_owned(), self.kubeconfig.display().to_string())]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.tool(&self.kubectl, arguments)
    }

    /// A program that is led to it, in the root of the repository.
    pub fn tool(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).envs(self.environment()).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        command
    }

    /// Where `kubectl` is.
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Runs `kubectl` in the root of the repository; what it prints, or its complaint as the error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(lines_of(&mut self.command(arguments), b"").with_context(|| arguments.join(" "))?.join("\n"))
    }

    /// Applies objects given as JSON to a namespace.
    pub fn apply(&self, namespace: &str, objects: &[Value]) -> anyhow::Result<()> {
        self.send("apply", namespace, objects)
    }

    /// Makes objects given as JSON in a namespace, none of which is there yet: half the calls of [`Kubernetes::apply`].
    pub fn create(&self, namespace: &str, objects: &[Value]) -> anyhow::Result<()> {
        self.send("create", namespace, objects)
    }

    fn send(&self, verb: &str, namespace: &str, objects: &[Value]) -> anyhow::Result<()> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        lines_of(&mut self.command(&["-n", namespace, verb, "-f", "-"]), list.as_bytes()).map(drop)
    }

    /// One object or a list, as JSON.
    pub fn get(&self, namespace: &str, what: &[&str]) -> anyhow::Result<Value> {
        let arguments = [&["-n", namespace, "get", "-o", "json"], what].concat();
        Ok(serde_json::from_str(&self.kubectl(&arguments)?)?)
    }

    /// Waits for a condition of all objects that `what` names.
    pub fn wait_for(&self, namespace: &str, condition: &str, what: &[&str]) -> anyhow::Result<()> {
        let condition = format!("--for={condition}");
        let arguments = [&["-n", namespace, "wait", "--timeout=120s", &condition], what].concat();
        self.kubectl(&arguments).map(drop)
    }
}

/// Where a folder of scripts keeps what it has built.
pub(crate) fn bin(scripts: &Path) -> anyhow::Result<PathBuf> {
    let name = scripts.strip_prefix(env!("CARGO_MANIFEST_DIR")).context("scripts of the tests")?;
    Ok(cache()?.join(name).join("bin"))
}
