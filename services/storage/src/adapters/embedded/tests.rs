//! The embedded store passes the suite, and refuses directories it should not touch.

use std::sync::Mutex as StdMutex;

use fjall::{Database, KeyspaceCreateOptions};
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Factory, entry};
use crate::series::Value;

/// Stores in directories that live as long as the test; the last one made is the one that is opened again.
#[derive(Default)]
struct Directories(StdMutex<Vec<TempDir>>);

impl Directories {
    fn open_last(&self) -> Arc<dyn SeriesStore> {
        let directories = self.0.lock().expect("no test panics while it holds this");
        let directory = directories.last().expect("one was made").path();
        Arc::new(Embedded::open(directory, EmbeddedLimits::default()).expect("opens"))
    }
}

#[async_trait]
impl Factory for Directories {
    async fn empty(&self) -> Arc<dyn SeriesStore> {
        let directory = tempfile::tempdir().expect("a directory");
        self.0.lock().expect("no test panics while it holds this").push(directory);
        self.open_last()
    }

    async fn reopened(&self, store: Arc<dyn SeriesStore>) -> Arc<dyn SeriesStore> {
        drop(store);
        self.open_last()
    }
}

#[tokio::test]
async fn the_embedded_store_keeps_every_promise() {
    conformance::suite(&Directories::default()).await;
}

#[tokio::test]
async fn what_is_too_old_is_removed_everywhere_and_the_rest_stays() {
    conformance::expiry(&Directories::default()).await;
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
fn files_and_databases_of_somebody_else_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("letter.txt"), "dear").expect("written");
    let refused = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("foreign");
    assert!(matches!(&refused, OpenError::Foreign { found, .. } if found == "letter.txt"), "{refused}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1);

    let other = tempfile::tempdir().expect("a directory");
    let database = Database::builder(other.path()).open().expect("opens");
    drop(database.keyspace("theirs", KeyspaceCreateOptions::default).expect("made"));
    drop(database);
    let refused = Embedded::open(other.path(), EmbeddedLimits::default()).map(drop).expect_err("foreign");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[test]
fn another_format_is_refused() {
    let newer = tempfile::tempdir().expect("a directory");
    let open = Open::at(newer.path(), EmbeddedLimits::default()).expect("opens");
    open.set_format(b"drover-storage 2").expect("written");
    drop(open);
    let refused = Embedded::open(newer.path(), EmbeddedLimits::default()).map(drop).expect_err("newer");
    assert!(matches!(&refused, OpenError::Format { found, .. } if found == "drover-storage 2"), "{refused}");
}

#[tokio::test]
async fn after_a_failed_write_the_store_opens_again_and_keeps_what_was_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
    let (before, after) = (entry("d", 1, 1, "1"), entry("d", 2, 2, "2"));
    store.store(Arc::new(vec![before.clone()])).await.expect("stored");
    // What `Reopened::commit` does when the database failed.
    store.0.database.give_up(&store.0.database.opened().expect("open"));
    store.store(Arc::new(vec![after.clone()])).await.expect("stored");
    let limit = Limit { rows: 10, bytes: usize::MAX };
    let last = Place::last_of(u64::MAX);
    let page = store.messages(&before.device, 0, last, limit).await.expect("readable");
    assert_eq!(page.rows, [after.message, before.message]);
}

/// Rows written by the first version; a change of this test is a change of the format.
#[test]
fn rows_keep_their_bytes() {
    let (entry, field) = (entry("d", 1, 2, "1"), Field::new("t").expect("valid"));
    let key = keys::at(&keys::points_of(&entry.device, &field), entry.message.at);
    assert_eq!(key, [b"home\0d\0t\0".as_slice(), &1u64.to_be_bytes(), &[2; 16]].concat());
    let row = rows::write_point("a", &Value::Number(1.0));
    assert_eq!(row, [0x12, 1, b'a', 0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    assert_eq!(rows::write_message(&entry.message), [0x1a, 3, b't', b'/', b'd', 0x20, 1, 0x2a, 1, b'1']);
    assert_eq!(rows::write_newest(entry.message.at, &[7])[rows::PLACE_BYTES..], [7]);
}
