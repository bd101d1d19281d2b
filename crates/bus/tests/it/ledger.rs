//! A workload that keeps books: what was acknowledged, aborted or left open, and whether a log agrees with that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{
    Bus, Consumer, GroupConfig, Headers, Outgoing, Polled, Position, Record, Start, TopicConfig, TopicPartition,
    TransactError, Transaction, Transactor,
};

use crate::faulty_disk::FaultyDisk;

/// Longest wait for writing to work again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Key of what is appended to the topic of the transactions without one.
const BESIDE: &str = "beside";

/// Small files, so that a short workload rolls, trims and compacts.
pub fn options(disk: Option<Arc<FaultyDisk>>) -> EmbeddedOptions {
    let options = EmbeddedOptions {
        segment_bytes: 2 * 1024,
        journal_bytes: 2 * 1024,
        tail_bytes: 0,
        ..EmbeddedOptions::default()
    };
    match disk {
        Some(disk) => EmbeddedOptions { disk, ..options },
        None => options,
    }
}

/// What was said about the work so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Values of `in` by offset.
    acknowledged: BTreeMap<u64, String>,
    /// Values appended to `out` beside the transactions, by offset.
    beside: BTreeMap<u64, String>,
    /// Newest acknowledged offset and value of each key of `state`.
    states: BTreeMap<String, (u64, String)>,
    committed: Vec<u64>,
    aborted: Vec<u64>,
}

pub type Shared = Arc<Mutex<Ledger>>;

/// The workload over an open bus.
pub struct Work {
    bus: EmbeddedBus,
    consumer: Box<dyn Consumer>,
    transactor: Box<dyn Transactor>,
    ledger: Shared,
    transactions: u64,
}

fn topic(name: &str, partitions: u32, compact: bool) -> TopicConfig {
    TopicConfig { topic: name.into(), partitions, compact, retention_ms: None, retention_bytes: None }
}

