//! A cluster of three that tests harm, one test at a time; what it says of itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_backends::kafka::cluster::{Cluster, NODES};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::Metadata;
use tokio::sync::{Mutex, MutexGuard};

use crate::broker::within;

/// Pause before the cluster is asked again, and longest wait for its answer.
const LOOK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(2);

/// Whose turn it is to harm the cluster.
pub struct Turn {
    cluster: Arc<Cluster>,
    client: Arc<AdminClient<DefaultClientContext>>,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    /// The cluster with all its nodes and copies, once nobody else has it. `None` where there is no Kafka; that was said.
    pub async fn wait() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        static SHARED: OnceLock<Option<Arc<Cluster>>> = OnceLock::new();
        let turn = TURN.lock().await;
        let get = || SHARED.get_or_init(|| Cluster::start().expect("the cluster starts").map(Arc::new)).clone();
        let cluster = tokio::task::spawn_blocking(get).await.expect("no panic")?;
        let brokers = cluster.brokers().join(",");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "500");
        // Whoever does not answer is not asked for long.
        config.set("socket.timeout.ms", ANSWER.as_millis().to_string());
        let turn = Self { cluster, client: Arc::new(config.create().expect("a client")), _turn: turn };
        // A test that failed has left it as it was.
        turn.restore().await;
        turn.whole().await;
        Some(turn)
    }

    /// As production has them: three copies, two of which have what is acknowledged.
    pub fn options(&self) -> KafkaOptions {
        KafkaOptions { brokers: self.cluster.brokers(), ..KafkaOptions::default() }
    }

    pub fn bus(&self) -> KafkaBus {
        KafkaBus::open(self.options()).expect("options are good")
    }

    /// Does something to one node.
    pub async fn harm(&self, id: i32, how: fn(&Kafka) -> anyhow::Result<()>) {
        let cluster = self.cluster.clone();
        let harm = move || how(cluster.node(id)?);
        tokio::task::spawn_blocking(harm).await.expect("no panic").expect("done");
    }

    /// Brings back whoever is away.
    pub async fn restore(&self) {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || cluster.restore()).await.expect("no panic").expect("they serve again");
    }

    /// Looks until what is sought is seen.
    async fn look<T>(&self, seek: impl Fn(&Metadata) -> Option<T>) -> T {
        within(async {
            loop {
                let client = self.client.clone();
                let asked = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, ANSWER));
                if let Some(found) = asked.await.expect("no panic").ok().and_then(|metadata| seek(&metadata)) {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }

    /// Returns when every partition has all its copies.
    pub async fn whole(&self) {
        let is_whole = |metadata: &Metadata| {
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            metadata.brokers().len() == NODES && partitions.all(|p| p.leader() > 0 && p.isr().len() == NODES)
        };
        self.look(|metadata| is_whole(metadata).then_some(())).await;
    }

    /// Returns when a topic's first partition has as many copies.
    pub async fn copies(&self, topic: &str, count: usize) {
        let of_topic = |metadata: &Metadata| copies(metadata, topic, 0);
        self.look(|metadata| (of_topic(metadata)? == count).then_some(())).await;
    }

    /// Who leads a partition.
    pub async fn leader(&self, topic: &str, partition: i32) -> i32 {
        self.look(|metadata| leader(metadata, topic, partition)).await
    }

    /// Who keeps what one of Kafka's own topics has of a name: its coordinator.
    pub async fn coordinator(&self, of: &str, name: &str) -> i32 {
        let hash = name.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
        self.look(|metadata| {
            let partitions = metadata.topics().iter().find(|found| found.name() == of)?.partitions().len();
            let partition =
                hash.checked_abs().unwrap_or(0) % i32::try_from(partitions).ok().filter(|count| *count > 0)?;
            leader(metadata, of, partition)
        })
        .await
    }
}

fn leader(metadata: &Metadata, topic: &str, partition: i32) -> Option<i32> {
    let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
    topic.partitions().iter().find(|found| found.id() == partition).map(|found| found.leader()).filter(|id| *id > 0)
}

fn copies(metadata: &Metadata, topic: &str, partition: i32) -> Option<usize> {
    let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
    topic.partitions().iter().find(|found| found.id() == partition).map(|found| found.isr().len())
}
