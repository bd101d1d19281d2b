//! A real Kubernetes node that runs pods, of a test's own: containerd, kubelet and all else, in namespaces of its own. Built from Go
//! modules if `DROVER_TEST_KUBERNETES=node`, by root, and kept in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::held::Held;
use crate::kubernetes::{Kubernetes, bin};
use crate::patience::{Patience, pause};
use crate::platform::executable;
use crate::tools::{cache, find, lines_of, tool};

const SCRIPTS: &str = "kubernetes/node";
/// Address of the node, as its pods see it (`tests/kubernetes/node/env`).
pub const NODE: &str = "10.77.0.1";
/// The image that the chart asks for unless told otherwise.
pub const IMAGE: &str = "localhost/drover:0.1.0";
/// Last lines that are shown of what a pod says, and of Events, where something has failed.
const LINES: &str = "25";
const EVENTS: usize = 40;
/// Programs of Debian that a node is made of, and their packages.
const NEEDED: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("nsenter", "util-linux"),
    ("pgrep", "procps"),
];
/// Where Debian's package containernetworking-plugins has them.
const BRIDGE: &str = "/usr/lib/cni/bridge";
/// Longest wait for a forwarded port.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node, and the programs that go with it.
pub struct KubernetesNode {
    pub cluster: Kubernetes,
    pub helm: PathBuf,
}

impl KubernetesNode {
    /// Starts a node with nothing on it but DNS and volumes. `None`, after one line that says why, where it cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        Self::start_beside(&[], false)
    }

    /// The same, whose pods reach these ports of 127.0.0.1 at [`NODE`]; with `metrics` autoscalers know what pods use.
    pub fn start_beside(servers: &[u16], metrics: bool) -> anyhow::Result<Option<Self>> {
        if !Self::can_be_had() {
            return Ok(None);
        }
        // Layers of images do not lie well on those of a container's own root: in the cache, as what was built.
        std::fs::create_dir_all(cache()?)?;
        let mut further: Vec<String> = servers.iter().map(u16::to_string).collect();
        further.extend(metrics.then(|| "metrics".to_owned()));
        let cluster = Kubernetes::run(SCRIPTS, tempfile::tempdir_in(cache()?)?, &further)?;
        let helm = bin(&scripts())?.join("helm");
        Ok(Some(Self { cluster, helm }))
    }

    /// Whether a node is wanted and can be had; one line says why not.
    pub fn can_be_had() -> bool {
        if std::env::var_os("DROVER_TEST_KUBERNETES").is_none_or(|wanted| wanted != "node") {
            println!(
                "NOT RUN: a real Kubernetes node (its first build takes many minutes; DROVER_TEST_KUBERNETES=node, as root, wants it)"
            );
            return false;
        }
        if let Some(missing) = missing() {
            println!("NOT RUN: a real Kubernetes node ({missing} is missing)");
            return false;
        }
        tool("go").is_some()
    }

    /// What people would look at first where something has failed: pods, Events, and what pods say that are not ready.
    pub fn explain(&self) -> String {
        let ask = |arguments: &[&str]| self.cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        let events = ask(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]);
        let events: Vec<&str> = events.lines().collect();
        let events = events[events.len().saturating_sub(EVENTS)..].join("\n");
        let mut told =
            format!("{}\n{}\n{events}", ask(&["get", "pods", "-A", "-o", "wide"]), ask(&["get", "drover", "-A"]));
        let pods = self.cluster.get("default", &["pods"]).unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let statuses = pod["status"]["containerStatuses"].as_array();
            let is_ready = statuses.is_some_and(|all| all.iter().all(|one| one["ready"] == true));
            let Some(name) = pod["metadata"]["name"].as_str().filter(|_| !is_ready) else { continue };
            let (now, before) = (["logs", name, "--tail", LINES], ["logs", name, "--tail", LINES, "--previous"]);
            told += &format!("\n{name} says:\n{}\nand said before:\n{}", ask(&now), ask(&before));
        }
        told
    }

    /// Hands the node the image that the Dockerfile would make, assembled from the executable under test.
    pub fn load_image(&self, name: &str) -> anyhow::Result<()> {
        self.load_image_of(&executable()?, "drover", name)
    }

    /// The same of another executable, called `program` there.
    pub fn load_image_of(&self, executable: &Path, program: &str, name: &str) -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let image = root.path().join("root");
        let assemble = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/image/assemble");
        lines_of(Command::new(assemble).arg(executable).arg(&image).arg(program), b"")?;
        let (directory, port) = self.cluster.place().context("the cluster is another's")?;
        let mut load = Command::new(scripts().join("load-image"));
        load.arg(bin(&scripts())?).arg(directory).arg(port.to_string());
        lines_of(load.arg(name).arg(image).arg(format!("/usr/local/bin/{program}")), b"").map(drop)
    }

    /// Runs `helm` in the root of the repository; what it prints, or its complaint as the error.
    pub fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = lines_of(&mut self.cluster.tool(&self.helm, arguments), b"");
        Ok(said.with_context(|| format!("helm {}", arguments.join(" ")))?.join("\n"))
    }

    /// A program in the network of the node, where Services and pods are reached by their addresses.
    pub fn enter(&self, program: &Path) -> anyhow::Result<Command> {
        let (directory, _) = self.cluster.place().context("the cluster is another's")?;
        let pid = std::fs::read_to_string(directory.join("node.pid"))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", pid.trim(), "--net", "--"]).arg(program);
        Ok(command)
    }

    /// Leads `local` of this machine to a port of a pod or Service, until it is dropped.
    pub fn forward(&self, what: &str, local: u16, port: u16) -> anyhow::Result<Forward> {
        let ports = format!("{local}:{port}");
        let command = self.cluster.tool(self.cluster.kubectl_program(), &["port-forward", what, &ports]);
        let (directory, _) = self.cluster.place().context("the cluster is another's")?;
        let mut forward = Forward(Held::start(&command, directory.join(format!("forward-{local}.log")))?);
        let waiting = Patience::new(PATIENCE);
        while std::net::TcpStream::connect(("127.0.0.1", local)).is_err() {
            let (ended, said) = (forward.0.ended()?, forward.0.said());
            ensure!(ended.is_none(), "kubectl port-forward {what} {ports} has ended: {ended:?}: {said}");
            ensure!(waiting.lasts(), "kubectl port-forward {what} {ports} does not listen within {PATIENCE:?}: {said}");
            pause();
        }
        Ok(forward)
    }
}

/// A way to a port of the cluster.
pub struct Forward(Held);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPTS)
}

/// The first thing that a node needs and that is not here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("being root".to_owned());
    }
    if !Path::new(BRIDGE).exists() {
        return Some("Debian's package containernetworking-plugins".to_owned());
    }
    let absent = NEEDED.iter().find(|(program, _)| find(program).is_none());
    absent.map(|(program, package)| format!("{program}, of Debian's package {package},"))
}
