//! Two shadow processes over a real Kafka and a real Cassandra: they share the partitions, and versions have no gap
//! when one is killed or hangs and the other takes over.

use std::collections::{BTreeMap, HashMap};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_backends::cassandra::{self, Cassandra};
use drover_backends::kafka::Kafka;
use drover_backends::ports;
use drover_host::{AdminToken, Calling, Network, NetworkParts};
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{GetShadowRequest, UpdateShadowRequest};
use drover_tests::{executable, read_committed};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Shadows that are updated side by side; they lie in several partitions.
const DEVICES: usize = 8;
/// Updates of each in each part of the test.
const UPDATES: usize = 12;
/// Longest a test waits for anything; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at a state.
const LOOK: Duration = Duration::from_millis(100);
/// How long a process hangs: longer than the group waits for a member.
const HANG: Duration = Duration::from_secs(15);

/// One `drover shadow`.
struct Process {
    name: String,
    grpc: u16,
    admin: u16,
    child: Option<Child>,
}

/// All of them, over one cluster and one keyspace.
struct Stage {
    brokers: String,
    cassandra: String,
    directory: TempDir,
    processes: [Process; 2],
    network: Network,
}

impl Stage {
    fn new(brokers: String, cassandra: String) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let made = Command::new(executable()?).args(["init", "--data"]).arg(directory.path()).output()?;
        ensure!(made.status.success(), "drover init: {}", String::from_utf8_lossy(&made.stderr));
        let process = |number| -> anyhow::Result<Process> {
            let name = format!("shadow-{number}");
            Ok(Process { name, grpc: ports::free()?, admin: ports::free()?, child: None })
        };
        let processes = [process(0)?, process(1)?];
        let uris = processes.iter().map(|p| format!("http://127.0.0.1:{}", p.grpc).parse());
        let services = HashMap::from([("shadow".to_owned(), uris.collect::<Result<_, _>>()?)]);
        let token = AdminToken::new(&std::fs::read_to_string(directory.path().join("admin.token"))?);
        let calling = Calling { is_idempotent: drover_proto::is_idempotent, ..Calling::default() };
        let parts = NetworkParts { services, admin_token: Some(token), calling, ..NetworkParts::default() };
        Ok(Self { brokers, cassandra, directory, processes, network: Network::new(parts)? })
    }

    fn configuration(&self, process: &Process) -> String {
        let Self { brokers, cassandra, directory, .. } = self;
        let Process { name, grpc, admin, .. } = process;
        let at = directory.path().display();
        format!(
            r#"
            [shadow]
            member = "{name}"
            listen = ["127.0.0.1:{grpc}"]
            ingress_nodes = []
            store = {{ kind = "cassandra" }}
            [cassandra]
            hosts = ["{cassandra}"]
            keyspace = "shadows"
            replication = 1
            [admin]
            listen = ["127.0.0.1:{admin}"]
            [security]
            pki = "{at}/pki"
            admin_token_file = "{at}/admin.token"
            [bus]
            kind = "kafka"
            kafka = {{ brokers = "{brokers}", replication_factor = 1, min_insync_replicas = 1 }}
            "#
        )
    }

    fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let process = &self.processes[number];
        let file = |ending: &str| self.directory.path().join(format!("{}.{ending}", process.name));
        std::fs::write(file("toml"), self.configuration(process))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(file("log"))?;
        let mut command = Command::new(executable()?);
        command.arg("shadow").arg("--config").arg(file("toml")).arg("--data").arg(file("data"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.processes[number].child = Some(child);
        Ok(())
    }

    fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut child = self.processes[number].child.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn signal(&self, number: usize, signal: &str) -> anyhow::Result<()> {
        let child = self.processes[number].child.as_ref().context("it runs")?;
        ensure!(Command::new("kill").arg(signal).arg(child.id().to_string()).status()?.success(), "kill {signal}");
        Ok(())
    }

    /// The last words of each process.
    fn logs(&self) -> String {
        let end = |process: &Process| {
            let path = self.directory.path().join(format!("{}.log", process.name));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}", process.name, lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.processes.iter().map(end).collect::<Vec<_>>().join("\n")
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        for process in self.processes.iter().filter(|process| process.child.is_some()) {
            let url = format!("http://127.0.0.1:{}/readyz", process.admin);
            let waiting = async {
                while ask(url.clone()).await.is_err() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let waited = tokio::time::timeout(PATIENCE, waiting).await;
            waited.with_context(|| format!("{} is not ready\n{}", process.name, self.logs()))?;
        }
        Ok(())
    }

    /// Updates each device one after the other, all devices side by side.
    fn updates(&self, part: usize) -> JoinSet<anyhow::Result<()>> {
        let mut senders = JoinSet::new();
        for device in 0..DEVICES {
            let network = self.network.clone();
            senders.spawn(async move {
                for number in part * UPDATES..(part + 1) * UPDATES {
                    update(&network, device, number).await?;
                }
                Ok(())
            });
        }
        senders
    }

    /// Checks the books: versions without a gap, every update carried out exactly once and still there.
    async fn check(&self, updates: usize) -> anyhow::Result<()> {
        let mut last: BTreeMap<String, Value> = BTreeMap::new();
        for (key, document) in self.records("drover.shadow.documents").await? {
            let before = last.get(&key).map_or(0, |before| before["version"].as_u64().unwrap_or_default());
            ensure!(document["version"] == before + 1, "a gap in {key}: {before} and then {}", document["version"]);
            last.insert(key, document);
        }
        ensure!(last.len() == DEVICES, "{} shadows", last.len());
        for (key, document) in &last {
            let there = document["state"]["desired"].as_object().context("desired")?.len();
            ensure!(there == updates && document["version"] == updates, "{key} has {there} fields: {document}");
        }
        let mut set: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (key, change) in self.records("drover.shadow.changes").await? {
            for field in change["state"]["desired"].as_object().context("desired")?.keys() {
                *set.entry((key.clone(), field.clone())).or_default() += 1;
            }
        }
        ensure!(set.values().all(|times| *times == 1), "carried out more than once: {set:?}");
        for device in 0..DEVICES {
            let request =
                GetShadowRequest { tenant: "home".into(), device: format!("lamp-{device}"), ..Default::default() };
            let stored = async {
                loop {
                    let mut client = ShadowClient::new(self.network.client("shadow"));
                    match client.get_shadow(request.clone()).await {
                        Ok(answer) if answer.get_ref().version == updates as u64 => return,
                        Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
                    }
                }
            };
            tokio::time::timeout(PATIENCE, stored).await.context("the store follows")?;
        }
        Ok(())
    }

    async fn records(&self, topic: &'static str) -> anyhow::Result<Vec<(String, Value)>> {
        let brokers = self.brokers.clone();
        let read = tokio::task::spawn_blocking(move || read_committed(&brokers, topic)).await??;
        read.into_iter().map(|output| Ok((output.key, serde_json::from_str(&output.value)?))).collect()
    }

    /// Partitions that a process has been assigned since it was started the last time, by its log.
    fn was_assigned(&self, number: usize) -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(self.directory.path().join(format!("shadow-{number}.log")))?;
        Ok(log.matches("assigned").count())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().filter_map(|process| process.child.as_mut()) {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child ends");
        }
    }
}

