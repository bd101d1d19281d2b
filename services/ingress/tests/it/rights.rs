//! What a change in the registry does to connections that are open.

use drover_mqtt::{Connect, Packet, ReasonCode, Version};
use drover_proto::registry::v1::object::Object;
use drover_proto::types::v1::{Credential, Device, Meta, Policy};
use drover_types::Qos;
use tonic::Status;

use crate::stage::Stage;

fn meta(tenant: &str, name: &str) -> Option<Meta> {
    Some(Meta { tenant: tenant.into(), name: name.into(), ..Meta::default() })
}

fn device(name: &str, policies: &[&str]) -> Object {
    let policies = policies.iter().map(|policy| (*policy).to_owned()).collect();
    Object::Device(Device { meta: meta("default", name), enabled: true, policies, ..Device::default() })
}

fn credential(device: &str) -> Object {
    Object::Credential(Credential {
        tenant: "default".into(),
        device: device.into(),
        id: "1".into(),
        ..Default::default()
    })
}

/// Devices of the open connections the registry was asked about.
fn asked(stage: &Stage) -> Vec<String> {
    stage.registry.asked.lock().expect("not poisoned").clone()
}

#[tokio::test]
async fn a_changed_policy_counts_for_the_next_message_of_an_open_connection() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    client.publish_until("a", ReasonCode::Success).await;
    stage.registry.allow(&["b"], &["#"]);
    stage.policy_changed().await;
    client.publish_until("a", ReasonCode::NotAuthorized).await;
    client.publish_until("b", ReasonCode::Success).await;
    stage.registry.allow(&["a"], &["#"]);
    stage.policy_changed().await;
    client.publish_until("a", ReasonCode::Success).await;
}

#[tokio::test]
async fn a_changed_list_of_policies_counts_for_the_devices_connections_only() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    let mut other = stage.connect(Version::V5, "e").await;
    stage.registry.allow(&["b"], &["#"]);
    stage.change(Some(device("d", &["p"])), Some(device("d", &["q"]))).await;
    client.publish_until("a", ReasonCode::NotAuthorized).await;
    other.publish_until("a", ReasonCode::Success).await;
    assert_eq!(asked(&stage), ["d"]);
}

#[tokio::test]
async fn changes_that_concern_no_connection_ask_nobody() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    let policy = |tenant: &str, name: &str| Object::Policy(Policy { meta: meta(tenant, name), ..Policy::default() });
    stage.change(None, Some(policy("default", "unused"))).await;
    stage.change(Some(policy("other", "p")), None).await;
    stage.change(Some(device("d", &["p"])), Some(device("d", &["p"]))).await;
    stage.change(Some(device("e", &["p"])), Some(device("e", &["q"]))).await;
    stage.policy_changed().await;
    client.publish_until("a", ReasonCode::Success).await;
    while asked(&stage).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked(&stage), ["d"], "for the last change alone");
}

#[tokio::test]
async fn a_subscription_that_is_no_longer_allowed_ends_with_its_connection_and_gets_nothing_more() {
    let stage = Stage::new().await;
    let (mut subscriber, _) = stage.resume("s").await;
    for filter in ["open/+", "secret/+"] {
        subscriber.subscribe(filter, Qos::AtLeastOnce).await;
    }
    stage.registry.allow(&["#"], &["open/#"]);
    stage.policy_changed().await;
    assert_eq!(subscriber.goodbye().await, ReasonCode::NotAuthorized);
    assert!(subscriber.read(|_| ()).await.is_none(), "closed");
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "secret/x", "hidden").await;
    publisher.publish(2, "open/x", "shown").await;
    publisher.expect_acks([1, 2]).await;
    let (mut subscriber, present) = stage.resume("s").await;
    assert!(present, "the session goes on without it");
    assert_eq!(subscriber.message().await, "shown");
    assert_eq!(subscriber.try_subscribe("secret/+", Qos::AtLeastOnce).await, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn what_waits_for_the_absent_is_dropped_when_they_return_without_the_right_to_it() {
    let stage = Stage::new().await;
    let (mut subscriber, _) = stage.resume("s").await;
    for filter in ["open/+", "secret/+"] {
        subscriber.subscribe(filter, Qos::AtLeastOnce).await;
    }
    drop(subscriber);
    stage.reports(2).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "secret/x", "hidden").await;
    publisher.publish(2, "open/x", "shown").await;
    publisher.expect_acks([1, 2]).await;
    stage.registry.allow(&["#"], &["open/#"]);
    stage.policy_changed().await;
    while !asked(&stage).contains(&"p".to_owned()) {
        tokio::task::yield_now().await;
    }
    let (mut subscriber, present) = stage.resume("s").await;
    assert!(present);
    assert_eq!(subscriber.message().await, "shown");
    stage.metric("drover_ingress_messages_dropped_total{reason=\"not_allowed\"} 1").await;
}

#[tokio::test]
async fn a_connection_is_closed_for_a_no_and_never_because_nobody_could_tell() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    let verdicts = [Status::unavailable("away"), Status::unavailable("away"), Status::permission_denied("disabled")];
    stage.registry.verdicts.lock().expect("not poisoned").extend(verdicts);
    stage.policy_changed().await;
    assert_eq!(client.goodbye().await, ReasonCode::AdministrativeAction);
    assert_eq!(asked(&stage), ["d", "d", "d"]);
}

#[tokio::test]
async fn the_first_credential_of_a_device_closes_its_connections_without_any() {
    let stage = Stage::new().await;
    stage.registry.credential("right", "d");
    let mut anonymous = stage.connect(Version::V5, "d").await;
    let mut other = stage.connect(Version::V5, "e").await;
    stage.change(None, Some(credential("d"))).await;
    assert_eq!(anonymous.goodbye().await, ReasonCode::AdministrativeAction);
    let mut proven = stage.open(Version::V5).await;
    let connect = Connect { user_name: Some("d"), password: Some(b"right"), ..Connect::new(Version::V5, "d") };
    proven.send(&Packet::Connect(connect)).await;
    proven.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    stage.change(None, Some(credential("d"))).await;
    stage.change(None, Some(credential("f"))).await;
    proven.publish_until("a", ReasonCode::Success).await;
    other.publish_until("a", ReasonCode::Success).await;
}

#[tokio::test]
async fn a_device_that_is_registered_while_it_is_connected_is_asked_for_again() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    stage.registry.verdicts.lock().expect("not poisoned").push_back(Status::unauthenticated("disabled"));
    stage.change(None, Some(device("d", &["p"]))).await;
    assert_eq!(client.goodbye().await, ReasonCode::AdministrativeAction);
}