fn record(key: &str, value: &str) -> Record {
    let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    Record { key: bytes(key), value: bytes(value), timestamp_ms: 1, headers: Headers::default() }
}

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// Tries again until it works: refusals last a tenth of a second at a time.
async fn until_it_works<T, E: std::fmt::Display>(mut what: impl AsyncFnMut() -> Result<T, E>) -> T {
    let working = async {
        loop {
            match what().await {
                Ok(done) => return done,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, working).await.expect("works again")
}

impl Work {
    /// Makes the topics and joins.
    pub async fn begin(bus: EmbeddedBus, ledger: Shared) -> Self {
        for config in [topic("in", 1, false), topic("out", 2, false), topic("state", 1, true)] {
            until_it_works(async || bus.create_topic(config.clone()).await).await;
        }
        let config = GroupConfig {
            group: "g".into(),
            member: "m".into(),
            topics: vec!["in".into()],
            start: Start::Earliest,
            session_timeout: Duration::from_secs(600),
            max_poll_interval: Duration::from_secs(600),
        };
        let mut consumer = bus.join(config).await.expect("joins");
        let polled = consumer.poll(1, PATIENCE).await.expect("polls");
        assert!(matches!(polled, Polled::Assigned(_)), "{polled:?}");
        let transactor = bus.transactor("t").await.expect("opens");
        Self { bus, consumer, transactor, ledger, transactions: 0 }
    }

    /// Some rounds of appends and transactions.
    pub async fn run(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.append("in", "k", round).await;
            self.append("state", &format!("key{}", round % 2), round).await;
            self.append("out", BESIDE, round).await;
            self.transact(round + 1).await;
        }
    }

    async fn append(&mut self, topic: &str, key: &str, round: u64) {
        let mut attempt = 0;
        let (value, offset) = until_it_works(async || {
            attempt += 1;
            let value = format!("{round}.{attempt}/{}", "x".repeat(250));
            let outgoing = Outgoing { topic: topic.into(), partition: Some(0), record: record(key, &value) };
            let receipt = self.bus.append(vec![outgoing]).await.map_err(|error| error.to_string())?;
            let positions = receipt.await.map_err(|error| error.to_string())?;
            Ok::<_, String>((value, positions[0].offset))
        })
        .await;
        let mut ledger = self.ledger.lock().expect("is sound");
        match topic {
            "in" => drop(ledger.acknowledged.insert(offset, value)),
            "out" => drop(ledger.beside.insert(offset, value)),
            _ => drop(ledger.states.insert(key.to_owned(), (offset, value))),
        }
    }

    /// An append to the topic of the transactions that the disk refuses.
    pub async fn append_in_vain(&self) {
        let outgoing = Outgoing { topic: "out".into(), partition: Some(0), record: record(BESIDE, "in vain") };
        let receipt = self.bus.append(vec![outgoing]).await.expect("is taken");
        receipt.await.expect_err("the disk refuses it");
    }

    /// Writes the number of the transaction and `next` to both partitions of `out` and commits the offset `next`.
    pub async fn transact(&mut self, next: u64) {
        let membership = self.consumer.membership();
        until_it_works(async || {
            self.transactions += 1;
            let number = self.transactions;
            let value = format!("{number}/{next}/{}", "y".repeat(150));
            let output =
                |partition| Outgoing { topic: "out".into(), partition: Some(partition), record: record("k", &value) };
            let offsets = vec![Position { at: at("in", 0), offset: next }];
            let transaction = Transaction {
                records: vec![output(0), output(1)].into(),
                offsets: Some((membership.clone(), offsets)),
            };
            let outcome = self.transactor.commit(transaction).await;
            let mut ledger = self.ledger.lock().expect("is sound");
            match &outcome {
                Ok(_) => ledger.committed.push(number),
                Err(TransactError::Aborted { .. }) => ledger.aborted.push(number),
                Err(TransactError::Unknown { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            outcome.map(drop)
        })
        .await;
    }
}

async fn values(bus: &EmbeddedBus, at: TopicPartition) -> Vec<(u64, String, String)> {
    let bounds = bus.bounds(&at).await.expect("exists");
    let (mut from, mut all) = (bounds.earliest, Vec::new());
    loop {
        // What a failure kept from its topic's file is there soon after.
        let read = until_it_works(async || bus.read(&at, from, 1 << 20, Duration::ZERO).await).await;
        let Some(last) = read.last() else { return all };
        from = last.position.offset + 1;
        let text = |bytes: &Option<Bytes>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        all.extend(read.iter().map(|s| (s.position.offset, text(&s.record.key), text(&s.record.value))));
    }
}

/// Number and committed offset of each visible transaction.
async fn transactions(bus: &EmbeddedBus, partition: u32) -> Vec<(u64, u64)> {
    let parse = |(_, _, text): &(u64, String, String)| {
        let mut numbers = text.split('/').map(|number| number.parse());
        let mut next = || numbers.next().expect("a word").expect("a number");
        (next(), next())
    };
    let all = values(bus, at("out", partition)).await;
    all.iter().filter(|(_, key, _)| key != BESIDE).map(parse).collect()
}

impl Ledger {
    /// Checks that `bus` holds all that was acknowledged and nothing that was aborted, and no transaction by half.
    pub async fn check(&self, bus: &EmbeddedBus) {
        let topics: BTreeSet<_> =
            bus.topics().await.expect("lists").iter().map(|config| config.topic.to_string()).collect();
        if self.acknowledged.is_empty() && topics.len() < 3 {
            return;
        }
        for (topic, acknowledged) in [("in", &self.acknowledged), ("out", &self.beside)] {
            let kept = values(bus, at(topic, 0)).await;
            let by_offset: BTreeMap<u64, &String> = kept.iter().map(|(offset, _, value)| (*offset, value)).collect();
            for (offset, value) in acknowledged {
                assert_eq!(by_offset.get(offset), Some(&value), "acknowledged at {offset} of {topic}");
            }
            let distinct: BTreeSet<_> = by_offset.values().collect();
            assert_eq!(distinct.len(), by_offset.len(), "everything is in {topic} once at most");
        }
        let states = values(bus, at("state", 0)).await;
        for (key, (offset, value)) in &self.states {
            let newest = states.iter().filter(|(_, k, _)| k == key).max().expect("an acknowledged key stays");
            assert!(newest.0 > *offset || (newest.0 == *offset && newest.2 == *value), "newest of {key}: {newest:?}");
        }
        let (one, other) = (transactions(bus, 0).await, transactions(bus, 1).await);
        assert_eq!(one, other, "a transaction shows in all its partitions or none");
        let last = one.last().map_or(0, |(_, next)| *next);
        let one: Vec<u64> = one.into_iter().map(|(number, _)| number).collect();
        assert!(one.is_sorted_by(|a, b| a < b), "each once, in order: {one:?}");
        assert!(self.committed.iter().all(|number| one.contains(number)), "{:?} in {one:?}", self.committed);
        assert!(!self.aborted.iter().any(|number| one.contains(number)), "{:?} not in {one:?}", self.aborted);
        let committed = bus.committed("g", "in").await.expect("answers");
        let newest = committed.first().map_or(0, |position| position.offset);
        assert_eq!(newest, last, "offset and outputs belong together");
    }
}
