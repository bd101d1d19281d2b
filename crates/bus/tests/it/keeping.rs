//! What is kept and what goes: retention, compaction, restarts, idempotent producers, offsets of outside consumers.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{Disk, EmbeddedBus, EmbeddedOptions, GroupOffset, ProducerSequence, SequenceError};
use drover_bus::{Bounds, Bus, Headers, Outgoing, ReadError, Record, Stored, TopicConfig, TopicPartition, Transaction};
use drover_types::FixedClock;

const PATIENCE: Duration = Duration::from_secs(30);

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn plain() -> TopicConfig {
    TopicConfig { topic: "t".into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None }
}

fn small() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 4 * 1024, tail_bytes: 0, ..EmbeddedOptions::default() }
}

fn open(directory: &Path, options: EmbeddedOptions) -> EmbeddedBus {
    EmbeddedBus::open(directory, options).expect("opens").0
}

async fn put(bus: &EmbeddedBus, key: &str, value: Option<&str>, timestamp_ms: i64) {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let record = Record { key: Some(bytes(key)), value: value.map(bytes), timestamp_ms, headers: Headers::default() };
    bus.append(vec![Outgoing::keyed("t", record)]).await.expect("is taken").await.expect("is acknowledged");
}

async fn all(bus: &EmbeddedBus) -> Vec<Stored> {
    let bounds = bus.bounds(&at()).await.expect("exists");
    let (mut from, mut all) = (bounds.earliest, Vec::new());
    loop {
        let read = bus.read(&at(), from, 1 << 20, Duration::ZERO).await.expect("reads");
        let Some(last) = read.last() else { return all };
        from = last.position.offset + 1;
        all.extend(read);
    }
}

/// Waits until `done` holds for everything in the topic.
async fn until(bus: &EmbeddedBus, done: impl Fn(&[Stored]) -> bool) -> Vec<Stored> {
    let wait = async {
        loop {
            let all = all(bus).await;
            if done(&all) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("happens in time")
}

#[tokio::test]
async fn size_retention_lets_the_oldest_segments_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = EmbeddedOptions { segment_bytes: 300 * 1024, ..small() };
    let bus = open(directory.path(), options.clone());
    bus.create_topic(TopicConfig { retention_bytes: Some(1 << 20), ..plain() }).await.expect("creates");
    let value = "x".repeat(64 * 1024);
    for i in 0..40 {
        put(&bus, "k", Some(&value), i).await;
    }
    let bounds = bus.bounds(&at()).await.expect("exists");
    assert!(bounds.earliest > 0 && bounds.end == 40, "{bounds:?}");
    let kept = all(&bus).await;
    assert_eq!(kept.iter().map(|s| s.position.offset).collect::<Vec<_>>(), (bounds.earliest..40).collect::<Vec<_>>());
    assert!(kept.len() as u64 * value.len() as u64 <= (1 << 20) + 300 * 1024, "{} records kept", kept.len());
    let refused = bus.read(&at(), 0, 1, Duration::ZERO).await;
    assert_eq!(refused, Err(ReadError::OutOfRange { from: 0, earliest: bounds.earliest, end: 40 }));
    drop(bus);
    assert_eq!(open(directory.path(), options).bounds(&at()).await, Ok(bounds), "it stays so after a restart");
}

#[tokio::test]
async fn age_retention_goes_by_the_clock_and_the_records_timestamps() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(FixedClock::at(10_000));
    let bus = open(directory.path(), EmbeddedOptions { clock: Some(clock.clone()), ..small() });
    bus.create_topic(TopicConfig { retention_ms: Some(1_000), ..plain() }).await.expect("creates");
    let value = "x".repeat(1_000);
    for _ in 0..20 {
        put(&bus, "k", Some(&value), 10_000).await;
    }
    assert_eq!(bus.bounds(&at()).await, Ok(Bounds { earliest: 0, end: 20 }));
    clock.advance(2_000);
    for _ in 0..20 {
        put(&bus, "k", Some(&value), 12_000).await;
    }
    let kept = all(&bus).await;
    assert!(kept.first().is_some_and(|s| s.position.offset > 12), "{:?}", kept.first());
    assert_eq!(kept.iter().filter(|s| s.record.timestamp_ms == 12_000).count(), 20);
}

