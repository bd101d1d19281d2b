//! Kill -9 at random points: this binary starts itself as a child that writes and prints what was acknowledged; the parent
//! kills it, opens the directory again and compares.
//!
//! The child appends to `plain` and moves numbers from `plain` to `copied` in transactions of a consumer group. After each
//! kill: every printed acknowledgement is there, each lane's numbers are in order, and `copied` holds exactly the records
//! below the group's committed offsets, each once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{
    Bus, GroupConfig, Headers, Outgoing, Polled, Position, Record, Start, Stored, TopicConfig, TopicPartition,
    Transaction,
};

/// Directory the child works in; set only for the child.
const CHILD_DIRECTORY: &str = "DROVER_BUS_CRASH_DIRECTORY";
/// The first number the child appends.
const CHILD_FIRST: &str = "DROVER_BUS_CRASH_FIRST";
const ROUNDS: u64 = 25;
const PARTITIONS: u32 = 3;
/// Numbers appended side by side, each lane waiting for its receipts.
const LANES: u64 = 8;

fn options() -> EmbeddedOptions {
    // Small segments and a small tail, so that rolling and reading files happen within the test.
    EmbeddedOptions { segment_bytes: 256 * 1024, tail_bytes: 64 * 1024, ..EmbeddedOptions::default() }
}

fn topic(name: &str) -> TopicConfig {
    TopicConfig {
        topic: name.into(),
        partitions: PARTITIONS,
        compact: false,
        retention_ms: None,
        retention_bytes: None,
    }
}

fn group() -> GroupConfig {
    GroupConfig {
        group: "copy".into(),
        member: "one".into(),
        topics: vec!["plain".into()],
        start: Start::Earliest,
        session_timeout: Duration::from_secs(60),
        max_poll_interval: Duration::from_secs(60),
    }
}

/// The child's whole life; it ends by being killed. As a test of its own it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_child() {
    let (Ok(directory), Ok(first)) = (std::env::var(CHILD_DIRECTORY), std::env::var(CHILD_FIRST)) else { return };
    let (bus, _) = EmbeddedBus::open(Path::new(&directory), options()).expect("opens");
    for name in ["plain", "copied"] {
        bus.create_topic(topic(name)).await.expect("creates");
    }
    let first: u64 = first.parse().expect("a number");
    for lane in 0..LANES {
        tokio::spawn(append_for_ever(bus.clone(), lane, first));
    }
    copy_for_ever(bus).await;
}

/// Appends `lane/number` one after the other, printing each that was acknowledged.
async fn append_for_ever(bus: EmbeddedBus, lane: u64, first: u64) {
    for number in first.. {
        let key = Bytes::from(format!("lane{lane}"));
        let value = format!("{lane}/{number}/{}", "x".repeat((number % 900) as usize));
        let record = Record {
            key: Some(key),
            value: Some(value.into()),
            timestamp_ms: number as i64,
            headers: Headers::default(),
        };
        let receipt = bus.append(vec![Outgoing::keyed("plain", record)]).await.expect("is taken");
        let positions = receipt.await.expect("is acknowledged");
        say(&format!("ACK {lane} {number} {} {}", positions[0].at.partition, positions[0].offset));
    }
}

/// Copies what the group reads, in transactions with its offsets, printing each commit.
async fn copy_for_ever(bus: EmbeddedBus) {
    let mut consumer = bus.join(group()).await.expect("joins");
    let mut transactor = bus.transactor("copy").await.expect("opens");
    loop {
        let Polled::Records(records) = consumer.poll(50, Duration::from_secs(1)).await.expect("polls") else {
            continue;
        };
        let next: BTreeMap<_, _> = records.iter().map(|r| (r.position.at.clone(), r.position.offset + 1)).collect();
        let next: Vec<_> = next.into_iter().map(|(at, offset)| Position { at, offset }).collect();
        let copy = |stored: &Stored| Outgoing {
            topic: "copied".into(),
            partition: Some(stored.position.at.partition),
            record: stored.record.clone(),
        };
        let transaction = Transaction {
            records: records.iter().map(copy).collect(),
            offsets: Some((consumer.membership(), next.clone())),
        };
        transactor.commit(transaction).await.expect("commits");
        next.iter().for_each(|n| say(&format!("COMMIT {} {}", n.at.partition, n.offset)));
    }
}

/// One whole line in one write, past the test harness's capture.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

