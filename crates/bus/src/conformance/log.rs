//! Promises about topics, appends and reads.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{BYTES, Fixture, MOMENT, PATIENCE, keyed, outgoing, record, value, within};
use crate::{AdminError, AppendError, Bounds, Headers, Outgoing, ReadError, Record, TopicPartition, partition_of};

pub async fn keyed_records_keep_their_order(f: &Fixture) {
    let topic = f.topic("order", 4).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    for round in 0..20 {
        f.append(keys.iter().map(|key| keyed(&topic, key, &format!("{key}{round}"))).collect()).await;
    }
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..4 {
        for stored in f.all(&topic, partition).await {
            let key = String::from_utf8_lossy(stored.record.key.as_deref().expect("has a key")).into_owned();
            by_key.entry(key).or_default().push(value(&stored));
        }
    }
    for key in keys {
        let expected: Vec<_> = (0..20).map(|round| format!("{key}{round}")).collect();
        assert_eq!(by_key[key], expected);
    }
}

pub async fn records_go_where_the_partitioner_says(f: &Fixture) {
    let topic = f.topic("partitioner", 5).await;
    let keys: Vec<String> = (0..50).map(|i| format!("key-{i}")).collect();
    let positions = f.append(keys.iter().map(|key| keyed(&topic, key, "x")).collect()).await;
    for (key, position) in keys.iter().zip(positions) {
        assert_eq!(position.at, TopicPartition::new(topic.clone(), partition_of(key.as_bytes(), 5)));
    }
    let without_key = f.append(vec![Outgoing::keyed(topic.clone(), record("any"))]).await;
    assert!(without_key[0].at.partition < 5);
}

pub async fn a_receipt_means_readable(f: &Fixture) {
    let topic = f.topic("receipt", 1).await;
    for i in 0..50 {
        let position = f.put(&topic, 0, &i.to_string()).await;
        let read = f.bus.read(&position.at, position.offset, BYTES, Duration::ZERO).await.expect("reads");
        assert_eq!(value(&read[0]), i.to_string());
        assert_eq!(read[0].position, position);
    }
}

pub async fn records_read_back_as_they_were_written(f: &Fixture) {
    let topic = f.topic("fidelity", 1).await;
    let bytes = Bytes::from_static;
    let records = [
        Record {
            key: Some(bytes(b"k")),
            value: Some(bytes(b"v")),
            timestamp_ms: 1_700_000_000_000,
            headers: Headers::default(),
        },
        Record { key: Some(bytes(b"tombstone")), value: None, timestamp_ms: 2, headers: Headers::default() },
        Record { key: None, value: Some(bytes(b"")), timestamp_ms: 3, headers: Headers::default() },
        Record {
            key: Some(bytes(b"")),
            value: Some(bytes(&[0, 255, 128])),
            timestamp_ms: 4,
            headers: Headers::default(),
        },
        Record {
            headers: [("id", &[0; 16][..]), ("again", b"1"), ("again", b"2"), ("empty", b"")].into(),
            timestamp_ms: 5,
            ..record("headers")
        },
    ];
    f.append(records.iter().map(|r| outgoing(&topic, 0, r.clone())).collect()).await;
    let read: Vec<_> = f.all(&topic, 0).await.into_iter().map(|stored| stored.record).collect();
    assert_eq!(read, records);
    assert_eq!(read[4].header("again"), Some(&b"2"[..]));
}

pub async fn positions_come_in_the_order_given(f: &Fixture) {
    let (one, two) = (f.topic("one", 3).await, f.topic("two", 2).await);
    let mut batch = Vec::new();
    for i in 0..30 {
        let (topic, partitions) = if i % 2 == 0 { (&one, 3) } else { (&two, 2) };
        batch.push(outgoing(topic, i % partitions, record(&i.to_string())));
    }
    let positions = f.append(batch.clone()).await;
    for (sent, position) in batch.iter().zip(positions) {
        let read = f.bus.read(&position.at, position.offset, 1, PATIENCE).await.expect("reads");
        assert_eq!((&read[0].record, &read[0].position), (&sent.record, &position));
    }
}

