//! What is kept, once, across restarts, repeats and retention.

use drover_bus::{Outgoing, Record};
use drover_storage::StorageConfig;
use drover_types::{TELEMETRY_TOPIC, Telemetry};

use crate::stage::{NOW_MS, Stage, message, of, redelivered, sent_by, until};

/// One day in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

#[tokio::test]
async fn it_starts_before_the_topic_is_there_and_reads_from_the_first_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::without_topic(NOW_MS, directory.path(), StorageConfig::default());
    until(async || stage.health.obstacles().iter().any(|(_, why)| why.contains("does not exist yet"))).await;
    stage.create_topic().await;
    stage.publish([message("d", 1, NOW_MS, "5")]).await;
    assert_eq!(stage.latest("d").await, ["value=5"]);
    assert_eq!(stage.health.obstacles(), []);
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_and_reading_goes_on_where_it_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.publish([message("d", 1, NOW_MS, "1")]).await;
    stage.stop().await;
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.publish([message("d", 2, NOW_MS + 1, "2")]).await;
    assert_eq!(stage.range(of("d", "value")).await.points.len(), 2);
    assert_eq!(stage.counter("drover_storage_records_total"), 1);
}

#[tokio::test]
async fn a_message_sent_again_is_stored_once_also_across_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    let (first, second) = (message("d", 1, NOW_MS, "1"), message("d", 2, NOW_MS, "2"));
    let flagged = Telemetry { dup: true, epoch: 1, ..redelivered(&first) };
    stage.publish([first, flagged, second.clone()]).await;
    assert_eq!(stage.messages(sent_by("d")).await.messages.len(), 2);
    stage.stop().await;
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.publish([redelivered(&second), message("d", 3, NOW_MS, "3")]).await;
    assert_eq!(stage.messages(sent_by("d")).await.messages.len(), 3);
    assert_eq!(stage.counter("drover_storage_repeats_total"), 1);
}

#[tokio::test]
async fn a_store_that_is_lost_is_built_again_from_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.publish((0..100).map(|i| message("d", i, NOW_MS + u64::from(i), i.to_string()))).await;
    stage.stop().await;
    // The offsets say that all is stored: whoever removes the store removes the group too.
    std::fs::remove_dir_all(directory.path().join("storage")).expect("removed");
    let (bus, _) =
        drover_bus::embedded::EmbeddedBus::open(&directory.path().join("log"), Default::default()).expect("opens");
    bus.delete_group(drover_storage::GROUP).await.expect("deleted");
    bus.close().await;
    drop(bus);
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.drained().await;
    assert_eq!(stage.range(of("d", "value")).await.points.len(), 100);
}

#[tokio::test]
async fn a_device_has_as_many_fields_as_it_may_have_also_after_a_restart_and_its_messages_are_whole() {
    let skipped = "drover_storage_values_skipped_total{reason=\"device_fields\"}";
    let config = StorageConfig { fields_per_device_max: 3, ..StorageConfig::default() };
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), config.clone()).await;
    let (first, second) = (r#"{"a":1,"b":2}"#, r#"{"c":3,"x":4,"a":5}"#);
    stage.publish([message("d", 1, NOW_MS, first), message("d", 2, NOW_MS + 1, second)]).await;
    assert_eq!(stage.latest("d").await, ["a=5", "b=2", "c=3"]);
    assert_eq!(stage.range(of("d", "x")).await.points.len(), 0);
    let kept = stage.messages(sent_by("d")).await.messages;
    assert_eq!(kept.iter().rev().map(|m| m.payload.as_slice()).collect::<Vec<_>>(), [first, second].map(str::as_bytes));
    assert_eq!((stage.counter(skipped), stage.counter("drover_storage_points_total")), (1, 4));
    stage.stop().await;

    // What it has is read from the store.
    let stage = Stage::on(directory.path(), config).await;
    stage
        .publish([message("d", 3, NOW_MS + 2, r#"{"y":6,"c":7}"#), message("other", 4, NOW_MS, r#"{"y":8,"z":9}"#)])
        .await;
    assert_eq!(stage.latest("d").await, ["a=5", "b=2", "c=7"]);
    assert_eq!(stage.latest("other").await, ["y=8", "z=9"]);
    assert_eq!(stage.counter(skipped), 1);
}

#[tokio::test]
async fn an_unreadable_record_is_skipped_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    let poison = Record { key: Some("home/d".into()), value: Some("5".into()), ..Record::default() };
    stage.append(vec![Outgoing::keyed(TELEMETRY_TOPIC, poison)]).await;
    let end_of_time = Telemetry { time_ms: u64::MAX, ..message("d", 1, NOW_MS, "1") };
    stage.publish([end_of_time, message("d", 2, NOW_MS, "2")]).await;
    assert_eq!(stage.latest("d").await, ["value=2"]);
    assert_eq!(stage.counter("drover_storage_records_malformed_total"), 2);
}

#[tokio::test]
async fn with_retention_what_is_too_old_is_neither_shown_nor_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let retention = Some(drover_host::Duration::from_millis(DAY_MS));
    let stage = Stage::on(directory.path(), StorageConfig { retention, ..StorageConfig::default() }).await;
    stage
        .publish([message("old", 1, NOW_MS, "1"), message("d", 2, NOW_MS, "2"), message("d", 3, NOW_MS + 1, "3")])
        .await;
    stage.clock.advance(DAY_MS);
    assert_eq!(stage.range(of("d", "value")).await.points.len(), 2);
    stage.clock.advance(1);
    assert_eq!(stage.range(of("d", "value")).await.points.len(), 1);
    assert_eq!(stage.messages(sent_by("d")).await.messages.len(), 1);
    assert_eq!((stage.latest("d").await.len(), stage.latest("old").await.len()), (1, 0));
    stage.stop().await;

    // The next start sweeps at once; without retention whatever is still there shows.
    let later = NOW_MS + DAY_MS + 1;
    let stage = Stage::at(later, directory.path(), StorageConfig { retention, ..StorageConfig::default() }).await;
    until(async || stage.counter("drover_storage_rows_expired_total") > 0).await;
    stage.stop().await;
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    assert_eq!((stage.latest("d").await.len(), stage.latest("old").await.len()), (1, 0));
    assert_eq!(stage.messages(sent_by("d")).await.messages.len(), 1);
    assert_eq!(stage.messages(sent_by("old")).await.messages.len(), 0);
}
