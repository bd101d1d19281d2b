//! Notices: subscriptions that come and go, and why something of a device was refused.

use drover_mqtt::{
    FilterList, Packet, PacketId, Properties, Publish, ReasonCode, Subscribe, Subscription, SubscriptionList,
    SubscriptionOptions, Unsubscribe, Version,
};
use drover_types::Qos;
use serde_json::{Value, json};

use crate::http::{TOKEN, send};
use crate::stage::{Client, Stage};

type Watcher = Client<tokio::net::TcpStream>;

/// Devices may publish below `open` alone; the watcher has subscribed to `filter`.
async fn watched(filter: &str) -> (Stage, Watcher) {
    let stage = Stage::new().await;
    stage.registry.allow(&["open/#"], &["#", "$events/#", "$drover/errors/#"]);
    let mut watcher = stage.connect(Version::V5, "watcher").await;
    watcher.subscribe(filter, Qos::AtLeastOnce).await;
    (stage, watcher)
}

async fn told(watcher: &mut Watcher) -> Value {
    serde_json::from_str(&watcher.message().await).expect("JSON")
}

#[tokio::test]
async fn subscriptions_that_come_and_go_are_told_and_not_to_whoever_has_just_asked_for_it() {
    let (stage, mut watcher) = watched("$events/#").await;
    let mut lamp = stage.connect(Version::V311, "lamp").await;
    lamp.subscribe("a/#", Qos::AtMostOnce).await;
    let event = told(&mut watcher).await;
    assert_eq!(event["eventType"], "subscribed", "{event}");
    assert_eq!([&event["tenant"], &event["device"], &event["clientId"]], ["default", "lamp", "lamp"]);
    assert_eq!(event["topics"], json!(["a/#"]));

    for filter in ["b", "a/#"] {
        let mut filters = FilterList::default();
        filters.push(filter).expect("short");
        let (packet_id, properties) = (PacketId::MIN, Properties::default());
        lamp.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: filters.as_filters() })).await;
        lamp.expect(|packet| matches!(packet, Packet::UnsubAck(_))).await;
    }
    let event = told(&mut watcher).await;
    assert_eq!((&event["eventType"], &event["topics"]), (&json!("unsubscribed"), &json!(["a/#"])), "it had no other");
}

#[tokio::test]
async fn a_device_is_told_why_a_message_or_subscription_of_its_own_was_refused() {
    let (stage, _watcher) = watched("$drover/errors/lamp").await;
    let mut lamp = stage.connect(Version::V5, "lamp").await;
    lamp.subscribe("$drover/errors/lamp", Qos::AtLeastOnce).await;
    lamp.publish(1, "shut", "x").await;
    lamp.expect(|p| matches!(p, Packet::PubAck(ack) if ack.reason == ReasonCode::NotAuthorized)).await;
    let notice = told(&mut lamp).await;
    let message = "policy does not allow to publish to \"shut\"";
    assert_eq!(notice["error"], json!({"code": "permission_denied", "field": "topic", "message": message}));
    assert_eq!(notice["clientId"], "lamp");

    assert_eq!(lamp.try_subscribe("$SYS/#", Qos::AtMostOnce).await, ReasonCode::NotAuthorized);
    let notice = told(&mut lamp).await;
    assert_eq!((&notice["error"]["code"], &notice["error"]["field"]), (&json!("permission_denied"), &json!("filter")));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_hear_of_it_is_told_why_a_connection_was_closed_and_a_post_refused() {
    let (stage, mut watcher) = watched("$drover/errors/+").await;
    let mut lamp = stage.connect(Version::V311, "lamp").await;
    lamp.publish(1, "shut", "x").await;
    assert!(!lamp.rest_has_ack().await, "closed: 3.1.1 has no other word");
    assert_eq!(told(&mut watcher).await["clientId"], "lamp");

    stage.registry.credential(TOKEN, "door");
    let authorization = format!("Bearer {TOKEN}");
    let (status, _) = send(&stage, "POST", "/v1/topics/shut", &[("authorization", &authorization)], "x").await;
    assert_eq!(status, 403);
    let notice = told(&mut watcher).await;
    assert_eq!((&notice["clientId"], &notice["error"]["field"]), (&json!("http:door"), &json!("topic")));
}

#[tokio::test]
async fn of_many_refusals_some_are_told_and_the_others_counted() {
    let (stage, mut watcher) = watched("$drover/errors/lamp").await;
    let mut lamp = stage.connect(Version::V5, "lamp").await;
    for _ in 0..100 {
        lamp.send(&Packet::Publish(Publish::new("shut", b"x"))).await;
    }
    told(&mut watcher).await;
    let is_counted = |line: &str| line.starts_with(r#"drover_ingress_notices_untold_total{notice="refusal"} "#);
    while !stage.metrics.encode().lines().any(is_counted) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    lamp.subscribe("open/#", Qos::AtMostOnce).await; // it costs the client nothing
}

#[tokio::test]
async fn of_many_filters_as_many_as_a_client_may_have_are_told_and_the_others_counted() {
    let (stage, mut watcher) = watched("$events/#").await;
    let mut lamp = stage.connect(Version::V5, "lamp").await;
    let mut filters = SubscriptionList::default();
    let options = SubscriptionOptions::new(Qos::AtMostOnce);
    (0..101).for_each(|_| filters.push(Subscription { filter: "a", options }).expect("short"));
    let (packet_id, properties) = (PacketId::MIN, Properties::default());
    let subscribe = Subscribe { packet_id, properties, subscriptions: filters.as_subscriptions() };
    lamp.send(&Packet::Subscribe(subscribe)).await;
    let event = told(&mut watcher).await;
    assert_eq!(event["topics"].as_array().map(Vec::len), Some(100));
    stage.metric(r#"drover_ingress_notices_untold_total{notice="subscription"} 1"#).await;
}
