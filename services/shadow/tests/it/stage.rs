//! Shadow services over one log and one database: started, asked, and their books checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Stored, TopicPartition};
use drover_host::{Cassandra, Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemClock, SystemRandom};
use drover_proto::from_status;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{GetShadowRequest, ListOpenDeltasRequest, UpdateShadowRequest};
use drover_shadow::ports::Store;
use drover_shadow::{CHANGES_TOPIC, DOCUMENTS_TOPIC, Shadow, ShadowConfig, StoreConfig};
use drover_types::{ApiError, Clock};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longest a test waits for a state; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(240);

/// The log that services share.
pub struct Stage {
    pub bus: Arc<dyn Bus>,
    directory: TempDir,
}

/// A running service.
pub struct Replica {
    pub health: Health,
    pub network: Network,
    metrics: Metrics,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Stage {
    /// An empty log.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let bus = EmbeddedBus::open(&directory.path().join("log"), EmbeddedOptions::default()).expect("opens").0;
        Self { bus: Arc::new(bus), directory }
    }

    /// Starts a service whose store is in `cassandra`.
    pub fn start(&self, member: &str, cassandra: &Cassandra) -> Replica {
        self.start_on(member, StoreConfig::Cassandra, cassandra)
    }

    /// Starts a service with a store in its own directory.
    pub fn start_embedded(&self, member: &str) -> Replica {
        self.start_on(member, StoreConfig::Embedded(Default::default()), &Cassandra::default())
    }

    /// Deletes the store of a service that has stopped.
    pub fn lose_store(&self, member: &str) {
        std::fs::remove_dir_all(self.directory.path().join(member).join("store")).expect("it was there");
    }

    /// Starts a service over a store that is open, perhaps in several services, with a clock of its own.
    pub fn start_over(&self, member: &str, store: &Arc<dyn Store>, clock: Arc<dyn Clock>) -> Replica {
        let (config, health, shutdown) = (config(member), Health::default(), Shutdown::new());
        let ports = Ports { clock, ..self.ports(member, &health, &Cassandra::default()) };
        let (network, metrics) = (ports.network.clone(), ports.metrics.clone());
        let running = tokio::spawn(drover_shadow::run_with(config, ports, shutdown.clone(), Arc::clone(store)));
        Replica { health, network, metrics, shutdown, running }
    }

    fn start_on(&self, member: &str, store: StoreConfig, cassandra: &Cassandra) -> Replica {
        let (config, health) = (ShadowConfig { store, ..config(member) }, Health::default());
        let (ports, shutdown) = (self.ports(member, &health, cassandra), Shutdown::new());
        let (network, metrics) = (ports.network.clone(), ports.metrics.clone());
        let running = tokio::spawn(Shadow::run(config, ports, shutdown.clone()));
        Replica { health, network, metrics, shutdown, running }
    }

    fn ports(&self, member: &str, health: &Health, cassandra: &Cassandra) -> Ports {
        Ports {
            bus: Arc::clone(&self.bus),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            network: Network::default(),
            sockets: Sockets::default(),
            data: self.directory.path().join(member),
            metrics: Metrics::default(),
            cassandra: cassandra.clone(),
            functions: Default::default(),
            ready: health.service("shadow"),
        }
    }

