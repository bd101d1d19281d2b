//! Measures the embedded log: `cargo run --release -p drover-bus --example bus_bench [DIRECTORY]`.
//!
//! Prints durable records per second in batches and with many producers that each wait for their receipt, what reading
//! brings, how long opening takes, and the memory used. Figures of one machine at one time: compare, do not quote.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig, TopicPartition};
use tokio::time::Instant;

const PARTITIONS: u32 = 8;
const RECORD_BYTES: usize = 200;
const PRODUCERS: usize = 200;

fn batch(records: usize, from: usize) -> Vec<Outgoing> {
    let value = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let record = |i: usize| Record {
        key: Some(Bytes::from(format!("tenant/device-{}", i % 1_000))),
        value: Some(value.clone()),
        headers: Vec::new(),
        timestamp_ms: i as i64,
    };
    (from..from + records).map(|i| Outgoing::keyed("bench", record(i))).collect()
}

fn report(what: &str, records: usize, took: Duration) {
    println!("{what}: {records} in {:.2} s = {:.0}/s", took.as_secs_f64(), records as f64 / took.as_secs_f64());
}

/// Resident memory in KiB, where /proc tells.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Batches one behind the other, up to `window` receipts open.
async fn batches(bus: &EmbeddedBus, records: usize, size: usize, window: usize) {
    let start = Instant::now();
    let mut open = std::collections::VecDeque::new();
    for from in (0..records).step_by(size) {
        open.push_back(bus.append(batch(size, from)).await.expect("is taken"));
        if open.len() >= window {
            open.pop_front().expect("not empty").await.expect("is acknowledged");
        }
    }
    for receipt in open {
        receipt.await.expect("is acknowledged");
    }
    report(&format!("batches of {size}, {window} in flight"), records, start.elapsed());
}

async fn producers(bus: &EmbeddedBus, records: usize) {
    let start = Instant::now();
    let each = records / PRODUCERS;
    let tasks: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for i in 0..each {
                    let receipt = bus.append(batch(1, producer + i * PRODUCERS)).await.expect("is taken");
                    receipt.await.expect("is acknowledged");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("does not panic");
    }
    report(&format!("{PRODUCERS} producers, each waiting for its receipt"), each * PRODUCERS, start.elapsed());
}

async fn read_all(bus: &EmbeddedBus) {
    let start = Instant::now();
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
    report("reading it all back from files", records, start.elapsed());
}

async fn measure(directory: &Path) {
    let (bus, _) = EmbeddedBus::open(directory, EmbeddedOptions::default()).expect("opens");
    let config = TopicConfig {
        topic: "bench".into(),
        partitions: PARTITIONS,
        compact: false,
        retention_ms: None,
        retention_bytes: None,
    };
    bus.create_topic(config).await.expect("creates");
    println!("idle: {} KiB resident", resident_kib());
    for (size, window) in [(500, 1), (500, 4), (100, 1), (100, 8)] {
        batches(&bus, 500_000, size, window).await;
    }
    producers(&bus, 200_000).await;
    batches(&bus, 2_000_000, 500, 8).await;
    read_all(&bus).await;
    println!("busy: {} KiB resident", resident_kib());
    bus.close().await;
    drop(bus);
    let start = Instant::now();
    let (bus, _) = EmbeddedBus::open(directory, EmbeddedOptions::default()).expect("opens");
    println!("opening it again: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(bus);
}

#[tokio::main]
async fn main() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let given = std::env::args().nth(1);
    measure(given.as_deref().map_or(temporary.path(), Path::new)).await;
}