pub async fn appends_keep_the_order_of_their_calls(f: &Fixture) {
    let topic = f.topic("calls", 1).await;
    let mut receipts = Vec::new();
    for i in 0..200 {
        receipts.push(f.bus.append(vec![outgoing(&topic, 0, record(&i.to_string()))]).await.expect("is taken"));
    }
    for receipt in receipts {
        within(receipt).await.expect("is acknowledged");
    }
    assert_eq!(f.values(&topic, 0).await, (0..200).map(|i| i.to_string()).collect::<Vec<_>>());
}

pub async fn times_are_found(f: &Fixture) {
    let topic = f.topic("times", 1).await;
    let at = TopicPartition::new(topic.clone(), 0);
    assert_eq!(f.bus.offset_at(&at, 0).await, Ok(0));
    let mut offsets = Vec::new();
    for timestamp_ms in [100, 200, 200, 400] {
        let record = Record { timestamp_ms, ..record("t") };
        offsets.push(f.append(vec![outgoing(&topic, 0, record)]).await[0].offset);
    }
    let end = f.bus.bounds(&at).await.expect("exists").end;
    for (time, offset) in
        [(0, offsets[0]), (100, offsets[0]), (101, offsets[1]), (200, offsets[1]), (201, offsets[3]), (401, end)]
    {
        assert_eq!(f.bus.offset_at(&at, time).await, Ok(offset), "at {time}");
    }
}

pub async fn bounds_follow_the_records(f: &Fixture) {
    let topic = f.topic("bounds", 2).await;
    let at = |partition| TopicPartition::new(topic.clone(), partition);
    assert_eq!(f.bus.bounds(&at(1)).await, Ok(Bounds { earliest: 0, end: 0 }));
    let last = f.append((0..3).map(|_| outgoing(&topic, 1, record("x"))).collect()).await[2].offset;
    assert_eq!(f.bus.bounds(&at(1)).await, Ok(Bounds { earliest: 0, end: last + 1 }));
    assert_eq!(f.bus.bounds(&at(0)).await, Ok(Bounds { earliest: 0, end: 0 }));
}

pub async fn offsets_out_of_range_are_refused(f: &Fixture) {
    let topic = f.topic("range", 1).await;
    let end = f.put(&topic, 0, "x").await.offset + 1;
    let at = TopicPartition::new(topic, 0);
    assert_eq!(f.bus.read(&at, end, BYTES, Duration::ZERO).await, Ok(vec![]));
    let refused = f.bus.read(&at, end + 1, BYTES, Duration::ZERO).await;
    assert_eq!(refused, Err(ReadError::OutOfRange { from: end + 1, earliest: 0, end }));
}

pub async fn unknown_topics_and_partitions_are_refused(f: &Fixture) {
    let topic = f.topic("known", 2).await;
    let unknown = f.name("unknown");
    let refused = f.bus.append(vec![keyed(&unknown.as_str().into(), "k", "v")]).await.err();
    assert_eq!(refused, Some(AppendError::UnknownTopic { topic: unknown.clone() }));
    let batch = vec![outgoing(&topic, 0, record("x")), outgoing(&topic, 2, record("x"))];
    let refused = f.bus.append(batch).await.err();
    assert_eq!(refused, Some(AppendError::UnknownPartition { topic: topic.to_string(), partition: 2 }));
    assert_eq!(f.values(&topic, 0).await, Vec::<String>::new(), "nothing of a refused batch appears");
    for at in [TopicPartition::new(topic, 2), TopicPartition::new(unknown, 0)] {
        assert_eq!(f.bus.bounds(&at).await, Err(ReadError::Unknown { at: at.clone() }));
        let read = f.bus.read(&at, 0, BYTES, Duration::ZERO).await;
        assert_eq!(read, Err(ReadError::Unknown { at: at.clone() }));
        assert_eq!(f.bus.offset_at(&at, 0).await, Err(ReadError::Unknown { at: at.clone() }));
    }
}

/// Every adapter takes what the platform sends (256 KiB and headers) and refuses what is far too large.
pub async fn records_are_taken_up_to_the_limit(f: &Fixture) {
    let topic = f.topic("large", 1).await;
    let sized = |bytes: usize| Record { value: Some(vec![7; bytes].into()), ..record("") };
    f.append(vec![outgoing(&topic, 0, sized(300 * 1024))]).await;
    let headers = [("h", "v")].into();
    let large = Record { headers, ..sized(64 * 1024 * 1024) };
    let own = large.bytes();
    let refused = f.bus.append(vec![outgoing(&topic, 0, large)]).await.err();
    let told = matches!(refused, Some(AppendError::TooLarge { bytes, limit }) if bytes == own && bytes > limit);
    assert!(told, "{refused:?}");
    f.put(&topic, 0, "next").await;
    assert_eq!(f.all(&topic, 0).await.len(), 2);
}