#[tokio::test]
async fn compaction_keeps_the_last_record_of_each_key_and_all_offsets() {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path(), small());
    bus.create_topic(TopicConfig { compact: true, ..plain() }).await.expect("creates");
    let filler = "x".repeat(200);
    for i in 0..300u32 {
        put(&bus, &format!("k{}", i % 7), Some(&format!("{i}/{filler}")), i64::from(i)).await;
    }
    let end = bus.bounds(&at()).await.expect("exists").end;
    let compacted = until(&bus, |all| all.len() < 100).await;
    for stored in &compacted {
        let text = String::from_utf8_lossy(stored.record.value.as_deref().expect("has a value")).into_owned();
        assert_eq!(text.split('/').next(), Some(stored.position.offset.to_string().as_str()), "offsets stay");
    }
    let newest = |all: &[Stored]| all.iter().rev().take(7).map(|s| s.position.offset).collect::<Vec<_>>();
    assert_eq!(newest(&compacted), [299, 298, 297, 296, 295, 294, 293]);
    assert_eq!(bus.bounds(&at()).await, Ok(Bounds { earliest: 0, end }));
    bus.close().await;
    let reopened = open(directory.path(), small());
    assert_eq!(newest(&all(&reopened).await), newest(&compacted));
    assert_eq!(reopened.bounds(&at()).await, Ok(Bounds { earliest: 0, end }));
}

#[tokio::test]
async fn tombstones_go_after_their_time_and_take_what_they_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(FixedClock::at(100_000));
    let options = EmbeddedOptions { clock: Some(clock.clone()), tombstone_ms: 10_000, ..small() };
    let bus = open(directory.path(), options);
    bus.create_topic(TopicConfig { compact: true, ..plain() }).await.expect("creates");
    let filler = "x".repeat(500);
    put(&bus, "gone", Some("value"), 50_000).await;
    put(&bus, "gone", None, 50_001).await;
    put(&bus, "fresh", None, 99_000).await;
    for i in 0..60 {
        put(&bus, "other", Some(&filler), 99_000 + i).await;
    }
    let key = |name: &'static str| move |s: &&Stored| s.record.key.as_deref() == Some(name.as_bytes());
    let left = until(&bus, |all| all.iter().filter(key("gone")).count() == 0).await;
    assert_eq!(left.iter().filter(key("fresh")).count(), 1, "a young tombstone stays");
}

#[tokio::test]
async fn a_committed_transaction_survives_without_a_clean_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path(), EmbeddedOptions::default());
    bus.create_topic(plain()).await.expect("creates");
    let mut transactor = bus.transactor("t").await.expect("opens");
    let record = Record { value: Some(Bytes::from_static(b"x")), ..Record::default() };
    let records = vec![Outgoing { topic: "t".into(), partition: Some(0), record }];
    transactor.commit(Transaction { records: records.into(), offsets: None }).await.expect("commits");
    // A crash of the machine may keep the journal and lose what was not synced of the topic.
    let segment = "topics/t.0/0000000000.0.log";
    std::fs::create_dir_all(copy.path().join("topics/t.0")).expect("creates");
    for file in ["FORMAT", "0000000000.journal", segment] {
        std::fs::copy(directory.path().join(file), copy.path().join(file)).expect("copies");
    }
    let length = std::fs::metadata(copy.path().join(segment)).expect("exists").len();
    let torn = std::fs::OpenOptions::new().write(true).open(copy.path().join(segment)).expect("opens");
    torn.set_len(length - 5).expect("truncates");
    let (after, recovery) = EmbeddedBus::open(copy.path(), EmbeddedOptions::default()).expect("opens");
    assert_eq!((recovery.cut.len(), recovery.redone_records), (1, 1));
    assert_eq!(all(&after).await.len(), 1);
}

