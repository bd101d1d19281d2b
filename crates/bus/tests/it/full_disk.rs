//! A disk that is full: nothing is acknowledged, nothing acknowledged is lost, and appends work again when there is room.

use std::time::Duration;

use drover_backends::small_disk;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig, TopicPartition, TransactError, Transaction};

const DISK_BYTES: u64 = 2 * 1024 * 1024;
/// What stands in the way, and is removed later.
const BALLAST_BYTES: usize = 512 * 1024;

fn outgoing(bytes: usize) -> Outgoing {
    let record = Record { value: Some(vec![7; bytes].into()), ..Record::default() };
    Outgoing { topic: "t".into(), partition: Some(0), record }
}

/// Why an append did not succeed, by either error.
async fn append(bus: &EmbeddedBus, bytes: usize) -> Result<u64, String> {
    let receipt = bus.append(vec![outgoing(bytes)]).await.map_err(|error| error.to_string())?;
    receipt.await.map(|positions| positions[0].offset).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_writing_resumes_by_itself() {
    let name = "full_disk::a_full_disk_loses_nothing_and_writing_resumes_by_itself";
    let Some(disk) = small_disk::enter(name, DISK_BYTES) else { return };
    let (bus, _) = EmbeddedBus::open(&disk, EmbeddedOptions::default()).expect("opens");
    let config =
        TopicConfig { topic: "t".into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
    bus.create_topic(config).await.expect("creates");
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; BALLAST_BYTES]).expect("writes");

    let mut acknowledged = Vec::new();
    let failure = loop {
        match append(&bus, 50_000).await {
            Ok(offset) => acknowledged.push(offset),
            Err(failure) => break failure,
        }
    };
    assert!(failure.contains("no space left on device"), "{failure}");
    let refused = append(&bus, 50_000).await.expect_err("is full");
    assert!(refused.contains("no space left on device"), "{refused}");
    let mut transactor = bus.transactor("t").await.expect("opens");
    let aborted = transactor.commit(Transaction { records: vec![outgoing(200_000)].into(), offsets: None }).await;
    assert!(matches!(aborted, Err(TransactError::Aborted { .. })), "{aborted:?}");

    std::fs::remove_file(ballast).expect("removes");
    let resumed = async {
        loop {
            match append(&bus, 1_000).await {
                Ok(offset) => return offset,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    acknowledged.push(tokio::time::timeout(Duration::from_secs(30), resumed).await.expect("writing resumes"));
    drop((bus, transactor));

    let (bus, recovery) = EmbeddedBus::open(&disk, EmbeddedOptions::default()).expect("opens");
    assert_eq!(recovery.cut, []);
    let at = TopicPartition::new("t", 0);
    let mut kept = Vec::new();
    while let Some(last) = {
        let read = bus.read(&at, kept.last().map_or(0, |last| last + 1), 1 << 20, Duration::ZERO).await.expect("reads");
        kept.extend(read.iter().map(|stored| stored.position.offset));
        read.last().map(|stored| stored.position.offset)
    } {
        assert!(last <= *acknowledged.last().expect("some"));
    }
    assert_eq!(kept, acknowledged);
}