pub async fn topics_are_created_once(f: &Fixture) {
    let config = f.config("once", 3);
    assert_eq!(f.bus.create_topic(config.clone()).await, Ok(true));
    assert_eq!(f.bus.create_topic(config.clone()).await, Ok(false));
    let topic = config.topic.to_string();
    let refused = f.bus.create_topic(f.config("once", 4)).await;
    assert_eq!(refused, Err(AdminError::Partitions { topic, existing: 3, wanted: 4 }));
    let topics = f.bus.topics().await.expect("lists");
    assert!(topics.iter().any(|t| t.topic == config.topic && t.partitions == 3));
    assert!(topics.is_sorted_by(|a, b| a.topic <= b.topic));
}

pub async fn bad_topics_are_refused(f: &Fixture) {
    for name in ["", ".", "..", "with space", "sla/sh", "umläut", &"x".repeat(250)] {
        let config = crate::TopicConfig { topic: name.into(), ..f.config("", 1) };
        assert_eq!(f.bus.create_topic(config).await, Err(AdminError::Name { topic: name.to_owned() }));
    }
    for wanted in [0, 1_025] {
        let refused = f.bus.create_topic(f.config("count", wanted)).await;
        assert!(matches!(refused, Err(AdminError::PartitionCount { wanted: w, .. }) if w == wanted), "{refused:?}");
    }
}

pub async fn deleted_topics_are_gone(f: &Fixture) {
    let topic = f.topic("deleted", 1).await;
    f.put(&topic, 0, "old").await;
    let mut member = f.join(f.member("deleted", "m", &[&topic])).await;
    member.receive(1).await;
    member.commit().await;
    drop(member);
    assert_eq!(f.bus.delete_topic(&topic).await, Ok(()));
    within(async {
        while f.bus.topics().await.expect("lists").iter().any(|t| t.topic == topic) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(f.bus.delete_topic(&topic).await, Err(AdminError::Unknown { topic: topic.to_string() }));
    within(async {
        while f.bus.create_topic(f.config("deleted", 1)).await != Ok(true) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(f.values(&topic, 0).await, Vec::<String>::new(), "a topic made anew starts empty");
    assert_eq!(f.bus.committed(&f.name("deleted"), &topic).await, Ok(vec![]));
}

pub async fn reads_honour_their_byte_limit(f: &Fixture) {
    let topic = f.topic("bytes", 1).await;
    let large = "x".repeat(10_000);
    f.append((0..100).map(|_| outgoing(&topic, 0, record(&large))).collect()).await;
    let at = TopicPartition::new(topic, 0);
    let one = f.bus.read(&at, 0, 1, PATIENCE).await.expect("reads");
    assert!(!one.is_empty(), "at least one record");
    let some = f.bus.read(&at, 0, 50_000, PATIENCE).await.expect("reads");
    assert!(some.len() < 100, "{} records of 10,000 bytes at a limit of 50,000", some.len());
}

pub async fn a_read_wakes_when_a_record_comes(f: &Fixture) {
    let topic = f.topic("wakes", 1).await;
    let (bus, at) = (f.bus.clone(), TopicPartition::new(topic.clone(), 0));
    let waiting = tokio::spawn(async move { bus.read(&at, 0, BYTES, PATIENCE * 10).await });
    tokio::time::sleep(MOMENT).await;
    assert!(!waiting.is_finished());
    f.put(&topic, 0, "now").await;
    let read = within(waiting).await.expect("does not panic").expect("reads");
    assert_eq!(value(&read[0]), "now");
}

pub async fn a_read_without_records_ends_with_its_wait(f: &Fixture) {
    let topic = f.topic("empty", 1).await;
    let at = TopicPartition::new(topic, 0);
    assert_eq!(within(f.bus.read(&at, 0, BYTES, MOMENT)).await, Ok(vec![]));
}