#[tokio::test]
async fn idempotent_producers_are_recognised_across_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let batch = || vec![Record { value: Some(Bytes::from_static(b"x")), ..Record::default() }; 2];
    let mut bus = open(directory.path(), small());
    bus.create_topic(plain()).await.expect("creates");
    let id = bus.allocate_producer_id().await.expect("allocates");
    let append = async |bus: &EmbeddedBus, epoch, first| -> Result<u64, SequenceError> {
        let receipt = bus.append_sequenced(at(), ProducerSequence { id, epoch, first }, batch()).await?;
        Ok(receipt.await.expect("is acknowledged")[0].offset)
    };
    assert_eq!(append(&bus, 0, 0).await, Ok(0));
    assert_eq!(append(&bus, 0, 0).await, Ok(0));
    for round in 1..60 {
        assert_eq!(append(&bus, 0, round * 2).await, Ok(round as u64 * 2));
        if round % 20 == 0 {
            drop(bus);
            bus = open(directory.path(), small());
            assert_eq!(append(&bus, 0, round * 2).await, Ok(round as u64 * 2), "the repeat has its first offset");
        }
    }
    assert_eq!(append(&bus, 0, 500).await, Err(SequenceError::OutOfOrder { expected: 120, got: 500 }));
    assert_eq!(append(&bus, 1, 0).await, Ok(120));
    assert_eq!(append(&bus, 0, 120).await, Err(SequenceError::Fenced { newest: 1, got: 0 }));
    assert!(bus.allocate_producer_id().await.expect("allocates") > id);
}

#[tokio::test]
async fn offsets_of_outside_groups_are_kept_with_their_metadata() {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path(), small());
    bus.create_topic(plain()).await.expect("creates");
    for _ in 0..7 {
        put(&bus, "k", None, 0).await;
    }
    let offset = GroupOffset { at: at(), next: 7, metadata: "where I was".into() };
    bus.store_offsets("g", vec![offset.clone()]).await.expect("stores");
    let foreign = TopicPartition::new("t", 1);
    let refused = bus.store_offsets("g", vec![GroupOffset { at: foreign.clone(), ..offset.clone() }]).await;
    assert_eq!(refused, Err(ReadError::Unknown { at: foreign }));
    bus.close().await;
    let bus = open(directory.path(), small());
    assert_eq!((bus.groups(), bus.group_offsets("g")), (vec!["g".to_owned()], vec![offset]));
    bus.delete_group("g").await.expect("deletes");
    assert_eq!(bus.groups(), Vec::<String>::new());
}

#[tokio::test]
async fn a_closed_bus_refuses_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path(), small());
    bus.create_topic(plain()).await.expect("creates");
    bus.close().await;
    let refused = bus.append(vec![Outgoing::keyed("t", Record::default())]).await.err().expect("is closed");
    assert_eq!(refused.to_string(), "bus is unavailable: bus is closed");
    open(directory.path(), small());
}

#[tokio::test]
async fn waiting_for_any_of_several_partitions_ends_with_the_first_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path(), small());
    bus.create_topic(plain()).await.expect("creates");
    bus.create_topic(TopicConfig { topic: "u".into(), ..plain() }).await.expect("creates");
    let (waiter, any) = (bus.clone(), [(TopicPartition::new("u", 0), 0), (at(), 0)]);
    let waiting = tokio::spawn(async move { waiter.wait_for(&any, PATIENCE * 10).await });
    tokio::task::yield_now().await;
    put(&bus, "k", None, 0).await;
    tokio::time::timeout(PATIENCE, waiting).await.expect("wakes").expect("does not panic");
}

/// Counts the syncs of segments.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Disk for Counting {
    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        if path.extension().is_some_and(|extension| extension == "log") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        file.sync_data()
    }
}

#[tokio::test]
async fn large_transactions_are_synced_and_leave_memory_long_before_the_journal_is_trimmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Counting::default());
    let bus = open(directory.path(), EmbeddedOptions { disk: disk.clone(), ..EmbeddedOptions::default() });
    bus.create_topic(plain()).await.expect("creates");
    let before = disk.0.load(Ordering::Relaxed);
    let record = Record { value: Some(vec![7; 100 * 1024].into()), ..Record::default() };
    let records = vec![Outgoing { topic: "t".into(), partition: Some(0), record }];
    let mut transactor = bus.transactor("t").await.expect("opens");
    transactor.commit(Transaction { records: records.into(), offsets: None }).await.expect("commits");
    let synced = async {
        while disk.0.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The journal is looked at every 15 s.
    tokio::time::timeout(Duration::from_secs(10), synced).await.expect("is synced");
}
