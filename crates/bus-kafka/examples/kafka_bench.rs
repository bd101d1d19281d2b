//! Appends and transactions on real Kafka: rate, CPU of this process per record, latencies.
//!
//! `cargo run --release -p drover-bus-kafka --example kafka_bench [HOST:PORT]`; without an address it starts a broker.
//! `COMPRESSION` and `LINGER_MS` try other settings of librdkafka.

use std::time::Duration;

use anyhow::Context;
use drover_backends::kafka::Kafka;
use drover_bus::{Bus, Outgoing, Record, Topic, TopicConfig, Transaction};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Records of the throughput run, and of one batch in it, as a busy connection brings them.
const RECORDS: usize = 200_000;
const BATCH: usize = 10;
/// Appends awaited one by one; transactions, and records in each.
const SINGLES: usize = 2_000;
const TRANSACTIONS: usize = 200;
const OUTPUTS: usize = 50;
const PAYLOAD: usize = 200;

fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// A record as the ingress makes it: a key, 200 bytes and a dozen headers.
fn telemetry(topic: &Topic, number: usize) -> Outgoing {
    let names = ["id", "topic", "tenant", "device", "client", "qos", "retain", "dup", "packet-id", "epoch", "time"];
    let headers = names.map(|name| (name, "0123456789")).into();
    let key = Some(format!("default/device-{}", number % 1_000).into());
    let timestamp_ms = 1_700_000_000_000;
    Outgoing::keyed(topic.clone(), Record { key, value: Some(vec![b'x'; PAYLOAD].into()), headers, timestamp_ms })
}

async fn throughput(bus: &KafkaBus, topic: &Topic) -> anyhow::Result<()> {
    let (since, before) = (Instant::now(), cpu());
    let mut receipts = Vec::with_capacity(RECORDS / BATCH);
    for batch in 0..RECORDS / BATCH {
        let records = (0..BATCH).map(|n| telemetry(topic, batch * BATCH + n)).collect();
        receipts.push(bus.append(records).await?);
    }
    futures::future::try_join_all(receipts).await?;
    let (wall, spent) = (since.elapsed(), cpu() - before);
    let per_record = spent.as_secs_f64() * 1e6 / RECORDS as f64;
    println!(
        "appends of {BATCH}: {:.0} records/s, {per_record:.1} us CPU a record, making them included",
        RECORDS as f64 / wall.as_secs_f64()
    );
    Ok(())
}

async fn singles(bus: &KafkaBus, topic: &Topic) -> anyhow::Result<()> {
    let mut histogram = Histogram::<u64>::new(3)?;
    let before = cpu();
    for number in 0..SINGLES {
        let since = Instant::now();
        bus.append(vec![telemetry(topic, number)]).await?.await?;
        histogram.record(u64::try_from(since.elapsed().as_micros())?)?;
    }
    let per_record = (cpu() - before).as_secs_f64() * 1e6 / SINGLES as f64;
    let (p50, p99) = (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99));
    println!("single appends: p50 {p50} us, p99 {p99} us, {per_record:.1} us CPU a record");
    Ok(())
}

async fn transactions(bus: &KafkaBus, topic: &Topic) -> anyhow::Result<()> {
    let mut histogram = Histogram::<u64>::new(3)?;
    let mut transactor = bus.transactor("bench").await?;
    for number in 0..TRANSACTIONS {
        let records = (0..OUTPUTS).map(|n| telemetry(topic, number * OUTPUTS + n)).collect();
        let since = Instant::now();
        transactor.commit(Transaction { records, offsets: None }).await?;
        histogram.record(u64::try_from(since.elapsed().as_micros())?)?;
    }
    let (p50, p99) = (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99));
    println!("transactions of {OUTPUTS}: p50 {p50} us, p99 {p99} us");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let named = std::env::args().nth(1);
    let started = match &named {
        Some(_) => None,
        None => Some(tokio::task::spawn_blocking(Kafka::start).await??.context("no Kafka")?),
    };
    let brokers = named.or_else(|| started.as_ref().map(Kafka::brokers)).context("no brokers")?;
    let setting = |name: &str, key: &str| Some((key.to_owned(), std::env::var(name).ok()?));
    let client = [setting("COMPRESSION", "compression.type"), setting("LINGER_MS", "linger.ms")];
    let client = client.into_iter().flatten().collect();
    let brokers = vec![brokers];
    let bus = KafkaBus::open(KafkaOptions {
        brokers,
        replication_factor: 1,
        min_insync_replicas: 1,
        client,
        ..Default::default()
    })?;
    let topic: Topic = format!("bench-{}", std::process::id()).into();
    let config =
        TopicConfig { topic: topic.clone(), partitions: 8, compact: false, retention_ms: None, retention_bytes: None };
    bus.create_topic(config).await?;
    throughput(&bus, &topic).await?;
    throughput(&bus, &topic).await?;
    singles(&bus, &topic).await?;
    transactions(&bus, &topic).await
}
