//! A look tells beforehand what opening would say, and leaves every file as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions, Sight, look};
use drover_bus::{Bus, Outgoing, Record, TopicConfig};

fn options() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 4 * 1024, ..EmbeddedOptions::default() }
}

async fn fill(directory: &Path) {
    let (bus, _) = EmbeddedBus::open(directory, options()).expect("opens");
    let config =
        TopicConfig { topic: "t".into(), partitions: 2, compact: false, retention_ms: None, retention_bytes: None };
    bus.create_topic(config).await.expect("creates");
    for number in 0..40u8 {
        let record = Record { value: Some(vec![number; 300].into()), ..Record::default() };
        let outgoing = Outgoing { topic: "t".into(), partition: Some(0), record };
        bus.append(vec![outgoing]).await.expect("is taken").await.expect("is acknowledged");
    }
    bus.close().await;
}

/// Every file with its content.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("lists").flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => drop(found.insert(entry.path(), std::fs::read(entry.path()).expect("reads"))),
        }
    }
    found
}

fn last_segment(directory: &Path) -> PathBuf {
    let logs = files(directory).into_keys().filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.max().expect("has segments")
}

fn journal(directory: &Path) -> PathBuf {
    files(directory).into_keys().find(|path| path.extension().is_some_and(|e| e == "journal")).expect("has a journal")
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("reads");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("writes");
}

/// What looking and opening say of the same directory; looking has changed nothing.
fn both(directory: &Path) -> [Result<usize, String>; 2] {
    let before = files(directory);
    let seen = look(directory).map(|sight| sight.map_or(0, |s| s.torn.len())).map_err(|e| e.to_string());
    assert_eq!(files(directory), before, "a look changes nothing");
    let opened = EmbeddedBus::open(directory, options()).map(|(_, r)| r.cut.len()).map_err(|e| e.to_string());
    [seen, opened]
}

#[tokio::test]
async fn a_sound_log_is_seen_with_its_topics_and_an_absent_one_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(look(&directory.path().join("none")).expect("no log"), None);
    assert_eq!(look(directory.path()).expect("no log"), None);
    fill(directory.path()).await;
    assert_eq!(look(directory.path()).expect("sound"), Some(Sight { topics: 1, torn: Vec::new() }));
}

#[tokio::test]
async fn a_torn_end_is_told_and_left_for_opening_to_cut() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    change(&last_segment(directory.path()), |bytes| bytes.truncate(bytes.len() - 7));
    assert_eq!(both(directory.path()), [Ok(1), Ok(1)]);
}

#[tokio::test]
async fn damage_another_format_and_foreign_files_are_refused_in_the_words_of_opening() {
    for harm in [
        |directory: &Path| change(&last_segment(directory), |bytes| bytes[100] ^= 1),
        |directory: &Path| change(&last_segment(directory), |bytes| bytes[3] ^= 1),
        |directory: &Path| std::fs::write(directory.join("FORMAT"), "9\n").expect("writes"),
        |directory: &Path| std::fs::remove_file(directory.join("FORMAT")).expect("removes"),
        |directory: &Path| change(&journal(directory), |bytes| bytes[30] ^= 1),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        fill(directory.path()).await;
        harm(directory.path());
        let [seen, opened] = both(directory.path());
        assert!(seen.is_err(), "{seen:?}");
        assert_eq!(seen, opened);
    }
}

#[tokio::test]
async fn who_holds_the_log_is_named_and_a_look_keeps_nobody_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), options()).expect("opens");
    let told = look(directory.path()).expect_err("in use").to_string();
    assert!(told.ends_with(&format!("in use by another process, pid {}", std::process::id())), "{told}");
    drop(bus);
    look(directory.path()).expect("free").expect("a log");
    EmbeddedBus::open(directory.path(), options()).expect("still free");
}
