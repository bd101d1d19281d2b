//! Followers: whoever reads on from where the last read ended.

use std::time::Duration;

use drover_bus::{Bounds, Bus, TopicPartition, Transaction};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::broker::{bus, record, shared, topic, value, within};

async fn commit(bus: &KafkaBus, id: &str, records: Vec<drover_bus::Outgoing>) {
    let mut transactor = bus.transactor(id).await.expect("opens");
    within(transactor.commit(Transaction { records: records.into(), offsets: None })).await.expect("commits");
}

/// The marker of a transaction is an offset without a record: a read at the end must neither wait for it nor fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_passes_over_the_markers_of_transactions() {
    let Some(kafka) = shared().await else { return };
    let bus = bus(kafka);
    let topic = topic(&bus, "markers", 1).await;
    let at = TopicPartition::new(topic.clone(), 0);
    let mut next = 0;
    for round in 0..5 {
        commit(&bus, "markers", vec![record(&topic, "k", &round.to_string())]).await;
        let read = within(bus.read(&at, next, 1 << 20, Duration::ZERO)).await.expect("reads");
        assert_eq!(read.iter().map(value).collect::<Vec<_>>(), [round.to_string()]);
        next = read[0].position.offset + 1;
        for wait in [Duration::ZERO, Duration::from_millis(50), Duration::ZERO] {
            assert_eq!(within(bus.read(&at, next, 1 << 20, wait)).await, Ok(vec![]));
        }
    }
}

/// More readers of one partition than there are clients for them take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_followers_of_one_partition_each_get_everything_in_order() {
    let Some(kafka) = shared().await else { return };
    let bus = bus(kafka);
    let topic = topic(&bus, "followers", 1).await;
    let follower = |bus: KafkaBus| {
        let at = TopicPartition::new(topic.clone(), 0);
        tokio::spawn(async move {
            let mut got = Vec::new();
            while got.len() < 60 {
                let next = got.last().map_or(0, |last: &drover_bus::Stored| last.position.offset + 1);
                got.extend(bus.read(&at, next, 20, Duration::from_millis(100)).await.expect("reads"));
            }
            got.iter().map(value).collect::<Vec<_>>()
        })
    };
    let followers: Vec<_> = (0..12).map(|_| follower(bus.clone())).collect();
    for number in 0..60 {
        let receipt = bus.append(vec![record(&topic, "k", &number.to_string())]).await.expect("is taken");
        within(receipt).await.expect("is acknowledged");
    }
    for follower in followers {
        let got = within(follower).await.expect("no panic");
        assert_eq!(got, (0..60).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

/// A stand-in for brokers, because real ones hear of a new topic sooner or later as they like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_its_leader_does_not_know_yet_is_there() {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic("new", 1, 1).expect("a topic");
    let brokers = vec![cluster.bootstrap_servers()];
    let options = KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() };
    let bus = KafkaBus::open(options).expect("opens");
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[unknown; 4]);
    let bounds = within(bus.bounds(&TopicPartition::new("new", 0))).await;
    assert_eq!(bounds, Ok(Bounds { earliest: 0, end: 0 }));
}
