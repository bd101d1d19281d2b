//! Promises about what a topic is: how long it keeps what.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fixture, PATIENCE, keyed, value, within};
use crate::{Offset, Stored, TopicConfig, TopicPartition};

/// Keys of the compacted topic, and how often each is written: some 5 MB, more than what a server keeps uncompacted.
const KEYS: u32 = 8;
const ROUNDS: u32 = 640;
/// Rounds of one append.
const ROUNDS_AT_ONCE: u32 = 8;
/// Bytes of a value besides its number.
const FILLER: usize = 1_024;

pub async fn a_topic_is_listed_with_what_it_was_made_with(f: &Fixture) {
    // A size that every partition can have a whole share of: Kafka keeps it by partition.
    let (day_ms, size) = (Some(24 * 3600 * 1000), Some(4 << 20));
    let limits = [("ever", None, None), ("age", day_ms, None), ("size", None, size), ("both", day_ms, size)];
    let mut made = Vec::new();
    for (name, retention_ms, retention_bytes) in limits {
        for compact in [false, true] {
            let plain = f.config(&format!("{name}-{compact}"), 4);
            let config = TopicConfig { compact, retention_ms, retention_bytes, ..plain };
            assert_eq!(f.bus.create_topic(config.clone()).await, Ok(true));
            made.push(config);
        }
    }
    let topics = f.bus.topics().await.expect("lists");
    for config in &made {
        assert_eq!(topics.iter().find(|listed| listed.topic == config.topic), Some(config));
    }
}

/// On a [`Fixture::compacting`] one it waits until something has been compacted away.
pub async fn the_newest_record_of_each_key_stays_in_a_compacted_topic(f: &Fixture) {
    let config = TopicConfig { compact: true, ..f.config("compacted", 1) };
    assert_eq!(f.bus.create_topic(config.clone()).await, Ok(true));
    let filler = "x".repeat(FILLER);
    let (mut written, mut newest) = (BTreeMap::new(), BTreeMap::new());
    for first in (0..ROUNDS).step_by(ROUNDS_AT_ONCE as usize) {
        let numbers = first * KEYS..(first + ROUNDS_AT_ONCE) * KEYS;
        let records: Vec<(String, String)> =
            numbers.map(|number| (format!("k{}", number % KEYS), format!("{number}/{filler}"))).collect();
        let batch = records.iter().map(|(key, value)| keyed(&config.topic, key, value)).collect();
        for ((key, value), position) in records.into_iter().zip(f.append(batch).await) {
            newest.insert(key.clone(), position.offset);
            written.insert(position.offset, (key, value));
        }
    }
    let at = TopicPartition::new(config.topic, 0);
    let bounds = f.bus.bounds(&at).await.expect("partition exists");
    within(async {
        loop {
            let all = f.between(&at, bounds, PATIENCE).await;
            check(&all, &written, &newest);
            if !f.compacts || all.len() < written.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// What is there was written so, in its order, and of each key the newest is among it.
fn check(all: &[Stored], written: &BTreeMap<Offset, (String, String)>, newest: &BTreeMap<String, Offset>) {
    assert!(all.is_sorted_by_key(|stored| stored.position.offset));
    let mut last = BTreeMap::new();
    for stored in all {
        let key = String::from_utf8_lossy(stored.record.key.as_deref().expect("has a key")).into_owned();
        let offset = stored.position.offset;
        assert_eq!(written.get(&offset), Some(&(key.clone(), value(stored))), "offset {offset}");
        last.insert(key, offset);
    }
    assert_eq!(&last, newest);
}
