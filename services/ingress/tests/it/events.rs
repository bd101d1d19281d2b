//! Lifecycle events: from the log to those who subscribe to them.

use std::time::Duration;

use drover_mqtt::{Packet, ReasonCode, Version};
use drover_types::Qos;

use crate::stage::{Client, Stage};

const EVENTS: &str = "drover.events";

/// An event as the registry writes it.
fn event(tenant: &str, device: &str, what: &str, number: usize) -> String {
    format!(
        r#"{{"eventType":"{what}","tenant":"{tenant}","device":"{device}","clientId":"{device}","timestamp":{number},"epoch":1,"node":"n"}}"#
    )
}

async fn subscriber(stage: &Stage, filter: &str) -> Client<tokio::net::TcpStream> {
    stage.registry.allow(&["#", "$events/#"], &["#", "$events/#"]);
    let mut client = stage.connect(Version::V5, "watcher").await;
    client.subscribe(filter, Qos::AtLeastOnce).await;
    client
}

#[tokio::test]
async fn presence_reaches_the_subscribers_of_its_tenant_as_it_is_in_the_log() {
    let stage = Stage::new().await;
    let mut watcher = subscriber(&stage, "$events/presence/+/lamp").await;
    stage.append(EVENTS, event("other", "lamp", "connected", 1)).await;
    stage.append(EVENTS, event("default", "door", "connected", 2)).await;
    stage.append(EVENTS, "rubbish").await;
    for (number, what) in [(3, "connected"), (4, "disconnected")] {
        let value = event("default", "lamp", what, number);
        stage.append(EVENTS, value.clone()).await;
        let read = |packet: Packet<'_>| match packet {
            Packet::Publish(publish) => {
                assert_eq!((publish.qos, publish.retain), (Qos::AtLeastOnce, false));
                (publish.topic.to_owned(), String::from_utf8_lossy(publish.payload).into_owned())
            }
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(watcher.read(read).await, Some((format!("$events/presence/{what}/lamp"), value)));
    }
    stage.metric("drover_ingress_events_malformed_total 1").await;
}

#[tokio::test]
async fn a_policy_has_to_allow_it_and_nobody_may_publish_there() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    let refused = client.try_subscribe("$events/presence/connected/+", Qos::AtLeastOnce).await;
    assert_eq!(refused, ReasonCode::NotAuthorized, "# does not cover it");
    let mut watcher = subscriber(&stage, "$events/#").await;
    watcher.publish_until("$events/presence/connected/d", ReasonCode::NotAuthorized).await;
}

#[tokio::test]
async fn what_was_there_before_the_start_is_not_told_again() {
    let mut stage = Stage::new().await;
    let mut watcher = subscriber(&stage, "$events/presence/connected/d").await;
    stage.append(EVENTS, event("default", "d", "connected", 1)).await;
    assert_eq!(watcher.message().await, event("default", "d", "connected", 1));
    drop(watcher);
    stage.restart().await;
    let mut watcher = subscriber(&stage, "$events/presence/connected/d").await;
    let mut told = Box::pin(watcher.message());
    for number in 2.. {
        stage.append(EVENTS, event("default", "d", "connected", number)).await;
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(20), &mut told).await {
            assert_ne!(told, event("default", "d", "connected", 1));
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_loses_nothing_and_after_a_long_one_what_is_old_is_counted_and_not_told() {
    let stage = Stage::simulated().await;
    stage.registry.allow(&["#"], &["$events/#"]);
    let mut watcher = stage.pipe(Version::V5, "watcher").await;
    watcher.subscribe("$events/#", Qos::AtLeastOnce).await;
    let tell = async |number| stage.append(EVENTS, event("default", "d", "connected", number)).await;
    tell(1).await;
    assert_eq!(watcher.message().await, event("default", "d", "connected", 1));
    stage.bus.cut_reads(true);
    tell(2).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    stage.bus.cut_reads(false);
    assert_eq!(watcher.message().await, event("default", "d", "connected", 2));
    stage.bus.cut_reads(true);
    for number in 3..6 {
        tell(number).await;
    }
    tokio::time::sleep(Duration::from_secs(40)).await;
    stage.bus.cut_reads(false);
    stage.metric("drover_ingress_events_skipped_total 3").await;
    tell(6).await;
    assert_eq!(watcher.message().await, event("default", "d", "connected", 6));
}
