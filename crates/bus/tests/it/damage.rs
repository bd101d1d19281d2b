//! Damaged directories: what was acknowledged stays or opening says which file and where; nothing is dropped silently.

use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_bus::embedded::{Cut, EmbeddedBus, EmbeddedOptions, OpenError};
use drover_bus::{Bus, Outgoing, Record, Stored, TopicConfig, TopicPartition};
use proptest::prelude::*;

const RECORDS: u64 = 60;

fn options() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 8 * 1024, tail_bytes: 0, ..EmbeddedOptions::default() }
}

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn put(bus: &EmbeddedBus, value: String) -> u64 {
    let record = Record { value: Some(value.into()), ..Record::default() };
    let outgoing = Outgoing { topic: "t".into(), partition: Some(0), record };
    bus.append(vec![outgoing]).await.expect("is taken").await.expect("is acknowledged")[0].offset
}

fn text(number: u64) -> String {
    format!("{number}-{}", "y".repeat(300))
}

async fn read(bus: &EmbeddedBus, from: u64) -> Result<Vec<Stored>, drover_bus::ReadError> {
    bus.read(&at(), from, 1 << 20, Duration::ZERO).await
}

/// Makes a log of [`RECORDS`] records in several segments and closes it.
async fn fill(directory: &Path) {
    let (bus, _) = EmbeddedBus::open(directory, options()).expect("opens");
    let config =
        TopicConfig { topic: "t".into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
    bus.create_topic(config).await.expect("creates");
    for number in 0..RECORDS {
        put(&bus, text(number)).await;
    }
    bus.close().await;
}

/// The segments, oldest first.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        std::fs::read_dir(directory.join("topics/t.0")).expect("lists").flatten().map(|e| e.path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "log"));
    found.sort();
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("reads");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("writes");
}

/// How many records from the start are as they were written; panics on any that is not.
async fn intact(bus: &EmbeddedBus) -> u64 {
    let (mut next, end) = (0, bus.bounds(&at()).await.expect("exists").end);
    while next < end {
        for stored in read(bus, next).await.expect("reads") {
            assert_eq!(stored.record.value.as_deref(), Some(text(next).as_bytes()));
            assert_eq!(stored.position.offset, next);
            next += 1;
        }
    }
    next
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn a_clean_log_reopens_without_a_word() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    assert!(segments(directory.path()).len() >= 3, "several segments");
    let (bus, recovery) = EmbeddedBus::open(directory.path(), options()).expect("opens");
    assert_eq!(recovery, Default::default());
    assert_eq!(intact(&bus).await, RECORDS);
}

#[tokio::test]
async fn lost_index_files_are_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    for segment in segments(directory.path()) {
        let index = segment.with_extension("index");
        if index.exists() {
            std::fs::remove_file(index).expect("removes");
        }
    }
    let (bus, _) = EmbeddedBus::open(directory.path(), options()).expect("opens");
    assert_eq!(intact(&bus).await, RECORDS);
}

#[tokio::test]
async fn damage_in_a_sealed_segment_is_named_when_it_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let first = segments(directory.path()).remove(0);
    change(&first, |bytes| bytes[2_000] ^= 1);
    let (bus, _) = EmbeddedBus::open(directory.path(), options()).expect("opens");
    let before = read(&bus, 0).await.expect("what lies before the damage can be read");
    let last = before.last().expect("some records lie before it").position.offset;
    let error = read(&bus, last + 1).await.expect_err("is damaged").to_string();
    assert!(error.contains(first.to_str().expect("is text")) && error.contains("byte"), "{error}");
}

#[tokio::test]
async fn damage_before_acknowledged_records_refuses_to_open() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let last = segments(directory.path()).pop().expect("has segments");
    change(&last, |bytes| bytes[100] ^= 1);
    match EmbeddedBus::open(directory.path(), options()).map(|_| ()) {
        Err(OpenError::Corrupt { file, at, reason }) => {
            assert_eq!(file, last);
            assert!(at < 200 && reason.contains("sound records behind"), "{at} {reason}");
        }
        other => panic!("opened as {other:?}"),
    }
}