    /// Every record of a topic, partition after partition.
    pub async fn records(&self, topic: &str) -> Vec<Stored> {
        let mut found = Vec::new();
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(topic, partition);
            let bounds = self.bus.bounds(&at).await.expect("the topic exists");
            let mut next = bounds.earliest;
            while next < bounds.end {
                let read = self.bus.read(&at, next, 1 << 20, Duration::ZERO).await.expect("readable");
                let Some(last) = read.last() else { break };
                next = last.position.offset + 1;
                found.extend(read);
            }
        }
        found
    }

    /// Checks that versions have no gap, and that each of `updates` fields was set exactly once and is still there; the
    /// last version of each shadow.
    pub async fn check_books(&self, updates: usize) -> BTreeMap<String, u64> {
        let mut last: BTreeMap<String, Value> = BTreeMap::new();
        for stored in self.records(DOCUMENTS_TOPIC).await {
            let (key, document) = read(&stored);
            let before = last.get(&key).map_or(0, |before| before["version"].as_u64().expect("a version"));
            assert_eq!(document["version"], before + 1, "a gap in {key}");
            last.insert(key, document);
        }
        for (key, document) in &last {
            let fields = document["state"]["desired"].as_object().expect("an object");
            assert_eq!(fields.len(), updates, "of {key}: {fields:?}");
        }
        let mut set: BTreeMap<(String, String), usize> = BTreeMap::new();
        for stored in self.records(CHANGES_TOPIC).await {
            let (key, change) = read(&stored);
            for field in change["state"]["desired"].as_object().expect("an object").keys() {
                *set.entry((key.clone(), field.clone())).or_default() += 1;
            }
        }
        let doubled: Vec<_> = set.iter().filter(|(_, times)| **times > 1).collect();
        assert!(doubled.is_empty(), "carried out more than once: {doubled:?}");
        assert_eq!(set.len(), updates * last.len(), "each was carried out");
        last.into_iter().map(|(key, document)| (key, document["version"].as_u64().expect("a version"))).collect()
    }
}

/// The configuration of a service with a store of its own.
fn config(member: &str) -> ShadowConfig {
    ShadowConfig {
        partitions: PARTITIONS,
        member: member.to_owned(),
        store: StoreConfig::Embedded(Default::default()),
        ingress_nodes: Vec::new(),
        answer_timeout: drover_host::Duration::from_secs(2),
        ..ShadowConfig::default()
    }
}

fn read(stored: &Stored) -> (String, Value) {
    let record = &stored.record;
    let key = String::from_utf8(record.key.as_deref().expect("a key").to_vec()).expect("text");
    (key, serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON"))
}

impl Replica {
    /// Waits until it is ready.
    pub async fn ready(&self) {
        until(async || {
            assert!(!self.running.is_finished(), "the service ended");
            self.health.obstacles().is_empty()
        })
        .await;
    }

    /// Waits for an end that is an error; all of it as one line.
    pub async fn refused(mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, &mut self.running).await.expect("it ends");
        format!("{:#}", ended.expect("no panic").expect_err("refused"))
    }

    /// What a counter of the service has come to.
    pub fn counted(&self, name: &str) -> u64 {
        let page = self.metrics.encode();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("it is counted").parse().expect("a number")
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.expect("no panic").expect("a clean end");
    }

    /// Ends it as it stands.
    pub fn abort(self) {
        self.running.abort();
    }

    /// Sets the field `f{number}` of a device; asks again under the same id until it is answered.
    pub async fn update(&self, device: &str, number: usize) -> u64 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        id[8..].iter_mut().zip(device.bytes()).for_each(|(id, byte)| *id = byte);
        let document = format!(r#"{{"state": {{"desired": {{"f{number}": {number}}}}}}}"#).into_bytes();
        let request = UpdateShadowRequest {
            tenant: "home".to_owned(),
            device: device.to_owned(),
            name: String::new(),
            document,
            id: id.to_vec(),
        };
        let asking = async {
            loop {
                let mut client = ShadowClient::new(self.network.client("shadow"));
                match client.update_shadow(request.clone()).await {
                    Ok(answer) => return answer.into_inner().version,
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("answered in time")
    }

    /// The version of a device's shadow in the store.
    pub async fn version(&self, device: &str) -> Result<u64, ApiError> {
        let request = GetShadowRequest { tenant: "home".to_owned(), device: device.to_owned(), name: String::new() };
        let answer = ShadowClient::new(self.network.client("shadow")).get_shadow(request).await;
        answer.map(|answer| answer.into_inner().version).map_err(|status| from_status(&status))
    }

    /// The devices that want what they have not reported; one page.
    pub async fn open_deltas(&self) -> Result<Vec<String>, ApiError> {
        let request = ListOpenDeltasRequest { tenant: "home".to_owned(), ..ListOpenDeltasRequest::default() };
        let answer = ShadowClient::new(self.network.client("shadow")).list_open_deltas(request).await;
        answer.map(|answer| answer.into_inner().devices).map_err(|status| from_status(&status))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits for a state.
pub async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("reached in time");
}
