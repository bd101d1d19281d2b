//! A damaged log: the partition concerned stands still and readiness names the place; the other partitions go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::partition_of;
use serde_json::json;

use crate::world::{World, message, text, until};

const MESSAGES: u16 = 200;

/// A log of small segments, none of them in memory.
fn open(directory: &Path) -> EmbeddedBus {
    let options = EmbeddedOptions { segment_bytes: 8 * 1024, tail_bytes: 0, ..EmbeddedOptions::default() };
    EmbeddedBus::open(directory, options).expect("opens").0
}

fn device(number: u16) -> String {
    format!("d{}", number % 16)
}

fn partition(number: u16) -> u32 {
    partition_of(format!("home/{}", device(number)).as_bytes(), 4)
}

/// Flips a byte of message `number` in the segment that holds it.
fn damage(directory: &Path, number: u16) -> PathBuf {
    let telemetry = std::fs::read_dir(directory.join("topics")).expect("lists").flatten().map(|entry| entry.path());
    let telemetry = telemetry.filter(|path| path.to_string_lossy().contains("drover.telemetry"));
    let files = telemetry.flat_map(|path| std::fs::read_dir(path).expect("lists").flatten().map(|e| e.path()));
    let wanted = format!("{{\"n\":{number}}}");
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "log")) {
        let mut bytes = std::fs::read(&file).expect("reads");
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted.as_bytes()) {
            bytes[at + 1] ^= 1;
            std::fs::write(&file, bytes).expect("writes");
            return file;
        }
    }
    panic!("message {number} is not there");
}

#[tokio::test]
async fn a_damaged_partition_does_not_stop_the_rules_on_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = open(directory.path());
    let world = World::on(Arc::new(bus.clone())).await;
    let rule = json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": "home.out"}}]});
    world.rule("all", 1, Some(rule)).await;
    for n in 0..MESSAGES {
        world.publish([message(&device(n), n, &format!("{{\"n\":{n}}}"))]).await;
    }
    bus.close().await;
    drop((world, bus));

    // A message of the partition that has the fewest.
    let alike = |n: &u16| (0..MESSAGES).filter(|other| partition(*other) == partition(*n)).count();
    let damaged = (16..32).min_by_key(alike).expect("some message");
    let file = damage(directory.path(), damaged);
    let world = World::on(Arc::new(open(directory.path()))).await;
    let running = world.start("a");
    let lost = |n: &u16| partition(*n) == partition(damaged) && *n >= damaged;
    let expected: BTreeSet<String> = (0..MESSAGES).filter(|n| !lost(n)).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert!(expected.len() > 100, "most partitions are sound");
    let out = async || world.read("home.out").await.iter().map(text).collect::<Vec<_>>();
    until("all that can be read came out", async || out().await.len() >= expected.len()).await;
    let why = running.health.obstacles().into_iter().map(|(_, why)| why).collect::<Vec<_>>().join(" ");
    assert!(why.contains(&file.display().to_string()) && why.contains("at byte"), "{why}");

    let later = (0..16).find(|n| partition(*n) != partition(damaged)).expect("some device of another partition");
    world.publish([message(&device(later), 999, "{\"n\":999}")]).await;
    until("the others go on", async || out().await.contains(&"{\"n\":999}".to_owned())).await;
    let values: BTreeSet<String> = out().await.into_iter().collect();
    assert_eq!(values, expected.into_iter().chain(["{\"n\":999}".to_owned()]).collect());
    running.stop().await;
}