#[tokio::test]
async fn a_second_open_is_refused_until_the_first_is_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), options()).expect("opens");
    match EmbeddedBus::open(directory.path(), options()).map(|_| ()) {
        Err(error @ OpenError::Locked { holder, .. }) => {
            assert_eq!(holder, Some(std::process::id()));
            assert!(error.to_string().contains(directory.path().to_str().expect("is text")));
        }
        other => panic!("opened as {other:?}"),
    }
    drop(bus);
    EmbeddedBus::open(directory.path(), options()).expect("opens after the last clone was dropped");
}

#[tokio::test]
async fn other_formats_and_other_directories_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(EmbeddedBus::open(directory.path(), options()).expect("opens"));
    for other in [1, 3] {
        std::fs::write(directory.path().join("FORMAT"), format!("{other}\n")).expect("writes");
        let error = EmbeddedBus::open(directory.path(), options()).map(|_| ()).expect_err("is another").to_string();
        assert!(error.ends_with(&format!("has data format {other}, this program reads format 2")), "{error}");
    }
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::write(foreign.path().join("thesis.txt"), "x").expect("writes");
    let refused = EmbeddedBus::open(foreign.path(), options()).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Foreign { .. })), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is cut off the last file: the records before stay, the rest of a frame is cut and reported, and the log goes
    /// on. A file that ends where a frame does is whole as far as it can tell.
    #[test]
    fn a_truncated_tail_is_cut_and_reported(cut in 1usize..2_000) {
        runtime().block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            fill(directory.path()).await;
            let last = segments(directory.path()).pop().expect("has segments");
            let whole = std::fs::read(&last).expect("reads");
            let keep = whole.len().saturating_sub(cut).max(200);
            change(&last, |bytes| bytes.truncate(keep));
            // Each frame begins with the mark that the file begins with.
            let frame = (0..=keep).rev().find(|at| whole[*at..].starts_with(&whole[..8])).expect("the first one");
            let (at, bytes, reason) = (frame as u64, (keep - frame) as u64, "incomplete frame".to_owned());
            let torn = (frame < keep).then_some(Cut { file: last, at, bytes, reason });
            let (bus, recovery) = EmbeddedBus::open(directory.path(), options()).expect("opens");
            let kept = intact(&bus).await;
            assert_eq!(recovery.cut, Vec::from_iter(torn));
            assert_eq!(put(&bus, text(kept)).await, kept);
            assert_eq!(intact(&bus).await, kept + 1);
        });
    }

    /// A flipped byte anywhere is never read as a record, and never takes sound records away silently.
    #[test]
    fn a_flipped_byte_is_cut_refused_or_named(file in 0usize..64, place in any::<prop::sample::Index>(), flip in 1u8..) {
        runtime().block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            fill(directory.path()).await;
            let segments = segments(directory.path());
            let segment = &segments[file % segments.len()];
            change(segment, |bytes| {
                let at = place.index(bytes.len());
                bytes[at] ^= flip;
            });
            let (bus, recovery) = match EmbeddedBus::open(directory.path(), options()) {
                Ok(opened) => opened,
                Err(OpenError::Corrupt { file, .. }) => return assert_eq!(&file, segment),
                Err(other) => panic!("{other}"),
            };
            let end = bus.bounds(&at()).await.expect("exists").end;
            assert_eq!(end < RECORDS, !recovery.cut.is_empty(), "what is missing at the end was reported");
            let mut next = 0;
            while next < end {
                match read(&bus, next).await {
                    Ok(records) => for stored in records {
                        assert_eq!((stored.position.offset, stored.record.value.as_deref()), (next, Some(text(next).as_bytes())));
                        next += 1;
                    },
                    Err(error) => return assert!(error.to_string().contains(segment.to_str().expect("is text")), "{error}"),
                }
            }
        });
    }
}
