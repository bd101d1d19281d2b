//! The change feed follows the writes, whatever happens between a write and its record.

use drover_proto::registry::v1::{Change, object};
use drover_registry::object::Spec;
use drover_registry::ports::{Mutation, RegistryStore};
use drover_registry::{CHANGES_TOPIC, Embedded, EmbeddedLimits, conformance};
use prost::Message;

use crate::stage::{Stage, config, until};

/// Revisions before and after each change of one key, and `None` for a tombstone.
async fn changes_of(stage: &Stage, key: &str) -> Vec<Option<(u64, u64)>> {
    let records = stage.records(CHANGES_TOPIC).await;
    let of_key =
        records.iter().map(|stored| &stored.record).filter(|record| record.key.as_deref() == Some(key.as_bytes()));
    let revision = |object: Option<drover_proto::registry::v1::Object>| match object.and_then(|object| object.object) {
        Some(object::Object::Device(device)) => device.meta.expect("meta").revision,
        Some(other) => panic!("{other:?} under {key}"),
        None => 0,
    };
    let change = |value: &[u8]| Change::decode(value).expect("a change");
    let ends = |change: Change| (revision(change.before), revision(change.after));
    of_key.map(|record| record.value.as_deref().map(|value| ends(change(value)))).collect()
}

#[tokio::test]
async fn what_was_written_before_a_crash_is_in_the_feed_after_it_once_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(&directory.path().join("registry/store"), EmbeddedLimits::default()).expect("opens");
    let first = store.write(conformance::creation(conformance::device("d"))).await.expect("written").expect("there");
    let mut changed = first.clone();
    if let Spec::Device(spec) = &mut changed.spec {
        spec.enabled = false;
    }
    let update = Mutation { expected: Some(first.meta.revision), ..conformance::creation(changed) };
    let second = store.write(update).await.expect("written").expect("there");
    let delete = Mutation::new(second.key(), Some(second.meta.revision), None, 9);
    store.write(delete).await.expect("deleted");
    drop(store);

    let mut stage = Stage::with(config(), directory).await;
    until(async || changes_of(&stage, "device/default/d").await.len() >= 4).await;
    let (first, second) = (first.meta.revision, second.meta.revision);
    let expected = [Some((0, first)), Some((first, second)), Some((second, 0)), None];
    assert_eq!(changes_of(&stage, "device/default/d").await, expected);

    stage.restart().await;
    stage.create_device("e").await.expect("created");
    until(async || !changes_of(&stage, "device/default/e").await.is_empty()).await;
    assert_eq!(changes_of(&stage, "device/default/d").await, expected, "nothing is sent twice without need");
}
