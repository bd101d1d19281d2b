//! Topics that are there already, made by somebody else.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_bus::{AdminError, Bus, TopicConfig};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::broker::{bus, options, shared, topic, within};

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client")
}

/// Makes a topic of one partition in one copy, of this policy.
async fn made(kafka: &Kafka, topic: &str, policy: &str) {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
    let made = within(admin(&kafka.brokers()).create_topics(&[new], &AdminOptions::new())).await.expect("answered");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

fn config(topic: &str, compact: bool) -> TopicConfig {
    TopicConfig { topic: topic.into(), partitions: 1, compact, retention_ms: None, retention_bytes: None }
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, with: &str) -> Vec<String> {
        let log = String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned();
        log.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_another_policy_is_refused_with_both_and_one_of_the_same_is_taken() {
    let Some(kafka) = shared().await else { return };
    let bus = bus(kafka);
    for (name, found, wanted) in [
        ("policy-log", "delete", "compact"),
        ("policy-table", "compact", "delete"),
        ("policy-table-of-late", "compact,delete", "compact"),
        ("policy-log-of-late", "compact,delete", "delete"),
    ] {
        made(kafka, name, found).await;
        let refused = within(bus.create_topic(config(name, wanted == "compact"))).await.expect_err("another policy");
        let line = format!("topic {name} exists with cleanup.policy = {found}, {wanted} was asked for");
        assert_eq!(refused.to_string(), line);
    }
    // Whoever can do with another number of partitions hears of the policy, too.
    let many = TopicConfig { partitions: 5, ..config("policy-log", true) };
    let refused = within(bus.create_topic(many)).await;
    assert!(matches!(&refused, Err(AdminError::Setting { topic, .. }) if topic == "policy-log"), "{refused:?}");
    for (name, compact) in [("policy-log", false), ("policy-table", true)] {
        assert_eq!(within(bus.create_topic(config(name, compact))).await, Ok(false), "{name}");
    }
}

/// Copies of each of a topic's partitions, and how many of them must have what is acknowledged; of its own, not the broker's.
pub async fn copies(brokers: &str, topic: &str) -> (Vec<usize>, Option<String>) {
    let admin = admin(brokers);
    let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(Some(topic), Duration::from_secs(30)));
    let metadata = metadata.expect("answered");
    let replicas = metadata.topics()[0].partitions().iter().map(|p| p.replicas().len()).collect();
    let described = within(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new())).await;
    let resource = described.expect("answered").pop().expect("one").expect("it is there");
    let entry = resource.get("min.insync.replicas").expect("a setting of topics");
    (replicas, entry.value.clone().filter(|_| entry.source == ConfigSource::DynamicTopic))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_in_as_many_copies_as_are_configured() {
    let Some(kafka) = shared().await else { return };
    let topic = topic(&bus(kafka), "copies", 2).await;
    assert_eq!(copies(&kafka.brokers(), &topic).await, (vec![1, 1], Some("1".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_in_fewer_copies_than_configured_is_taken_and_told_once() {
    let Some(kafka) = shared().await else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    made(kafka, "few", "delete").await;
    let more = KafkaOptions { replication_factor: 3, min_insync_replicas: 2, ..options(kafka) };
    for options in [options(kafka), more] {
        let bus = KafkaBus::open(options).expect("opens");
        for _ in 0..2 {
            assert_eq!(within(bus.create_topic(config("few", false))).await, Ok(false));
        }
    }
    let lines = log.lines("topic=\"few\"");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for part in ["WARN", "replicas=1", "min_insync_replicas=1", "wanted=[3, 2]"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
