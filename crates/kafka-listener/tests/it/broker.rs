//! A listener over an embedded log in a directory of its own, and clients for it.

use std::net::SocketAddr;
use std::time::Duration;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, TopicConfig};
use drover_kafka_listener::{ListenerConfig, Metrics, serve};
use rdkafka::ClientConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running listener; ends with the test.
pub struct Broker {
    pub bus: EmbeddedBus,
    pub address: SocketAddr,
    pub metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    directory: TempDir,
}

impl Broker {
    pub async fn start() -> Self {
        Self::start_with(ListenerConfig::default()).await
    }

    pub async fn start_with(config: ListenerConfig) -> Self {
        let directory = TempDir::new().expect("a directory");
        Self::open(directory, "127.0.0.1:0".parse().expect("an address"), config).await
    }

    async fn open(directory: TempDir, address: SocketAddr, config: ListenerConfig) -> Self {
        let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
        let socket = TcpListener::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let (metrics, log) = (Metrics::default(), bus.clone());
        let counted = metrics.clone();
        let served = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            serve(vec![socket], log, config, counted, until).await.expect("serves on loopback");
        });
        Self { bus, address, metrics, stop: Some(stop), served, directory }
    }

    /// Ends everything and starts it again on the same port and directory.
    pub async fn restart(mut self) -> Self {
        drop(self.stop.take());
        self.served.await.expect("ends");
        self.bus.close().await;
        drop(self.bus);
        Self::open(self.directory, self.address, ListenerConfig::default()).await
    }

    /// A topic made behind the listener's back.
    pub async fn topic(&self, name: &str, partitions: u32) {
        let config =
            TopicConfig { topic: name.into(), partitions, compact: false, retention_ms: None, retention_bytes: None };
        assert_eq!(self.bus.create_topic(config).await, Ok(true));
    }

    /// Settings every rdkafka client here shares.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address.to_string());
        config
    }

    /// Settings of a consumer in `group` that starts at the beginning and commits by hand.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        config
    }
}
