//! A process that writes is killed at any moment, or its disk fills up: what it answered is there afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use drover_backends::small_disk;
use drover_registry::ports::{RegistryStore, StoreError};
use drover_registry::{Embedded, EmbeddedLimits, conformance};

/// Tells the child where to write.
const DIRECTORY: &str = "DROVER_TEST_REGISTRY_DIRECTORY";
const SMALL_DISK_BYTES: u64 = 8 * 1024 * 1024;
/// What stands in the way, and is removed later.
const FILLER_BYTES: usize = 6 * 1024 * 1024;
/// Makes each write large enough to fill the disk soon.
const BALLAST_BYTES: usize = 64 * 1024;
/// Answers after which each child is killed.
const ANSWERS: [usize; 4] = [1, 17, 60, 150];

/// Not a test of its own: what the child does. Without its directory it does nothing.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Embedded::open(Path::new(&directory), EmbeddedLimits::default()).expect("opens");
    let start = store.outbox(usize::MAX).await.expect("readable").len();
    for i in start.. {
        store.write(conformance::creation(conformance::device(&format!("d{i}")))).await.expect("written");
        println!("\nanswered d{i}");
    }
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_with_its_outbox_row() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut answered: Vec<String> = Vec::new();
    for answers in ANSWERS {
        answered.extend(answers_of_a_killed_child(directory.path(), answers));
        let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens after a kill");
        for name in &answered {
            let found = store.get(&conformance::device(name).key()).await.expect("readable");
            assert!(found.is_some(), "{name} was answered and is lost");
        }
        let rows = store.outbox(usize::MAX).await.expect("readable");
        for row in &rows {
            assert_eq!(store.get(&row.change.key).await.expect("readable"), row.change.after, "half a write");
        }
        assert!(rows.len() >= answered.len());
    }
}

/// Runs a child until it has answered `answers` writes, kills it, and returns all that it answered.
fn answers_of_a_killed_child(directory: &Path, answers: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let name = |line: String| line.strip_prefix("answered ").map(str::to_owned);
    let mut answered: Vec<String> = lines.by_ref().filter_map(name).take(answers).collect();
    child.kill().expect("killed");
    child.wait().expect("dead");
    answered.extend(lines.filter_map(name));
    assert!(answered.len() >= answers, "the child ended on its own after {} answers", answered.len());
    answered
}

#[tokio::test]
async fn a_full_disk_refuses_a_write_wholly_and_later_writes_work_again() {
    let name = "crash::a_full_disk_refuses_a_write_wholly_and_later_writes_work_again";
    let Some(disk) = small_disk::enter(name, SMALL_DISK_BYTES) else { return };
    let (store_dir, filler) = (disk.join("store"), disk.join("filler"));
    let store = Embedded::open(&store_dir, EmbeddedLimits::default()).expect("opens");
    std::fs::write(&filler, vec![1; FILLER_BYTES]).expect("there is room for it");
    let write = async |i: usize| {
        let mut object = conformance::device(&format!("d{i}"));
        object.meta.labels.insert("ballast".into(), "x".repeat(BALLAST_BYTES));
        store.write(conformance::creation(object)).await
    };
    let mut answered = 0;
    let failure = loop {
        match write(answered).await {
            Ok(_) => answered += 1,
            Err(failure) => break failure,
        }
    };
    // Unavailable: the background flush met the full disk first, and fjall does not pass its reason on.
    assert!(matches!(failure, StoreError::Full { .. } | StoreError::Unavailable { .. }), "{failure}");
    std::fs::remove_file(&filler).expect("removed");
    // The failed write may have happened wholly, never by half: then the next name is free.
    let next = if store.get(&conformance::device(&format!("d{answered}")).key()).await.expect("opens again").is_some() {
        answered + 1
    } else {
        answered
    };
    write(next).await.expect("there is room again");
    let rows = store.outbox(usize::MAX).await.expect("readable");
    assert_eq!(rows.len(), next + 1);
    for row in rows {
        assert_eq!(store.get(&row.change.key).await.expect("readable"), row.change.after, "half a write");
    }
}