async fn ask(url: String) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LOOK * 20)).build().into();
        agent.get(url).call()?;
        Ok(())
    })
    .await?
}

/// Asks again under the same id until it is answered.
async fn update(network: &Network, device: usize, number: usize) -> anyhow::Result<()> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(device as u64).to_be_bytes());
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    let request = UpdateShadowRequest {
        tenant: "home".into(),
        device: format!("lamp-{device}"),
        name: String::new(),
        document: format!(r#"{{"state": {{"desired": {{"f{number}": {number}}}}}}}"#).into_bytes(),
        id: id.to_vec(),
    };
    let asking = async {
        while ShadowClient::new(network.client("shadow")).update_shadow(request.clone()).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("update {number} of {device}"))
}

async fn finish(stage: &Stage, mut senders: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = senders.join_next().await {
        ended?.with_context(|| stage.logs())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_partitions_and_a_takeover_leaves_no_gap() -> anyhow::Result<()> {
    let started =
        tokio::task::spawn_blocking(|| anyhow::Ok((Kafka::start()?, Cassandra::start(cassandra::Options::default()))));
    let (Some(kafka), Some(cassandra)) = started.await?? else { return Ok(()) };
    let kafka = Arc::new(kafka);
    let mut stage = Stage::new(kafka.brokers(), cassandra.address())?;
    stage.start(0)?;
    stage.start(1)?;
    stage.until_ready().await?;
    finish(&stage, stage.updates(0)).await?;
    stage.check(UPDATES).await?;
    ensure!(stage.was_assigned(0)? > 0 && stage.was_assigned(1)? > 0, "both have partitions\n{}", stage.logs());

    // One is killed: its partitions move to the other, in the middle of updates.
    let senders = stage.updates(1);
    tokio::time::sleep(LOOK).await;
    stage.kill(0)?;
    finish(&stage, senders).await?;
    stage.check(2 * UPDATES).await?;
    stage.start(0)?;
    stage.until_ready().await?;

    // One hangs until the other has its partitions, and then goes on as if nothing had been.
    let senders = stage.updates(2);
    tokio::time::sleep(LOOK).await;
    stage.signal(1, "-STOP")?;
    tokio::time::sleep(HANG).await;
    stage.signal(1, "-CONT")?;
    finish(&stage, senders).await?;
    stage.until_ready().await?;
    stage.check(3 * UPDATES).await
}
