//! Measures the embedded store: `cargo run --release -p drover-storage --example store_bench [DIRECTORY]`.
//!
//! Prints messages and points per second as the service stores them (one durable batch behind the other, each message
//! once), what reading brings, how long opening takes, and the memory used. Figures of one machine at one time:
//! compare, do not quote.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures the time of the machine")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_storage::ports::{Limit, SeriesStore};
use drover_storage::series::{Entry, Field, Message, Place, Series, Value};
use drover_storage::{Embedded, EmbeddedLimits};
use drover_types::{DeviceId, DeviceKey, Qos, RecordId, TenantId};

const DEVICES: usize = 1_000;
const FIELDS: [&str; 5] = ["battery.voltage", "door", "humidity", "mode", "temperature"];
const BATCH: usize = 1_000;
const MESSAGES: usize = 200_000;

fn device(i: usize) -> DeviceKey {
    let device = DeviceId::new(format!("device-{i}")).expect("valid");
    DeviceKey { tenant: TenantId::default_tenant(), device }
}

fn entry(i: usize) -> Entry {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(i as u64).to_be_bytes());
    let time_ms = 1_795_000_000_000 + (i / DEVICES * 1_000) as u64;
    let fields = FIELDS.map(|name| (Field::new(name).expect("valid"), Value::Number(i as f64)));
    let message = Message {
        at: Place { time_ms, id: RecordId::at(time_ms, random) },
        topic: "sensors/room/climate".to_owned(),
        qos: Qos::AtLeastOnce,
        payload: format!(r#"{{"battery":{{"voltage":{i}}},"door":{i},"humidity":{i},"mode":{i},"temperature":{i}}}"#)
            .into(),
        of_rule: false,
    };
    Entry { device: device(i % DEVICES), message, values: fields.to_vec() }
}

fn report(what: &str, count: usize, took: Duration) {
    println!("{what}: {count} in {:.2} s = {:.0}/s", took.as_secs_f64(), count as f64 / took.as_secs_f64());
}

/// Resident memory in KiB, where /proc tells.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn open(directory: &Path) -> Embedded {
    let start = Instant::now();
    let store = Embedded::open(directory, EmbeddedLimits::default()).expect("opens");
    println!("opened in {:.0} ms; {} KiB resident", start.elapsed().as_secs_f64() * 1e3, resident_kib());
    store
}

async fn write(store: &Embedded) {
    let batches: Vec<_> = (0..MESSAGES).step_by(BATCH).map(|from| from..from + BATCH).collect();
    let mut took = Duration::ZERO;
    for batch in batches {
        let entries: Arc<Vec<Entry>> = Arc::new(batch.map(entry).collect());
        let start = Instant::now();
        store.store(entries).await.expect("stored");
        took += start.elapsed();
    }
    report("messages stored", MESSAGES, took);
    report("points stored", MESSAGES * FIELDS.len(), took);
}

async fn read(store: &Embedded) {
    let (start, mut points) = (Instant::now(), 0);
    for i in 0..DEVICES {
        let series = Series { device: device(i), field: Field::new("temperature").expect("valid") };
        let limit = Limit { rows: 10_000, bytes: usize::MAX };
        points += store.points(&series, Place::first_of(0), u64::MAX, limit).await.expect("readable").rows.len();
    }
    report("points read, series by series", points, start.elapsed());
    let start = Instant::now();
    for i in 0..DEVICES {
        let limit = Limit { rows: 100, bytes: usize::MAX };
        store.newest(&device(i), "", limit).await.expect("readable");
    }
    report("devices asked for their newest points", DEVICES, start.elapsed());
}

#[tokio::main]
async fn main() {
    let directory = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("drover-store-bench"), Into::into);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).expect("removed");
    }
    let store = open(&directory);
    write(&store).await;
    println!("{} KiB resident", resident_kib());
    read(&store).await;
    println!("{} KiB resident", resident_kib());
    drop(store);
    drop(open(&directory));
    std::fs::remove_dir_all(&directory).expect("removed");
}
