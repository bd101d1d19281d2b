//! Rules that look up devices and shadows: read back when a rule begins to ask, and followed from then on.

use std::collections::HashMap;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use drover_bus::{Outgoing, Record, TopicConfig};
use drover_proto::registry::v1::{Change, Object, object};
use drover_proto::types::v1 as wire;
use drover_rules::CHANGES_TOPIC;
use drover_types::shadow::SHADOW_DOCUMENTS_TOPIC;
use prost::Message as _;
use serde_json::{Value, json};

use crate::world::{World, message, until};

/// Declares a device in a room, or deletes it.
pub async fn device(world: &World, tenant: &str, name: &str, room: Option<&str>) {
    let after = room.map(|room| {
        let labels = HashMap::from([("room".to_owned(), room.to_owned())]);
        let meta = wire::Meta { tenant: tenant.into(), name: name.into(), labels, ..wire::Meta::default() };
        Object { object: Some(object::Object::Device(wire::Device { meta: Some(meta), ..wire::Device::default() })) }
    });
    let change = Change { before: None, after, time_ms: 1, ..Change::default() };
    put(world, CHANGES_TOPIC, format!("device/{tenant}/{name}"), change.encode_to_vec()).await;
}

async fn shadow(world: &World, key: &str, document: &Value) {
    put(world, SHADOW_DOCUMENTS_TOPIC, key.to_owned(), document.to_string().into_bytes()).await;
}

async fn put(world: &World, topic: &str, key: String, value: Vec<u8>) {
    let record = Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() };
    world.append(vec![Outgoing::keyed(topic, record)]).await;
}

async fn make_shadows(world: &World) {
    let topic = SHADOW_DOCUMENTS_TOPIC.into();
    let config = TopicConfig { topic, partitions: 3, compact: true, retention_ms: None, retention_bytes: None };
    world.bus.create_topic(config).await.expect("topic");
}

pub async fn accepted(world: &World, rule: &str) -> String {
    let status = world.status(rule).await;
    status.map_or_else(|error| error.message().to_owned(), |status| status.conditions[0].reason.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_has_what_registry_and_shadows_say_of_its_device_from_the_first_message_on() {
    let (world, _dir) = World::embedded().await;
    make_shadows(&world).await;
    device(&world, "home", "d", Some("hall")).await;
    device(&world, "home", "d", Some("kitchen")).await;
    device(&world, "other", "d", Some("theirs")).await;
    shadow(&world, "home/d", &json!({"state": {"desired": {"max": 30}}, "version": 1, "timestamp": 1})).await;
    shadow(&world, "home/d/night", &json!({"state": {"desired": {"max": 20}}, "version": 1, "timestamp": 1})).await;
    let sql = "SELECT device().labels.room AS room, get_thing_shadow(device().name, 'night', '').state.desired.max AS n, t \
               FROM 'sensors/+' WHERE t > get_thing_shadow(topic(2), '').state.desired.max";
    let kafka = json!({"topic": "home.hot", "key": "${device().labels.room}-${t}"});
    world.rule("hot", 1, Some(json!({"sql": sql, "actions": [{"kafka": kafka}]}))).await;
    world
        .publish([message("d", 1, r#"{"t": 31}"#), message("d", 2, r#"{"t": 30}"#), message("e", 3, r#"{"t": 99}"#)])
        .await;

    let running = world.start("a");
    world.drained().await;
    assert_eq!(world.values("home.hot").await, [r#"{"room":"kitchen","n":20,"t":31}"#]);
    assert_eq!(world.read("home.hot").await[0].record.key.as_deref(), Some(&b"kitchen-31"[..]));

    // Changes are followed, and a shadow that is deleted is none.
    device(&world, "home", "d", Some("cellar")).await;
    let number = AtomicU16::new(10);
    until("the new room", async || {
        world.publish([message("d", number.fetch_add(1, Relaxed), r#"{"t": 32}"#)]).await;
        world.values("home.hot").await.contains(&r#"{"room":"cellar","n":20,"t":32}"#.to_owned())
    })
    .await;
    shadow(&world, "home/d/night", &json!({"version": 2, "timestamp": 2})).await;
    until("no shadow", async || {
        world.publish([message("d", number.fetch_add(1, Relaxed), r#"{"t": 33}"#)]).await;
        world.values("home.hot").await.contains(&r#"{"room":"cellar","t":33}"#.to_owned())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_topic_of_shadows_nobody_has_one_and_once_it_is_made_they_are_seen() {
    let (world, _dir) = World::embedded().await;
    let running = world.start("a");
    let sql = "SELECT VALUE get_thing_shadow('t').version FROM 'sensors/+'";
    world.rule("versions", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.versions"}}]}))).await;
    until("in force", async || accepted(&world, "versions").await == "Accepted").await;
    make_shadows(&world).await;
    shadow(&world, "home/t", &json!({"state": {}, "version": 7, "timestamp": 1})).await;
    let number = AtomicU16::new(1);
    until("an output", async || {
        world.publish([message("d", number.fetch_add(1, Relaxed), "-")]).await;
        world.values("home.versions").await.contains(&"7".to_owned())
    })
    .await;
    running.stop().await;
}
