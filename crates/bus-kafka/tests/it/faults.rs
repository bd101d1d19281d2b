//! A broker that dies, and one that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_bus::{Bus, GroupConfig, Polled, Position, Start, Topic, TransactError, Transaction, Unacknowledged};
use drover_bus_kafka::{KafkaBus, KafkaOptions, ProducerState};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::task::JoinHandle;

use crate::broker::{bus, options, own, record, topic, values, with, within};

/// How long the broker hangs; `cargo xtask hang` makes it longer, by `DROVER_KAFKA_HANG_SECONDS`.
const HANG: Duration = Duration::from_secs(10);

/// Appends `count` records of one key one after the other, and returns those that were acknowledged, in order.
async fn append_all(bus: &KafkaBus, topic: &Topic, key: &str, count: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..count {
        let value = format!("{key}-{number}");
        let receipt = bus.append(vec![record(topic, key, &value)]).await.expect("is taken");
        if receipt.await.is_ok() {
            acknowledged.push(value);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_missing_after_the_broker_was_killed_under_appends() {
    let Some(kafka) = own("").await else { return };
    let bus = bus(&kafka);
    let topic = topic(&bus, "killed", 1).await;
    let keys = ["a", "b", "c"];
    let appending = keys.map(|key| {
        let (bus, topic) = (bus.clone(), topic.clone());
        tokio::spawn(async move { append_all(&bus, &topic, key, 3_000).await })
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(appending.iter().all(|task| !task.is_finished()), "the broker is killed under appends");
        with(&kafka, Kafka::kill).await;
        with(&kafka, Kafka::restart).await;
    }
    let mut expected = Vec::new();
    for task in appending {
        expected.push(within(task).await.expect("no panic"));
    }
    let stored = within(values(&bus, &topic, 0)).await;
    for (key, acknowledged) in keys.iter().zip(expected) {
        let of_key: Vec<_> = stored.iter().filter(|value| value.starts_with(key)).cloned().collect();
        assert_eq!(acknowledged.len(), 3_000, "a broker that comes back is no reason to give a record up");
        assert_eq!(of_key, acknowledged, "in order, each once");
    }
}

/// More than the queue has room for.
pub struct Flood {
    /// Records that the bus has taken.
    pub taken: Arc<AtomicUsize>,
    /// Ends when all are acknowledged.
    pub appending: JoinHandle<Result<Vec<Vec<Position>>, Unacknowledged>>,
}

/// Appends the numbers below `count` under one key, in batches of a hundred, as fast as they are taken.
pub fn flood(bus: &KafkaBus, topic: &Topic, count: usize) -> Flood {
    let taken = Arc::new(AtomicUsize::new(0));
    let (bus, topic, counted) = (bus.clone(), topic.clone(), taken.clone());
    let appending = tokio::spawn(async move {
        let mut receipts = Vec::new();
        for number in 0..count / 100 {
            let batch = (0..100).map(|n| record(&topic, "k", &(number * 100 + n).to_string())).collect();
            receipts.push(bus.append(batch).await.expect("is taken"));
            counted.fetch_add(100, Ordering::Relaxed);
        }
        futures::future::try_join_all(receipts).await
    });
    Flood { taken, appending }
}

pub fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_hangs_callers_wait_memory_is_bounded_and_afterwards_all_is_there() {
    const COUNT: usize = 200_000;
    let Some(kafka) = own("").await else { return };
    let named = std::env::var("DROVER_KAFKA_HANG_SECONDS").ok();
    let hang = named.map_or(HANG, |text| Duration::from_secs(text.parse().expect("a number of seconds")));
    let bus = KafkaBus::open(KafkaOptions { queue_messages_max: 20_000, ..options(&kafka) }).expect("opens");
    let topic = topic(&bus, "hung", 1).await;
    let first = bus.append(vec![record(&topic, "k", "first")]).await.expect("is taken");
    within(first).await.expect("is acknowledged");

    with(&kafka, Kafka::pause).await;
    let before = resident_bytes();
    let Flood { taken, appending } = flood(&bus, &topic, COUNT);
    tokio::time::sleep(hang).await;
    assert!(!appending.is_finished());
    let state = bus.append_state();
    assert_eq!((state.records_waiting, state.callers_waiting, state.producer), (20_000, 1, ProducerState::Stalled));
    assert!(state.oldest.is_some_and(|age| age >= hang - Duration::from_secs(1)), "{state:?}");
    assert_eq!(taken.load(Ordering::Relaxed), 20_000, "the next caller waits");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for 20,000 records");
    let read = bus.read(&drover_bus::TopicPartition::new(topic.clone(), 0), 1, 1, Duration::ZERO).await;
    assert!(read.is_err(), "a hung broker's silence is no answer: {read:?}");

    with(&kafka, Kafka::resume).await;
    within(appending).await.expect("no panic").expect("all are acknowledged");
    let stored = within(values(&bus, &topic, 0)).await;
    assert_eq!(stored.len(), COUNT + 1);
    assert_eq!((bus.append_state().records_waiting, bus.append_state().producer), (0, ProducerState::Working));
    assert!(stored[1..].iter().enumerate().all(|(place, value)| *value == place.to_string()), "in order, each once");
}

/// A stand-in for brokers, because real ones do not make a producer fail for good when asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_fails_for_good_leaves_its_records_unacknowledged_and_a_new_one_takes_over() {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic("t", 1, 1).expect("a topic");
    let brokers = vec![cluster.bootstrap_servers()];
    let options = KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() };
    let bus = KafkaBus::open(options).expect("opens");
    let topic: Topic = "t".into();
    let append = async |value: &str| {
        let receipt = bus.append(vec![record(&topic, "k", value)]).await.expect("is taken");
        within(receipt).await
    };
    append("before").await.expect("is acknowledged");
    let desynchronised = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[desynchronised]);
    append("lost").await.expect_err("nobody knows");
    within(async {
        while append("after").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let state = bus.append_state();
    assert_eq!((state.producers_replaced, state.records_waiting, state.oldest), (1, 0, None));
    assert_eq!(state.producer, ProducerState::Working);
}

/// librdkafka asks for the coordinator of a group again when one of its connections comes or goes, and none does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_group_has_lost_its_coordinator_comes_to_an_end_and_an_heir_commits() {
    let cluster = MockCluster::new(2).expect("a cluster");
    cluster.create_topic("t", 1, 1).expect("a topic");
    cluster.partition_leader("t", 0, Some(1)).expect("a leader");
    let coordinators = [MockCoordinator::Transaction("id".to_owned()), MockCoordinator::Group("g".to_owned())];
    for (coordinator, broker) in coordinators.into_iter().zip([1, 2]) {
        cluster.coordinator(coordinator, broker).expect("a coordinator");
    }
    let brokers = vec![cluster.bootstrap_servers()];
    let options = KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() };
    let bus = KafkaBus::open(options).expect("opens");
    let config = GroupConfig {
        group: "g".to_owned(),
        member: "m".to_owned(),
        topics: vec!["t".into()],
        start: Start::Earliest,
        session_timeout: Duration::from_secs(60),
        max_poll_interval: Duration::from_secs(60),
    };
    let mut member = within(bus.join(config)).await.expect("joins");
    let next = within(async {
        loop {
            if let Polled::Assigned(starts) = member.poll(1, Duration::from_secs(1)).await.expect("goes well") {
                return starts;
            }
        }
    })
    .await;
    let records = vec![record(&"t".into(), "k", "v")];
    let mut transactor = within(bus.transactor("id")).await.expect("opens");
    cluster.broker_down(2).expect("is down");
    let offsets = Some((member.membership(), next));
    let lost = within(transactor.commit(Transaction { records: records.clone().into(), offsets })).await;
    assert!(matches!(lost, Err(TransactError::Unknown { .. })), "{lost:?}");
    cluster.broker_up(2).expect("is up");
    let mut heir = within(bus.transactor("id")).await.expect("opens");
    within(heir.commit(Transaction { records: records.into(), offsets: None })).await.expect("commits");
}
