//! Requests of each kind.

use drover_scylla_kit::{Batch, Failure, Store};
use futures::TryStreamExt;

use crate::stage::{SCHEMA, keyspace, process};

/// More rows than one page of a stream holds.
const ROWS: i64 = 2_500;

async fn store() -> Option<Store> {
    let options = keyspace()?;
    Some(process(&options).open_when_there(&SCHEMA, |_| {}).await.expect("opens"))
}

#[tokio::test]
async fn of_two_writes_the_greater_timestamp_stays_and_a_deletion_wins_a_tie() {
    let Some(store) = store().await else { return };
    let read = store.prepare_read("SELECT value FROM test_rows WHERE part = ? AND name = ?").await.expect("prepared");
    let put =
        store.prepare_write("UPDATE test_rows SET value = ? WHERE part = ? AND name = ?").await.expect("prepared");
    let remove = store.prepare_write("DELETE FROM test_rows WHERE part = ? AND name = ?").await.expect("prepared");
    let value =
        async || store.row::<(Option<i64>,)>(&read, ("p", "a")).await.expect("readable").and_then(|(value,)| value);
    store.write_at(5, &put, (50_i64, "p", "a")).await.expect("written");
    store.write_at(4, &put, (40_i64, "p", "a")).await.expect("a late write is no error");
    assert_eq!(value().await, Some(50));
    store.write_at(5, &remove, ("p", "a")).await.expect("written");
    assert_eq!(value().await, None);
    store.write_at(6, &put, (60_i64, "p", "a")).await.expect("written");
    assert_eq!(value().await, Some(60));
}

#[tokio::test]
async fn a_compare_and_set_says_whether_it_was_made() {
    let Some(store) = store().await else { return };
    let claim =
        store.prepare_conditional("UPDATE test_owners SET owner = ? WHERE name = ? IF owner = ?").await.expect("ok");
    let read = store.prepare_settling_read("SELECT owner FROM test_owners WHERE name = ?").await.expect("prepared");
    assert_eq!(store.try_write(&claim, ("me", "a", None::<&str>)).await, Ok(true));
    assert_eq!(store.try_write(&claim, ("you", "a", None::<&str>)).await, Ok(false));
    assert_eq!(store.row::<(String,)>(&read, ("a",)).await, Ok(Some(("me".to_owned(),))));
    assert_eq!(store.try_write(&claim, ("you", "a", Some("me"))).await, Ok(true));
}

#[tokio::test]
async fn a_batch_writes_to_several_tables_and_a_stream_reads_more_than_a_page() {
    let Some(store) = store().await else { return };
    let put =
        store.prepare_write("UPDATE test_rows SET value = ? WHERE part = ? AND name = ?").await.expect("prepared");
    let own = store.prepare_write("UPDATE test_owners SET owner = ? WHERE name = ?").await.expect("prepared");
    let names: Vec<String> = (0..ROWS).map(|i| format!("{i:05}")).collect();
    for chunk in names.chunks(99) {
        let mut batch = Batch::default();
        chunk.iter().for_each(|name| batch.push(&put, (1_i64, "p", name.clone())));
        batch.push(&own, ("me", chunk[0].clone()));
        store.write_all_at(1, batch).await.expect("written");
    }
    let read = store.prepare_read("SELECT name FROM test_rows WHERE part = ?").await.expect("prepared");
    let rows: Vec<(String,)> = store.stream(&read, ("p",)).await.expect("readable").try_collect().await.expect("all");
    assert!(rows.into_iter().map(|(name,)| name).eq(names));
    let owner = store.prepare_read("SELECT owner FROM test_owners WHERE name = ?").await.expect("prepared");
    assert_eq!(store.row::<(String,)>(&owner, ("00099",)).await, Ok(Some(("me".to_owned(),))));
}

#[tokio::test]
async fn what_the_server_does_not_understand_is_refused_not_retried() {
    let Some(store) = store().await else { return };
    let refused = store.prepare_read("SELECT nothing FROM test_rows").await.map(drop).expect_err("refused");
    assert!(matches!(refused, Failure::Refused { .. }), "{refused}");
}