/// What the child was told is durable.
#[derive(Default)]
struct Told {
    /// Lane, number and place of each acknowledged append.
    acknowledged: Vec<(u64, u64, TopicPartition, u64)>,
    /// Newest committed offset by partition.
    committed: BTreeMap<u32, u64>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<u64>().expect("a number");
        match words.as_slice() {
            ["ACK", _, _, _, _] => {
                let at = TopicPartition::new("plain", number(3) as u32);
                self.acknowledged.push((number(1), number(2), at, number(4)));
            }
            ["COMMIT", _, _] => drop(self.committed.insert(number(1) as u32, number(2))),
            _ => {}
        }
    }
}

/// Lets a child work until it has said `lines` lines, kills it, and returns all it said.
fn run_and_kill(directory: &Path, first: u64, lines: u64) -> Told {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "crash::crash_child", "--nocapture", "--test-threads", "1"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts itself");
    let mut told = Told::default();
    let mut heard = 0;
    for line in BufReader::new(child.stdout.take().expect("is piped")).lines() {
        let Ok(line) = line else { break };
        told.hear(&line);
        heard += 1;
        if heard == lines {
            child.kill().expect("kills");
        }
    }
    child.wait().expect("ends");
    assert!(heard >= lines, "the child ended by itself after {heard} lines");
    told
}

async fn all(bus: &EmbeddedBus, topic: &str, partition: u32) -> Vec<Stored> {
    let at = TopicPartition::new(topic, partition);
    let bounds = bus.bounds(&at).await.expect("exists");
    let (mut from, mut all) = (bounds.earliest, Vec::new());
    while from < bounds.end {
        let read = bus.read(&at, from, 1 << 20, Duration::ZERO).await.expect("reads");
        from = read.last().expect("records up to the end").position.offset + 1;
        all.extend(read);
    }
    all
}

fn lane_and_number(stored: &Stored) -> (u64, u64) {
    let text = String::from_utf8(stored.record.value.as_deref().expect("has a value").to_vec()).expect("is text");
    let mut words = text.split('/').map(|word| word.parse());
    let mut next = || words.next().expect("a word").expect("a number");
    (next(), next())
}

/// Checks one partition; the lanes' newest numbers are taken up in `newest`.
async fn check(bus: &EmbeddedBus, told: &Told, partition: u32, newest: &mut BTreeMap<u64, u64>) {
    let plain = all(bus, "plain", partition).await;
    let places: BTreeMap<u64, (u64, u64)> = plain.iter().map(|s| (s.position.offset, lane_and_number(s))).collect();
    for (lane, number, at, offset) in told.acknowledged.iter().filter(|(_, _, at, _)| at.partition == partition) {
        assert_eq!(places.get(offset), Some(&(*lane, *number)), "acknowledged at {at:?} {offset}");
    }
    let mut lanes: BTreeMap<u64, u64> = BTreeMap::new();
    for stored in &plain {
        let (lane, number) = lane_and_number(stored);
        assert!(lanes.insert(lane, number).is_none_or(|before| before < number), "lane {lane} is out of order");
    }
    newest.extend(lanes);

    let committed = bus.committed("copy", "plain").await.expect("answers");
    let committed = committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
    let promised = told.committed.get(&partition).copied().unwrap_or(0);
    assert!(committed >= promised, "committed {promised} was acknowledged, {committed} is there");
    let expected: Vec<_> = plain.iter().filter(|s| s.position.offset < committed).map(|s| s.record.clone()).collect();
    let copied: Vec<_> = all(bus, "copied", partition).await.into_iter().map(|s| s.record).collect();
    assert_eq!(copied.len(), expected.len(), "outputs and offsets agree in partition {partition}");
    assert!(copied == expected, "outputs are the inputs in order");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (mut first, mut acknowledged, mut committed, mut cuts, mut redone) = (0, 0, 0, 0, 0);
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
        let told = run_and_kill(directory.path(), first, 200 + (random >> 33) % 3_000);
        let (bus, recovery) = EmbeddedBus::open(directory.path(), options()).expect("opens after the crash");
        let mut newest = BTreeMap::new();
        for partition in 0..PARTITIONS {
            check(&bus, &told, partition, &mut newest).await;
        }
        first = newest.values().max().copied().unwrap_or(0) + 1;
        acknowledged += told.acknowledged.len();
        committed += told.committed.len();
        cuts += recovery.cut.len();
        redone += recovery.redone_records;
        bus.close().await;
    }
    assert!(acknowledged > 0 && committed > 0, "children were told of appends and of transactions");
    println!("{ROUNDS} kills, {acknowledged} acknowledged appends kept, {cuts} torn ends cut, {redone} records redone");
}
