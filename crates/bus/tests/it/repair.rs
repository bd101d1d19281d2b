//! What follows from damage: offsets move back with a cut, damaged partitions stand still alone, foreign files are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions, GroupOffset, OpenError, ProducerSequence, Recovery, Rewound};
use drover_bus::{
    Bus, Consumer, GroupConfig, Outgoing, Polled, Position, Record, Start, Stored, TopicConfig, TopicPartition,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 8 * 1024, tail_bytes: 0, ..EmbeddedOptions::default() }
}

fn open(directory: &Path) -> (EmbeddedBus, Recovery) {
    EmbeddedBus::open(directory, options()).expect("opens")
}

fn refused(directory: &Path) -> (PathBuf, String) {
    match EmbeddedBus::open(directory, options()).map(|_| ()) {
        Err(OpenError::Corrupt { file, reason, .. }) => (file, reason),
        other => panic!("opened as {other:?}"),
    }
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn topic(name: &str, partitions: u32) -> TopicConfig {
    TopicConfig { topic: name.into(), partitions, compact: false, retention_ms: None, retention_bytes: None }
}

async fn put(bus: &EmbeddedBus, partition: u32, value: impl Into<Bytes>) -> u64 {
    let record = Record { value: Some(value.into()), ..Record::default() };
    let outgoing = Outgoing { topic: "t".into(), partition: Some(partition), record };
    bus.append(vec![outgoing]).await.expect("is taken").await.expect("is acknowledged")[0].offset
}

/// A log of `records` records of `bytes` bytes in turn over `partitions` partitions, closed.
async fn fill(directory: &Path, partitions: u32, records: u32, bytes: usize) {
    let (bus, _) = open(directory);
    bus.create_topic(topic("t", partitions)).await.expect("creates");
    for number in 0..records {
        put(&bus, number % partitions, format!("{number:04}{}", "z".repeat(bytes - 4))).await;
    }
    bus.close().await;
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(directory.join("topics/t.0")).expect("lists").flatten().map(|e| e.path());
    let mut found: Vec<_> = listed.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    found.sort();
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("reads");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("writes");
}

async fn join(bus: &EmbeddedBus) -> (Box<dyn Consumer>, Vec<Position>) {
    let config = GroupConfig {
        group: "g".into(),
        member: "m".into(),
        topics: vec!["t".into()],
        start: Start::Earliest,
        session_timeout: Duration::from_secs(60),
        max_poll_interval: Duration::from_secs(60),
    };
    let mut consumer = bus.join(config).await.expect("joins");
    match consumer.poll(100, PATIENCE).await.expect("polls") {
        Polled::Assigned(positions) => (consumer, positions),
        other => panic!("{other:?}"),
    }
}

/// Polls until there is nothing for a moment.
async fn drain(consumer: &mut dyn Consumer) -> BTreeMap<u32, Vec<Stored>> {
    let mut got: BTreeMap<u32, Vec<Stored>> = BTreeMap::new();
    loop {
        match consumer.poll(7, Duration::from_millis(200)).await.expect("polls") {
            Polled::Records(records) => {
                records.into_iter().for_each(|r| got.entry(r.position.at.partition).or_default().push(r));
            }
            Polled::Idle => return got,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn offsets_behind_a_cut_move_back_durably_and_new_records_are_not_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 1, 60, 300).await;
    let (bus, _) = open(directory.path());
    let (mut consumer, _) = join(&bus).await;
    assert_eq!(drain(&mut *consumer).await[&0].len(), 60);
    consumer.commit(vec![Position { at: at(0), offset: 60 }]).await.expect("commits");
    let outside = GroupOffset { at: at(0), next: 59, metadata: "kept".into() };
    bus.store_offsets("outside", vec![outside.clone()]).await.expect("stores");
    bus.store_offsets("early", vec![GroupOffset { next: 3, ..outside.clone() }]).await.expect("stores");
    drop(consumer);
    bus.close().await;

    let last = segments(directory.path()).pop().expect("has segments");
    change(&last, |bytes| bytes.truncate(bytes.len() - 700));
    let (bus, recovery) = open(directory.path());
    let end = bus.bounds(&at(0)).await.expect("exists").end;
    assert!(end < 59, "{end}");
    let rewound = |group: &str, from| Rewound { group: group.into(), at: at(0), from, to: end };
    assert_eq!(recovery.rewound, [rewound("g", 60), rewound("outside", 59)]);
    assert_eq!(bus.group_offsets("outside"), [GroupOffset { next: end, ..outside.clone() }]);
    assert_eq!(bus.group_offsets("early")[0].next, 3);
    let (mut consumer, positions) = join(&bus).await;
    assert_eq!(positions, [Position { at: at(0), offset: end }]);
    assert_eq!(put(&bus, 0, "new").await, end);
    assert_eq!(drain(&mut *consumer).await[&0][0].record.value.as_deref(), Some(&b"new"[..]));
    drop((consumer, bus));

    let (bus, recovery) = open(directory.path());
    assert_eq!(recovery.rewound, [], "it was made durable");
    assert_eq!(bus.group_offsets("g")[0].next, end);
}

#[tokio::test]
async fn a_batch_lost_with_a_cut_is_taken_again_from_its_producer() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bus, _) = open(directory.path());
    bus.create_topic(topic("t", 1)).await.expect("creates");
    let id = bus.allocate_producer_id().await.expect("allocates");
    let append = async |bus: &EmbeddedBus, first| {
        let records = vec![Record { value: Some(Bytes::from(vec![b'x'; 100])), ..Record::default() }];
        let receipt = bus.append_sequenced(at(0), ProducerSequence { id, epoch: 0, first }, records).await;
        receipt.expect("is taken").await.expect("is acknowledged")[0].offset
    };
    for first in 0..5 {
        assert_eq!(append(&bus, first).await, first as u64);
    }
    bus.close().await;
    change(&segments(directory.path())[0], |bytes| bytes.truncate(bytes.len() - 10));
    let (bus, recovery) = open(directory.path());
    assert_eq!(recovery.cut.len(), 1);
    assert_eq!(append(&bus, 3).await, 3, "what is there is recognised");
    assert_eq!(append(&bus, 4).await, 4, "what was lost is written again");
    assert_eq!(append(&bus, 5).await, 5);
}

