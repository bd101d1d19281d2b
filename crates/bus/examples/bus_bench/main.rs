//! Measures the embedded log beside the same log on fjall:
//! `cargo run --release -p drover-bus --example bus_bench [DIRECTORY]`.
//!
//! Prints durable records per second in batches and with many producers that each wait for their receipt, what reading
//! brings, how long opening takes, the processor time and the memory used. Figures of one machine at one time: compare,
//! do not quote.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Headers, Outgoing, Record, TopicConfig, TopicPartition};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

mod fjall_log;

use fjall_log::FjallLog;

const PARTITIONS: u32 = 8;
const RECORD_BYTES: usize = 200;
const PRODUCERS: usize = 200;

/// One of the logs measured.
#[derive(Clone)]
enum Log {
    Embedded(EmbeddedBus),
    Fjall(Arc<FjallLog>),
}

impl Log {
    async fn open(which: &str, directory: &Path) -> Self {
        if which == "fjall" {
            return Self::Fjall(Arc::new(FjallLog::open(directory)));
        }
        let (bus, _) = EmbeddedBus::open(directory, EmbeddedOptions::default()).expect("opens");
        let config = TopicConfig {
            topic: "bench".into(),
            partitions: PARTITIONS,
            compact: false,
            retention_ms: None,
            retention_bytes: None,
        };
        bus.create_topic(config).await.expect("creates");
        Self::Embedded(bus)
    }

    /// Takes a batch; the future it returns ends when the batch is durable.
    async fn append(&self, batch: Vec<Outgoing>) -> BoxFuture<'static, ()> {
        match self {
            Self::Embedded(bus) => {
                let receipt = bus.append(batch).await.expect("is taken");
                receipt.map(|positions| drop(positions.expect("is acknowledged"))).boxed()
            }
            Self::Fjall(log) => log.append(batch).map(|answer| answer.expect("is acknowledged")).boxed(),
        }
    }

    async fn read_all(&self) -> usize {
        match self {
            Self::Embedded(bus) => read_all(bus).await,
            Self::Fjall(log) => tokio::task::block_in_place(|| log.read_all()),
        }
    }

    async fn close(self) {
        if let Self::Embedded(bus) = self {
            bus.close().await;
        }
    }
}

fn batch(records: usize, from: usize) -> Vec<Outgoing> {
    let value = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let record = |i: usize| Record {
        key: Some(Bytes::from(format!("tenant/device-{}", i % 1_000))),
        value: Some(value.clone()),
        headers: Headers::default(),
        timestamp_ms: i as i64,
    };
    (from..from + records).map(|i| Outgoing::keyed("bench", record(i))).collect()
}

/// Processor time of this process so far, in hundredths of a second, where /proc tells.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    behind_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Resident memory in KiB, where /proc tells.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Times `work`, which handles `records` records.
async fn timed(what: &str, records: usize, work: impl Future<Output = ()>) {
    let (start, ticks) = (Instant::now(), processor_ticks());
    work.await;
    let (took, ticks) = (start.elapsed().as_secs_f64(), processor_ticks() - ticks);
    let (rate, each) = (records as f64 / took, ticks as f64 * 10_000.0 / records as f64);
    println!("  {what}: {records} in {took:.2} s = {rate:.0}/s, {each:.2} us of processor each");
}

/// Batches one behind the other, up to `window` of them open.
async fn batches(log: &Log, records: usize, size: usize, window: usize) {
    let work = async {
        let mut open = std::collections::VecDeque::new();
        for from in (0..records).step_by(size) {
            open.push_back(log.append(batch(size, from)).await);
            if open.len() >= window {
                open.pop_front().expect("not empty").await;
            }
        }
        for receipt in open {
            receipt.await;
        }
    };
    timed(&format!("batches of {size}, {window} in flight"), records, work).await;
}

async fn producers(log: &Log, records: usize) {
    let each = records / PRODUCERS;
    let work = async {
        let tasks: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let log = log.clone();
                tokio::spawn(async move {
                    for i in 0..each {
                        log.append(batch(1, producer + i * PRODUCERS)).await.await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("does not panic");
        }
    };
    timed(&format!("{PRODUCERS} producers, each waiting for its receipt"), each * PRODUCERS, work).await;
}

async fn read_all(bus: &EmbeddedBus) -> usize {
    let mut records = 0;
    for partition in 0..PARTITIONS {
        let at = TopicPartition::new("bench", partition);
        let bounds = bus.bounds(&at).await.expect("exists");
        let mut from = bounds.earliest;
        while from < bounds.end {
            let read = bus.read(&at, from, 1 << 20, Duration::ZERO).await.expect("reads");
            records += read.len();
            from = read.last().expect("not at the end").position.offset + 1;
        }
    }
    records
}

fn disk_bytes(directory: &Path) -> u64 {
    let listed = std::fs::read_dir(directory).map(|entries| entries.flatten().collect::<Vec<_>>());
    let bytes = |entry: &std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    listed.unwrap_or_default().iter().map(bytes).sum()
}

async fn measure(which: &str, directory: &Path) {
    let before = resident_kib();
    let log = Log::open(which, directory).await;
    println!("{which}:");
    println!("  idle: {} KiB resident more", resident_kib().saturating_sub(before));
    for (size, window) in [(500, 1), (500, 4), (100, 1), (100, 8)] {
        batches(&log, 500_000, size, window).await;
    }
    producers(&log, 200_000).await;
    batches(&log, 2_000_000, 500, 8).await;
    let written = 4_200_000;
    timed("reading it all back from files", written, async {
        assert_eq!(log.read_all().await, written);
    })
    .await;
    println!("  busy: {} KiB resident more", resident_kib().saturating_sub(before));
    log.close().await;
    println!("  on disk: {} MB", disk_bytes(directory) / 1_000_000);
    let start = Instant::now();
    drop(Log::open(which, directory).await);
    println!("  opening it again: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}

#[tokio::main]
async fn main() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let given = std::env::args().nth(1);
    let directory = given.as_deref().map_or(temporary.path(), Path::new);
    for which in ["embedded", "fjall"] {
        measure(which, &directory.join(which)).await;
    }
}
