//! From reports of nodes to lifecycle events and the presence of a device, across restarts.

use std::time::Duration;

use drover_bus::{Outgoing, Record, partition_of};
use drover_proto::ingress::v1::presence_report::What;
use drover_proto::ingress::v1::{Connected, Disconnected, NodeStarted, PresenceReport};
use drover_proto::registry::v1::{GetDeviceRequest, Presence};
use drover_registry::{EVENTS_TOPIC, PRESENCE_TOPIC};
use prost::Message;

use crate::stage::{Stage, until};

const KEY: &str = "default/d";

fn report(epoch: u64, what: What) -> PresenceReport {
    PresenceReport {
        tenant: "default".into(),
        device: "d".into(),
        client: "d".into(),
        node: "n1".into(),
        epoch,
        time_ms: epoch * 10,
        what: Some(what),
        boot: 0,
    }
}

pub fn connected(epoch: u64) -> PresenceReport {
    report(epoch, What::Connected(Connected { peer: "10.0.0.7:4711".into(), protocol: "mqtt5".into() }))
}

fn disconnected(epoch: u64) -> PresenceReport {
    report(epoch, What::Disconnected(Disconnected { reason: "client".into() }))
}

pub async fn send(stage: &Stage, values: Vec<Vec<u8>>) {
    let outgoing = |value: Vec<u8>| Outgoing {
        topic: PRESENCE_TOPIC.into(),
        partition: Some(partition_of(KEY.as_bytes(), 2)),
        record: Record { key: Some(KEY.into()), value: Some(value.into()), ..Record::default() },
    };
    let receipt = stage.bus.append(values.into_iter().map(outgoing).collect()).await.expect("taken");
    receipt.await.expect("durable");
}

/// Type, epoch and reason of every event.
pub async fn events(stage: &Stage) -> Vec<(String, u64, Option<String>)> {
    let read = |value: &[u8]| {
        let event: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        let reason = event["disconnectReason"].as_str().map(str::to_owned);
        (event["eventType"].as_str().expect("type").to_owned(), event["epoch"].as_u64().expect("epoch"), reason)
    };
    let records = stage.records(EVENTS_TOPIC).await;
    records.iter().map(|stored| read(stored.record.value.as_deref().expect("a value"))).collect()
}

async fn presence(stage: &Stage) -> Presence {
    let request = GetDeviceRequest { tenant: String::new(), name: "d".into() };
    stage.client.clone().get_device(request).await.expect("there").into_inner().presence.expect("presence")
}

pub fn event(kind: &str, epoch: u64, reason: Option<&str>) -> (String, u64, Option<String>) {
    (kind.to_owned(), epoch, reason.map(str::to_owned))
}

#[tokio::test]
async fn reports_become_events_that_alternate_across_restarts() {
    let mut stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    let reports = [connected(1), connected(1), disconnected(1), connected(2), connected(4), disconnected(2)];
    let mut values: Vec<Vec<u8>> = reports.iter().map(Message::encode_to_vec).collect();
    values.insert(2, b"\xff rubbish".to_vec());
    send(&stage, values).await;
    let mut expected = vec![
        event("connected", 1, None),
        event("disconnected", 1, Some("client")),
        event("connected", 2, None),
        event("disconnected", 2, Some("taken_over")),
        event("connected", 4, None),
    ];
    until(async || events(&stage).await.len() >= expected.len()).await;
    assert_eq!(events(&stage).await, expected);
    let seen = Presence { ever_seen: true, connected: true, changed_ms: 40, epoch: 4 };
    until(async || presence(&stage).await == seen).await;

    stage.restart().await;
    assert_eq!(presence(&stage).await, seen);
    let started = PresenceReport { boot: 1, ..report(0, What::NodeStarted(NodeStarted {})) };
    send(&stage, vec![connected(3).encode_to_vec(), started.encode_to_vec(), started.encode_to_vec()]).await;
    expected.push(event("disconnected", 4, Some("node_lost")));
    until(async || events(&stage).await.len() >= expected.len()).await;
    assert_eq!(events(&stage).await, expected);
    until(async || !presence(&stage).await.connected).await;

    let at = stage.records(EVENTS_TOPIC).await[0].record.clone();
    assert_eq!((at.key.as_deref(), at.header("time")), (Some(KEY.as_bytes()), Some(b"10".as_slice())));
    assert_eq!(at.header("id").map(<[u8]>::len), Some(16));
}

#[tokio::test]
async fn the_view_is_restored_from_the_events_when_the_store_is_lost() {
    let mut stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    send(&stage, vec![connected(5).encode_to_vec()]).await;
    until(async || presence(&stage).await.connected).await;
    stage.restart_without_store().await;
    stage.create_device("d").await.expect("the store is new");
    until(async || presence(&stage).await.connected).await;
    send(&stage, vec![connected(5).encode_to_vec(), disconnected(5).encode_to_vec()]).await;
    until(async || !presence(&stage).await.connected).await;
    assert_eq!(events(&stage).await.len(), 2);
    assert_eq!(stage.records(PRESENCE_TOPIC).await.len(), 3);
    tokio::time::timeout(Duration::from_secs(5), stage.restart()).await.expect("stops at once");
}
