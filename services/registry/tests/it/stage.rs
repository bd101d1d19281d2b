//! One registry to test: started, stopped and started again over the same directory and log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Stored, TopicPartition};
use drover_host::{Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemRandom, grpc};
use drover_proto::from_status;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{CreateDeviceRequest, IssueTokenRequest, IssueTokenResponse};
use drover_proto::types::v1::{Device, Meta};
use drover_registry::{Registry, RegistryConfig};
use drover_types::{ApiError, FixedClock};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Late 2026, in milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_795_000_000_000;
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running registry and all around it.
pub struct Stage {
    pub client: RegistryClient<grpc::Client>,
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<FixedClock>,
    pub network: Network,
    pub directory: TempDir,
    config: RegistryConfig,
    health: Health,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

/// The configuration of most tests: few partitions, nobody to tell of revocations.
pub fn config() -> RegistryConfig {
    RegistryConfig { partitions: 2, ingress_nodes: Vec::new(), ..RegistryConfig::default() }
}

impl Stage {
    /// A registry with nothing in it.
    pub async fn new() -> Self {
        Self::with(config(), tempfile::tempdir().expect("a directory")).await
    }

    /// A registry over what is in `directory`.
    pub async fn with(config: RegistryConfig, directory: TempDir) -> Self {
        Self::on(Network::default(), config, directory).await
    }

    /// A registry that reaches others by `network`.
    pub async fn on(network: Network, config: RegistryConfig, directory: TempDir) -> Self {
        let log = directory.path().join("log");
        let (bus, _) = EmbeddedBus::open(&log, EmbeddedOptions::default()).expect("opens");
        let bus: Arc<dyn Bus> = Arc::new(bus);
        let (clock, health, shutdown) = (Arc::new(FixedClock::at(NOW_MS)), Health::default(), Shutdown::new());
        let ports = ports(&bus, &clock, &network, &health, directory.path());
        let running = tokio::spawn(Registry::run(config.clone(), ports, shutdown.clone()));
        let client = RegistryClient::new(network.client("registry"));
        let stage = Self { client, bus, clock, network, directory, config, health, shutdown, running };
        stage.ready().await;
        stage
    }

    /// Stops the registry and starts it again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Stops the registry, loses its store, and starts it again.
    pub async fn restart_without_store(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(self.directory.path().join("registry/store")).expect("removed");
        self.start().await;
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.expect("no panic").expect("a clean end");
    }

    async fn start(&mut self) {
        self.shutdown = Shutdown::new();
        let ports = ports(&self.bus, &self.clock, &self.network, &self.health, self.directory.path());
        self.running = tokio::spawn(Registry::run(self.config.clone(), ports, self.shutdown.clone()));
        self.client = RegistryClient::new(self.network.client("registry"));
        self.ready().await;
    }

    async fn ready(&self) {
        until(async || self.health.obstacles().is_empty() || self.running.is_finished()).await;
        assert!(!self.running.is_finished(), "the registry ended");
    }

    /// Registers a device of the tenant `default`.
    pub async fn create_device(&self, name: &str) -> Result<Device, ApiError> {
        let request = CreateDeviceRequest { device: Some(device(name)) };
        let answer = self.client.clone().create_device(request).await;
        answer.map(|answer| answer.into_inner().device.expect("a device")).map_err(|status| from_status(&status))
    }

    /// Makes a token of a device of the tenant `default`.
    pub async fn issue_token(&self, device: &str, duration_s: u64) -> IssueTokenResponse {
        let request = IssueTokenRequest { tenant: String::new(), device: device.into(), duration_s };
        self.client.clone().issue_token(request).await.expect("issued").into_inner()
    }

    /// Every record of a topic, partition after partition.
    pub async fn records(&self, topic: &str) -> Vec<Stored> {
        let mut found = Vec::new();
        for partition in 0..self.config.partitions {
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
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn ports(bus: &Arc<dyn Bus>, clock: &Arc<FixedClock>, network: &Network, health: &Health, directory: &Path) -> Ports {
    Ports {
        bus: Arc::clone(bus),
        clock: Arc::clone(clock) as _,
        random: Arc::new(SystemRandom),
        network: network.clone(),
        sockets: Sockets::default(),
        data: directory.join("registry"),
        metrics: Metrics::default(),
        ready: health.service("registry"),
    }
}

/// Waits until a state is reached.
pub async fn until(mut reached: impl AsyncFnMut() -> bool) {
    while !reached().await {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Metadata of a new object of the tenant `default`.
pub fn meta(name: &str) -> Option<Meta> {
    Some(Meta { name: name.into(), ..Meta::default() })
}

/// An enabled device with the built-in policy.
pub fn device(name: &str) -> Device {
    Device { meta: meta(name), enabled: true, policies: vec!["default".into()], ..Device::default() }
}
