//! The embedded store passes the suite, and refuses directories it should not touch.

use std::sync::Mutex;

use tempfile::TempDir;

use super::audit::Bounds;
use super::*;
use crate::audit::Action;
use crate::conformance::{self, Factory, creation, device};

/// Stores in directories that live as long as the test; the last one made is the one that is opened again.
#[derive(Default)]
struct Directories(Mutex<Vec<TempDir>>);

impl Directories {
    fn open_last(&self) -> Arc<dyn RegistryStore> {
        let directories = self.0.lock().expect("no test panics while it holds this");
        let directory = directories.last().expect("one was made").path();
        Arc::new(Embedded::open(directory, EmbeddedLimits::default()).expect("opens"))
    }
}

#[async_trait]
impl Factory for Directories {
    async fn empty(&self) -> Arc<dyn RegistryStore> {
        let directory = tempfile::tempdir().expect("a directory");
        self.0.lock().expect("no test panics while it holds this").push(directory);
        self.open_last()
    }

    async fn reopened(&self, store: Arc<dyn RegistryStore>) -> Arc<dyn RegistryStore> {
        drop(store);
        self.open_last()
    }
}

#[tokio::test]
async fn the_embedded_store_keeps_every_promise() {
    conformance::suite(&Directories::default()).await;
}

#[test]
fn a_second_opening_is_refused_with_the_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
    let second = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("locked");
    assert!(matches!(&second, OpenError::Locked { directory: named } if named == directory.path()), "{second}");
    drop(first);
    Embedded::open(directory.path(), EmbeddedLimits::default()).expect("free again");
}

#[test]
fn files_of_somebody_else_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("letter.txt"), "dear").expect("written");
    let refused = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("foreign");
    assert!(matches!(&refused, OpenError::Foreign { found, .. } if found == "letter.txt"), "{refused}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1);
}

#[test]
fn another_format_or_another_programs_database_is_refused() {
    let newer = tempfile::tempdir().expect("a directory");
    let open = Open::at(newer.path(), EmbeddedLimits::default()).expect("opens");
    open.rows.insert(keys::FORMAT, "drover-registry 2").expect("written");
    drop(open);
    let refused = Embedded::open(newer.path(), EmbeddedLimits::default()).map(drop).expect_err("newer");
    assert!(matches!(&refused, OpenError::Format { found, .. } if found == "drover-registry 2"), "{refused}");

    let other = tempfile::tempdir().expect("a directory");
    let database = Database::builder(other.path()).open().expect("opens");
    drop(database.keyspace("theirs", KeyspaceCreateOptions::default).expect("made"));
    drop(database);
    let refused = Embedded::open(other.path(), EmbeddedLimits::default()).map(drop).expect_err("foreign");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[test]
fn a_corrupt_version_file_is_told_with_the_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens"));
    std::fs::write(directory.path().join("version"), b"rubbish").expect("written");
    let refused = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("corrupt");
    assert!(refused.to_string().contains(&directory.path().display().to_string()), "{refused}");
    assert!(refused.to_string().ends_with("choose another directory with --data DIR"), "{refused}");
}

#[tokio::test]
async fn after_a_failed_write_the_store_opens_again_and_keeps_what_was_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
    store.write(creation(device("before"))).await.expect("written");
    // What `Reopened::commit` does when the database failed.
    store.shared.database.give_up(&store.shared.database.opened().expect("open"));
    store.write(creation(device("after"))).await.expect("written");
    for name in ["before", "after"] {
        assert!(store.get(&device(name).key()).await.expect("readable").is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_trail_keeps_its_newest_entries_only() {
    let entry = |time_ms: u64| Entry {
        tenant: TenantId::default_tenant(),
        time_ms,
        actor: "administrator".into(),
        action: Action::Created,
        kind: Kind::Device,
        name: "d".into(),
        device: None,
        revision: 1,
        changed: Vec::new(),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
    let put = async |times: std::ops::Range<u64>, bounds: Bounds| {
        store.put_entries_within(times.map(entry).collect(), bounds).await.expect("writable");
        let end = Position::at(u64::MAX);
        let page = store.entries(&TenantId::default_tenant(), 0, &end, 100).await.expect("readable");
        let mut times: Vec<u64> = page.entries.iter().map(|entry| entry.time_ms).collect();
        times.reverse();
        times
    };
    let few = Bounds { kept_ms: 1_000, entries_max: 5 };
    assert_eq!(put(10..15, few).await, (10..15).collect::<Vec<_>>());
    assert_eq!(put(13..18, few).await, (13..18).collect::<Vec<_>>(), "those that were there count once");
    assert_eq!(put(10..11, few).await, [10, 14, 15, 16, 17], "what comes late takes the place of the oldest");
    assert_eq!(put(18..19, few).await, (14..19).collect::<Vec<_>>());
    let brief = Bounds { kept_ms: 2, entries_max: 100 };
    assert_eq!(put(20..21, brief).await, [18, 20]);
    assert_eq!(put(500..501, brief).await, [500]);
}
