//! Brokers, buses on them, and records to send.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_bus::conformance::Fixture;
use drover_bus::{Bus, Outgoing, Record, Stored, Topic, TopicConfig, TopicPartition};
use drover_bus_kafka::{KafkaBus, KafkaOptions};

/// Longest wait for what must happen, on a machine that does many other things.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The shared broker compacts small topics soon: by default it waits for a segment of 1 GiB, and looks every 15 seconds.
const COMPACTS: &str = "log.segment.bytes=2097152\nlog.cleaner.backoff.ms=250\n";

/// The broker that all tests share which do not harm it. `None` where there is no Kafka; that was said.
pub async fn shared() -> Option<&'static Kafka> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    let get = || SHARED.get_or_init(|| Kafka::start_with(COMPACTS).expect("kafka starts")).as_ref();
    tokio::task::spawn_blocking(get).await.expect("no panic")
}

/// A broker for one test.
pub async fn own(properties: impl AsRef<str> + Send + 'static) -> Option<Arc<Kafka>> {
    let started = tokio::task::spawn_blocking(move || Kafka::start_with(properties.as_ref())).await.expect("no panic");
    started.expect("kafka starts").map(Arc::new)
}

/// Does something to a broker off the runtime.
pub async fn with(kafka: &Arc<Kafka>, act: fn(&Kafka) -> anyhow::Result<()>) {
    let kafka = kafka.clone();
    tokio::task::spawn_blocking(move || act(&kafka)).await.expect("no panic").expect("done");
}

pub fn options(kafka: &Kafka) -> KafkaOptions {
    let brokers = vec![kafka.brokers()];
    KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() }
}

pub fn bus(kafka: &Kafka) -> KafkaBus {
    KafkaBus::open(options(kafka)).expect("options are good")
}

pub async fn fixture() -> Option<Fixture> {
    Some(Fixture::new(Arc::new(bus(shared().await?)), ()).compacting())
}

/// A new topic nobody else uses.
pub async fn topic(bus: &dyn Bus, what: &str, partitions: u32) -> Topic {
    let topic: Topic = format!("{what}-{}", std::process::id()).into();
    let config =
        TopicConfig { topic: topic.clone(), partitions, compact: false, retention_ms: None, retention_bytes: None };
    assert_eq!(bus.create_topic(config).await, Ok(true));
    topic
}

pub fn record(topic: &Topic, key: &str, value: &str) -> Outgoing {
    let bytes = |text: &str| Some(text.as_bytes().to_vec().into());
    // Of today: after a restart a broker remembers a producer by the times of its records, for a day.
    let timestamp_ms = rdkafka::message::Timestamp::now().to_millis().expect("a time");
    let record = Record { key: bytes(key), value: bytes(value), headers: drover_bus::Headers::default(), timestamp_ms };
    Outgoing::keyed(topic.clone(), record)
}

pub fn value(stored: &Stored) -> String {
    String::from_utf8_lossy(stored.record.value.as_deref().unwrap_or_default()).into_owned()
}

/// Values of everything in a partition, in order.
pub async fn values(bus: &dyn Bus, topic: &Topic, partition: u32) -> Vec<String> {
    let at = TopicPartition::new(topic.clone(), partition);
    let (mut from, mut values) = (0, Vec::new());
    loop {
        let read = bus.read(&at, from, 1 << 20, Duration::ZERO).await.expect("reads");
        let Some(last) = read.last() else { return values };
        from = last.position.offset + 1;
        values.extend(read.iter().map(value));
    }
}

/// Fails the test if `future` takes longer than [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("happens within the patience of the test")
}
