//! Consumer groups through librdkafka: shared work, rebalances, commits.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{Broker, PATIENCE};
use crate::raw::RawClient;

const PARTITIONS: u32 = 4;

async fn produce(broker: &Broker, topic: &str, numbers: std::ops::Range<u32>) {
    let producer: FutureProducer = broker.client().set("enable.idempotence", "true").create().expect("a producer");
    for n in numbers {
        let (key, payload) = (format!("key {}", n % 16), n.to_string());
        producer.send(FutureRecord::to(topic).key(&key).payload(&payload), PATIENCE).await.expect("delivered");
    }
}

fn member(broker: &Broker, group: &str, topic: &str) -> StreamConsumer {
    let consumer: StreamConsumer = broker
        .consumer(group)
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    consumer
}

fn number(message: &OwnedMessage) -> u32 {
    std::str::from_utf8(message.payload().expect("a payload")).expect("text").parse().expect("a number")
}

async fn next(consumer: &StreamConsumer) -> OwnedMessage {
    tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a message in time").expect("a message").detach()
}

fn commit(consumer: &StreamConsumer, message: &OwnedMessage) -> bool {
    let mut offsets = TopicPartitionList::new();
    let next = Offset::Offset(message.offset() + 1);
    offsets.add_partition_offset(message.topic(), message.partition(), next).expect("an offset");
    consumer.commit(&offsets, CommitMode::Sync).is_ok()
}

/// Reads and commits until it has been idle for a while; counts what it could commit.
async fn work(consumer: &StreamConsumer, seen: &mut BTreeMap<u32, u32>, quiet: Duration) {
    while let Ok(message) = tokio::time::timeout(quiet, consumer.recv()).await {
        let Ok(message) = message else { continue };
        let message = message.detach();
        if commit(consumer, &message) {
            *seen.entry(number(&message)).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_committed() {
    let broker = Broker::start().await;
    broker.topic("resumed", 1).await;
    produce(&broker, "resumed", 0..10).await;
    let first = member(&broker, "resuming", "resumed");
    for n in 0..4 {
        let message = next(&first).await;
        assert_eq!(number(&message), n);
        assert!(commit(&first, &message));
    }
    drop(first);
    let broker = broker.restart().await;
    let second = member(&broker, "resuming", "resumed");
    assert_eq!(number(&next(&second).await), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_work_through_rebalances_and_nothing_is_lost_or_committed_twice() {
    let broker = Broker::start().await;
    broker.topic("shared", PARTITIONS).await;
    produce(&broker, "shared", 0..300).await;
    let quiet = Duration::from_secs(8);
    let first = member(&broker, "sharing", "shared");
    let mut by_first = BTreeMap::new();
    for _ in 0..50 {
        let message = next(&first).await;
        assert!(commit(&first, &message));
        by_first.insert(number(&message), 1);
    }
    let second = member(&broker, "sharing", "shared");
    let mut by_second = BTreeMap::new();
    tokio::join!(
        produce(&broker, "shared", 300..1_000),
        work(&first, &mut by_first, quiet),
        work(&second, &mut by_second, quiet),
    );
    assert!(!by_second.is_empty(), "the second member got its share");
    let mut all = by_first;
    by_second.into_iter().for_each(|(n, times)| *all.entry(n).or_default() += times);
    assert_eq!(all.len(), 1_000, "none lost");
    let twice: Vec<_> = all.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "committed twice: {twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_a_dead_member_move_to_the_other_after_its_session() {
    let broker = Broker::start().await;
    broker.topic("inherited", PARTITIONS).await;
    let heir = member(&broker, "inheriting", "inherited");
    produce(&broker, "inherited", 0..1).await;
    next(&heir).await;
    let mut dying = RawClient::connect(broker.address).await;
    let (joined, ()) = tokio::join!(dying.take_share("inheriting", "inherited"), async {
        while heir.assignment().expect("known").count() != 2 {
            drop(tokio::time::timeout(Duration::from_millis(100), heir.recv()).await);
        }
    });
    assert!(!joined.is_empty(), "the other member has partitions of its own");
    // From here on it neither reads nor beats nor leaves: what a killed process looks like.
    produce(&broker, "inherited", 1..100).await;
    let mut seen = BTreeMap::new();
    tokio::time::timeout(PATIENCE, async {
        while seen.len() < 99 {
            work(&heir, &mut seen, Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("the heir reads all partitions");
    assert_eq!(heir.assignment().expect("known").count(), PARTITIONS as usize);
}
