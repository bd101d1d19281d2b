//! Ways into the log: what stops one device stops no others, and order holds whatever happens.

use std::time::Duration;

use drover_bus::partition_of;
use drover_mqtt::{Packet, ReasonCode, Version};

use crate::bus::Gate;
use crate::stage::Stage;

const PARTITIONS: u32 = 8;

/// A device whose messages go to another partition than those of `slow`.
fn elsewhere() -> String {
    let partition = |device: &str| partition_of(format!("default/{device}").as_bytes(), PARTITIONS);
    let mut names = (0..).map(|n| format!("quick-{n}"));
    names.find(|name| partition(name) != partition("slow")).expect("there are several partitions")
}

#[tokio::test]
async fn a_partition_that_hangs_stops_its_own_devices_only() {
    let stage = Stage::with_partitions(PARTITIONS).await;
    let mut slow = stage.connect(Version::V5, "slow").await;
    let mut quick = stage.connect(Version::V311, &elsewhere()).await;
    slow.publish(1, "t", "x").await;
    slow.expect_acks([1]).await;
    stage.bus.stick(Some("default/slow"));
    slow.publish(2, "t", "x").await;
    for id in 1..=20 {
        quick.publish(id, "t", "x").await;
        quick.expect_acks([id]).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(100), slow.read(|_| ())).await;
    assert!(early.is_err(), "nothing is acknowledged");
    stage.bus.stick(None);
    slow.expect_acks([2]).await;
}

#[tokio::test]
async fn a_client_that_comes_back_while_the_log_hangs_is_behind_what_it_sent_before() {
    let stage = Stage::new().await;
    let mut old = stage.connect(Version::V5, "d").await;
    stage.bus.set(Gate::Hanging);
    for id in 1..=3 {
        old.publish(id, "t", &format!("old {id}")).await;
    }
    while stage.payloads().await.is_empty() {
        tokio::task::yield_now().await;
    }
    old.send(&Packet::PingReq).await;
    old.expect(|packet| matches!(packet, Packet::PingResp)).await; // all three are read
    let mut new = stage.connect(Version::V5, "d").await;
    assert_eq!(old.goodbye().await, ReasonCode::SessionTakenOver);
    new.publish(1, "t", "new").await;
    stage.bus.set(Gate::Open);
    new.expect_acks([1]).await;
    assert_eq!(stage.payloads().await, ["old 1", "old 2", "old 3", "new"]);
}

#[tokio::test]
async fn a_message_to_a_topic_the_log_does_not_have_closes_its_own_connection_only() {
    let stage = Stage::new().await;
    stage.registry.allow(&["#", "$aws/#"], &["#"]);
    let mut witness = stage.connect(Version::V5, "witness").await;
    let mut client = stage.connect(Version::V5, "d").await;
    client.publish(1, "t", "x").await;
    client.publish(2, "$aws/things/lamp/shadow/update", "{}").await;
    client.expect_acks([1]).await;
    assert_eq!(client.goodbye().await, ReasonCode::ServerBusy);
    witness.publish(1, "t", "z").await;
    witness.expect_acks([1]).await;
}
