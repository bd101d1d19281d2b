//! Retention that waits: what a group must have stays until it has committed past it, whatever age and size say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions, GroupOffset};
use drover_bus::{Bounds, Bus, Outgoing, Record, TopicConfig, TopicPartition};
use drover_types::FixedClock;

/// Bytes of a record.
const RECORD_BYTES: usize = 64 * 1024;
/// When records are written, milliseconds since the Unix epoch.
const NOW_MS: u64 = 10_000;

fn config(topic: &str) -> TopicConfig {
    TopicConfig { topic: topic.into(), partitions: 2, compact: false, retention_ms: None, retention_bytes: None }
}

/// A log in which `groups` must have the records of the topic `t`.
fn open(directory: &Path, groups: &[&str], clock: &Arc<FixedClock>) -> EmbeddedBus {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let options = EmbeddedOptions {
        segment_bytes: 4 * RECORD_BYTES as u64,
        tail_bytes: 0,
        clock: Some(clock.clone()),
        retained_for: BTreeMap::from([("t".into(), groups)]),
        ..EmbeddedOptions::default()
    };
    EmbeddedBus::open(directory, options).expect("opens").0
}

async fn put(bus: &EmbeddedBus, topic: &str, partition: u32, records: usize) {
    for _ in 0..records {
        let value = Some(Bytes::from(vec![b'x'; RECORD_BYTES]));
        let record = Record { value, timestamp_ms: NOW_MS as i64, ..Record::default() };
        let outgoing = Outgoing { topic: topic.into(), partition: Some(partition), record };
        bus.append(vec![outgoing]).await.expect("is taken").await.expect("is acknowledged");
    }
}

async fn commit(bus: &EmbeddedBus, group: &str, partition: u32, next: u64) {
    let at = TopicPartition::new("t", partition);
    bus.store_offsets(group, vec![GroupOffset { at, next, metadata: String::new() }]).await.expect("stores");
}

async fn earliest(bus: &EmbeddedBus, topic: &str, partition: u32) -> u64 {
    let Bounds { earliest, .. } = bus.bounds(&TopicPartition::new(topic, partition)).await.expect("exists");
    earliest
}

#[tokio::test]
async fn size_takes_nothing_that_a_group_has_not_consumed() {
    let (directory, clock) = (tempfile::tempdir().expect("a directory"), Arc::new(FixedClock::at(NOW_MS)));
    let bus = open(directory.path(), &["a", "b"], &clock);
    let limit = Some(8 * RECORD_BYTES as u64);
    for topic in ["t", "free"] {
        bus.create_topic(TopicConfig { retention_bytes: limit, ..config(topic) }).await.expect("creates");
        put(&bus, topic, 0, 40).await;
    }
    assert_eq!(earliest(&bus, "t", 0).await, 0, "nothing is committed");
    assert!(earliest(&bus, "free", 0).await >= 24, "nobody is waited for");

    commit(&bus, "a", 0, 40).await;
    put(&bus, "t", 0, 8).await;
    assert_eq!(earliest(&bus, "t", 0).await, 0, "the other group has nothing");

    commit(&bus, "b", 0, 18).await;
    put(&bus, "t", 0, 8).await;
    let kept_from = earliest(&bus, "t", 0).await;
    assert!((10..=18).contains(&kept_from), "whole segments before 18 went: {kept_from}");

    drop(bus);
    let bus = open(directory.path(), &["a", "b"], &clock);
    put(&bus, "t", 0, 8).await;
    assert_eq!(earliest(&bus, "t", 0).await, kept_from, "a restart forgets nothing of it");
    drop(bus);
    let bus = open(directory.path(), &[], &clock);
    put(&bus, "t", 0, 8).await;
    assert!(earliest(&bus, "t", 0).await >= 48, "without a group that must have it, size alone counts");
}

#[tokio::test]
async fn age_takes_a_segment_when_every_partition_in_it_is_consumed() {
    let (directory, clock) = (tempfile::tempdir().expect("a directory"), Arc::new(FixedClock::at(NOW_MS)));
    let bus = open(directory.path(), &["a"], &clock);
    bus.create_topic(TopicConfig { retention_ms: Some(1_000), ..config("t") }).await.expect("creates");
    // One segment, with records of both partitions, and the next one, with records of one.
    put(&bus, "t", 0, 2).await;
    put(&bus, "t", 1, 2).await;
    put(&bus, "t", 1, 5).await;
    clock.advance(60_000);
    let look = async |bus: &EmbeddedBus| (earliest(bus, "t", 0).await, earliest(bus, "t", 1).await);
    // Each new segment is an occasion for retention.
    put(&bus, "t", 1, 5).await;
    assert_eq!(look(&bus).await, (0, 0));
    commit(&bus, "a", 1, 12).await;
    put(&bus, "t", 1, 5).await;
    assert_eq!(look(&bus).await, (0, 0), "partition 0 is not consumed");
    commit(&bus, "a", 0, 1).await;
    put(&bus, "t", 1, 5).await;
    assert_eq!(look(&bus).await, (0, 0), "its last record is not");
    commit(&bus, "a", 0, 2).await;
    put(&bus, "t", 1, 5).await;
    let (zero, one) = look(&bus).await;
    assert!(zero == 2 && (7..=12).contains(&one), "what both have went, what is not consumed is there: {zero} {one}");
}