#[tokio::test]
async fn a_payload_that_looks_like_a_frame_is_no_reason_to_refuse() {
    let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    fill(other.path(), 1, 10, 300).await;
    let frames = std::fs::read(&segments(other.path())[0]).expect("reads");
    let (bus, _) = open(one.path());
    bus.create_topic(topic("t", 1)).await.expect("creates");
    put(&bus, 0, "first").await;
    put(&bus, 0, frames).await;
    bus.close().await;
    // The last frame is torn in its beginning; its payload holds sound frames that claim to be durable.
    change(&segments(one.path())[0], |bytes| {
        let mark: Vec<u8> = bytes[..8].to_vec();
        let last = bytes.windows(8).rposition(|window| window == mark).expect("begins with it");
        bytes[last + 9] ^= 1;
    });
    let (bus, recovery) = open(one.path());
    assert_eq!(recovery.cut.len(), 1);
    assert_eq!(bus.bounds(&at(0)).await.expect("exists").end, 1);
}

#[tokio::test]
async fn a_missing_swapped_or_foreign_segment_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 1, 100, 300).await;
    let files = segments(directory.path());
    let aside = directory.path().join("topics/t.0/aside");
    let moved = |from: &Path, to: &Path| std::fs::rename(from, to).expect("renames");

    moved(&files[1], &aside);
    assert_eq!(refused(directory.path()), (files[2].clone(), "segment 1 is missing before it".to_owned()));

    moved(&files[2], &files[1]);
    moved(&aside, &files[2]);
    let (file, reason) = refused(directory.path());
    assert!(file == files[1] || file == files[2], "{}", file.display());
    assert!(reason.starts_with("it holds segment "), "{reason}");
    moved(&files[1], &aside);
    moved(&files[2], &files[1]);
    moved(&aside, &files[2]);

    let other = tempfile::tempdir().expect("a directory");
    fill(other.path(), 1, 100, 250).await;
    std::fs::copy(&files[1], &aside).expect("copies");
    std::fs::copy(&segments(other.path())[1], &files[1]).expect("copies");
    let (file, reason) = refused(directory.path());
    assert_eq!(file, files[1]);
    assert!(reason.contains("begins at offset") && reason.contains("0000000000.0.log ends at"), "{reason}");
    moved(&aside, &files[1]);

    let (bus, recovery) = open(directory.path());
    assert_eq!(recovery, Recovery::default());
    assert_eq!(bus.bounds(&at(0)).await.expect("exists").end, 100);
}

#[tokio::test]
async fn records_of_a_topic_that_the_journal_has_lost_are_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 1, 3, 300).await;
    let journals = std::fs::read_dir(directory.path()).expect("lists").flatten().map(|entry| entry.path());
    for journal in journals.filter(|path| path.extension().is_some_and(|e| e == "journal")) {
        std::fs::remove_file(journal).expect("removes");
    }
    let (file, reason) = refused(directory.path());
    assert_eq!(file, directory.path().join("topics/t.0"));
    assert!(reason.contains("the journal does not know"), "{reason}");
    assert_eq!(segments(directory.path()).len(), 1);
}

#[tokio::test]
async fn a_damaged_partition_stands_still_alone_and_says_where() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 2, 200, 300).await;
    let first = segments(directory.path()).remove(0);
    let middle = |bytes: &[u8]| bytes.windows(4).position(|window| window == b"0010").expect("record 10 is there");
    change(&first, |bytes| {
        let at = middle(bytes);
        bytes[at + 50] ^= 1;
    });
    let (bus, _) = open(directory.path());
    let (mut consumer, _) = join(&bus).await;
    let got = drain(&mut *consumer).await;
    assert_eq!(got[&1].len(), 100, "the sound partition goes on");
    assert_eq!(got[&0].len(), 5, "and the damaged one up to its damage");
    let stalled = consumer.stalled();
    assert_eq!(stalled.len(), 1);
    assert_eq!(stalled[0].position, Position { at: at(0), offset: 5 });
    let said = stalled[0].to_string();
    assert!(said.contains(first.to_str().expect("is text")) && said.contains("at byte"), "{said}");

    put(&bus, 1, "later").await;
    assert_eq!(drain(&mut *consumer).await[&1].len(), 1);
    assert_eq!(consumer.stalled().len(), 1);
    consumer.seek(Position { at: at(0), offset: 6 }).await.expect("seeks");
    assert_eq!(drain(&mut *consumer).await[&0].len(), 94, "a person may pass the damage over");
    assert_eq!(consumer.stalled(), []);
}

#[tokio::test]
async fn a_segment_that_somebody_removed_is_an_error_not_a_search_without_end() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 1, 60, 300).await;
    let (bus, _) = open(directory.path());
    std::fs::remove_file(&segments(directory.path())[0]).expect("removes");
    let read = tokio::time::timeout(PATIENCE, bus.read(&at(0), 0, 1 << 20, Duration::ZERO)).await.expect("ends");
    let said = read.expect_err("is not there").to_string();
    assert!(said.contains("0000000000.0.log"), "{said}");
    let found = tokio::time::timeout(PATIENCE, bus.offset_at(&at(0), 0)).await.expect("ends");
    assert!(found.is_err(), "{found:?}");
}
