//! A process that publishes and stores is killed at any moment: afterwards each record is kept once, none is missing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use drover_bus::TopicPartition;
use drover_proto::storage::v1::{GetMessagesRequest, GetRangeRequest};
use drover_storage::StorageConfig;
use drover_types::{TELEMETRY_TOPIC, header};

use crate::stage::{NOW_MS, Stage, message, of, outgoing, sent_by};

/// Tells the child where to work.
const DIRECTORY: &str = "DROVER_TEST_STORAGE_DIRECTORY";
/// Tells the child the number of its first message.
const FIRST: &str = "DROVER_TEST_STORAGE_FIRST";
/// Acknowledged batches after which each child is killed.
const KILLS: [usize; 4] = [1, 5, 25, 60];
/// Numbers of messages that each child may use.
const NUMBERS: u16 = 10_000;
/// Messages a child publishes at once.
const AT_ONCE: u16 = 20;
const DEVICES: [&str; 3] = ["a", "b", "c"];

/// Not a test of its own: what the child does. Without its directory it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_publishes_and_stores_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let first: u16 = std::env::var(FIRST).expect("set").parse().expect("a number");
    let stage = Stage::on(Path::new(&directory), StorageConfig::default()).await;
    for start in (first..).step_by(usize::from(AT_ONCE)) {
        let sent = (start..start + AT_ONCE).map(|i| {
            let device = DEVICES[usize::from(i) % DEVICES.len()];
            outgoing(message(device, i, NOW_MS + u64::from(i), format!(r#"{{"n": {i}, "on": true}}"#)))
        });
        stage.append(sent.collect()).await;
        println!("\nacknowledged {}", start + AT_ONCE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_every_acknowledged_record_is_stored_and_none_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for (round, kill) in (0..).zip(KILLS) {
        acknowledged += acknowledged_by_a_killed_child(directory.path(), round * NUMBERS, kill);
        let stage = Stage::on(directory.path(), StorageConfig::default()).await;
        stage.drained().await;
        let logged = logged(&stage).await;
        let total: usize = logged.values().map(Vec::len).sum();
        assert!(total >= acknowledged, "{total} of {acknowledged} are in the log");
        for (device, mut ids) in logged {
            let request = GetMessagesRequest { limit: 1_000, ..sent_by(&device) };
            let (mut kept, mut next) = (Vec::new(), Some(String::new()));
            while let Some(page_token) = next.take() {
                let answer = stage.messages(GetMessagesRequest { page_token, ..request.clone() }).await;
                kept.extend(answer.messages.into_iter().map(|message| message.id));
                next = Some(answer.next_page_token).filter(|token| !token.is_empty());
            }
            ids.sort_unstable();
            kept.sort_unstable();
            assert_eq!(kept, ids, "messages of {device}");
            let points = stage.range(GetRangeRequest { limit: 10_000, ..of(&device, "n") }).await.points;
            assert_eq!(points.len(), ids.len(), "points of {device}");
        }
        stage.stop().await;
    }
}

/// Ids in the log, by device.
async fn logged(stage: &Stage) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for partition in 0..4 {
        let at = TopicPartition::new(TELEMETRY_TOPIC, partition);
        let mut next = stage.bus.bounds(&at).await.expect("bounds").earliest;
        loop {
            let records = stage.bus.read(&at, next, 1 << 20, Duration::ZERO).await.expect("readable");
            let Some(last) = records.last() else { break };
            next = last.position.offset + 1;
            for stored in records {
                let header = |name| stored.record.header(name).expect("every record has it").to_vec();
                let device = String::from_utf8(header(header::DEVICE)).expect("text");
                found.entry(device).or_default().push(header(header::ID));
            }
        }
    }
    found
}

/// Runs a child until it has acknowledged `batches`, kills it, and returns how many messages it acknowledged.
fn acknowledged_by_a_killed_child(directory: &Path, first: u16, batches: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::child_that_publishes_and_stores_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut numbers = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let at_kill: Option<u16> = numbers.by_ref().take(batches).last();
    child.kill().expect("killed");
    child.wait().expect("dead");
    let reached = numbers.last().or(at_kill).expect("the child acknowledged something");
    usize::from(reached - first)
}
