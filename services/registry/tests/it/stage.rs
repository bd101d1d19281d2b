//! One registry to test: started, stopped and started again over the same directory and log.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Stored, TopicPartition};
use drover_host::{Cassandra, Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemRandom, grpc};
use drover_proto::from_status;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{
    AuthenticateRequest, CreateDeviceRequest, IssueTokenRequest, IssueTokenResponse, TokenProof,
};
use drover_proto::types::v1::{Device, Identity, Meta};
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
    cassandra: Cassandra,
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
        Self::with_cassandra(config, directory, &Cassandra::default()).await
    }

    /// A registry that reaches others by `network`.
    pub async fn on(network: Network, config: RegistryConfig, directory: TempDir) -> Self {
        let bus = log_in(&directory);
        Self::over(network, config, directory, &Cassandra::default(), bus).await
    }

    /// A registry with a log of its own in `directory`.
    pub async fn with_cassandra(config: RegistryConfig, directory: TempDir, cassandra: &Cassandra) -> Self {
        let bus = log_in(&directory);
        Self::over(Network::default(), config, directory, cassandra, bus).await
    }

    /// Another registry over the same log.
    pub async fn beside(&self, config: RegistryConfig, cassandra: &Cassandra) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::over(Network::default(), config, directory, cassandra, Arc::clone(&self.bus)).await
    }

    async fn over(
        network: Network,
        config: RegistryConfig,
        directory: TempDir,
        cassandra: &Cassandra,
        bus: Arc<dyn Bus>,
    ) -> Self {
        let clock = Arc::new(FixedClock::at(NOW_MS));
        let (health, shutdown, client) = (Health::default(), Shutdown::new(), network.client("registry"));
        let (cassandra, client) = (cassandra.clone(), RegistryClient::new(client));
        let running = tokio::spawn(async { anyhow::Ok(()) });
        let mut stage = Self { client, bus, clock, network, directory, cassandra, config, health, shutdown, running };
        stage.start().await;
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
        let store = self.directory.path().join("registry/store");
        std::fs::remove_dir_all(&store).expect("removed");
        std::fs::create_dir(&store).expect("made: somebody knows that it is empty");
        self.start().await;
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.expect("no panic").expect("a clean end");
    }

    async fn start(&mut self) {
        self.shutdown = Shutdown::new();
        self.running = tokio::spawn(Registry::run(self.config.clone(), self.ports(), self.shutdown.clone()));
        self.client = RegistryClient::new(self.network.client("registry"));
        self.ready().await;
    }

    fn ports(&self) -> Ports {
        Ports {
            bus: Arc::clone(&self.bus),
            clock: Arc::clone(&self.clock) as _,
            random: Arc::new(SystemRandom),
            network: self.network.clone(),
            sockets: Sockets::default(),
            data: self.directory.path().join("registry"),
            metrics: Metrics::default(),
            cassandra: self.cassandra.clone(),
            functions: Default::default(),
            ready: self.health.service("registry"),
        }
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
        let request =
            IssueTokenRequest { tenant: String::new(), device: device.into(), duration_s, owner: String::new() };
        self.client.clone().issue_token(request).await.expect("issued").into_inner()
    }

    /// Who a token belongs to, of a device of the tenant `default`.
    pub async fn authenticate_token(&self, device: &str, token: &str) -> Result<Identity, ApiError> {
        let proof = Proof::Token(TokenProof { user_name: device.into(), token: token.into() });
        let answer = self.client.clone().authenticate(AuthenticateRequest { proof: Some(proof) }).await;
        answer.map(|answer| answer.into_inner().identity.expect("identity")).map_err(|status| from_status(&status))
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

fn log_in(directory: &TempDir) -> Arc<dyn Bus> {
    let (bus, _) = EmbeddedBus::open(&directory.path().join("log"), EmbeddedOptions::default()).expect("opens");
    Arc::new(bus)
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
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
