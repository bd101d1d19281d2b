//! Whole turns, finalizers among them: what goes, what cannot be read, and services that are away.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use drover_operator::controller::{read, reconcile};
use drover_operator::crd::{Device, Policy};
use drover_types::{ApiError, ErrorCode};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::cluster::Call;
use crate::stage::{NOW_MS, Stage, condition, message, object, pair, status, with_status};

const DEVICE: &str = "/apis/devices.drover.dev/v1alpha1/namespaces/home/devices/thermo-1";
const POLICY: &str = "/apis/drover.dev/v1alpha1/namespaces/home/policies/future";

/// A Device with the operator's finalizer, of this generation.
fn device(generation: i64) -> Device {
    let mut device: Device = object("devices.drover.dev/v1alpha1", "Device", "thermo-1", json!({}));
    device.metadata.finalizers = Some(vec!["drover.dev/registry".into()]);
    device.metadata.generation = Some(generation);
    device
}

/// The same, being deleted since `ms` (milliseconds since the Unix epoch) by the API server's clock.
fn going(mut object: Value, ms: u64) -> Value {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
    object["metadata"]["deletionTimestamp"] = json!(time.to_string());
    object
}

fn parsed<K: serde::de::DeserializeOwned>(object: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(object).unwrap())
}

/// A Policy of a newer CRD: it has an effect that this operator does not know.
fn newer() -> Value {
    let statement = json!({"effect": "audit", "actions": ["publish"], "resources": ["a/#"]});
    json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Policy", "spec": {"statements": [statement]},
        "metadata": {
            "name": "future", "namespace": "home", "uid": "uid-future", "generation": 3,
            "finalizers": ["drover.dev/registry"],
        },
    })
}

/// The finalizers that were taken away.
fn removed(calls: &[Call], path: &str) -> usize {
    calls.iter().filter(|call| call.path == path && call.body[1]["op"] == "remove").count()
}

#[tokio::test]
async fn what_goes_waits_for_a_registry_that_is_away_by_the_operators_own_clock() {
    let stage = Stage::new();
    let away = ApiError::new(ErrorCode::Unavailable, "the registry cannot be reached");
    *stage.platform.refusal.lock().unwrap() = Some(away);
    stage.cluster.answers(Method::PATCH, DEVICE, 200, serde_json::to_value(device(1)).unwrap());
    // The API server's clock is half an hour late: by it the device has been going for so long.
    let device: Arc<Device> = parsed(going(serde_json::to_value(device(1)).unwrap(), NOW_MS - 1_800_000));
    reconcile(device.clone(), stage.context.clone()).await.expect_err("it waits");
    stage.clock.advance(599_999);
    reconcile(device.clone(), stage.context.clone()).await.expect_err("it waits");
    assert_eq!(removed(&stage.cluster.calls(), DEVICE), 0);
    stage.clock.advance(1);
    reconcile(device, stage.context.clone()).await.expect("ten minutes are enough");
    assert_eq!(removed(&stage.cluster.calls(), DEVICE), 1);
}

#[tokio::test]
async fn an_operator_that_is_restarted_again_and_again_lets_go_after_six_times_its_patience() {
    let away = ApiError::new(ErrorCode::Unavailable, "the registry cannot be reached");
    let device: Arc<Device> = parsed(going(serde_json::to_value(device(1)).unwrap(), NOW_MS));
    for (passed_ms, expected) in [(0, 0), (599_999, 0), (3_599_999, 0), (3_600_000, 1)] {
        let stage = Stage::new();
        *stage.platform.refusal.lock().unwrap() = Some(away.clone());
        stage.cluster.answers(Method::PATCH, DEVICE, 200, serde_json::to_value(&*device).unwrap());
        stage.clock.advance(passed_ms);
        let turn = reconcile(device.clone(), stage.context.clone()).await;
        assert_eq!((turn.is_ok(), removed(&stage.cluster.calls(), DEVICE)), (expected == 1, expected), "{passed_ms}");
    }
}

#[tokio::test]
async fn what_is_new_while_the_registry_is_away_is_told_so_once_and_keeps_what_else_is_known() {
    let stage = Stage::new();
    stage.cluster.answers(Method::PATCH, &format!("{DEVICE}/status"), 200, serde_json::to_value(device(1)).unwrap());
    let (writes, _) = stage.turn(&device(1)).await;
    let accepted = with_status(&device(1), &writes);
    let away = ApiError::new(ErrorCode::Unavailable, "the registry cannot be reached");
    *stage.platform.refusal.lock().unwrap() = Some(away);
    reconcile(Arc::new(accepted.clone()), stage.context.clone()).await.expect_err("away");
    assert!(stage.cluster.writes().0.is_empty(), "nothing is new of it");

    let mut changed = accepted;
    changed.metadata.generation = Some(2);
    reconcile(Arc::new(changed.clone()), stage.context.clone()).await.expect_err("away");
    let (writes, events) = stage.cluster.writes();
    let unknown = status(&writes).expect("written");
    assert_eq!(condition(&unknown, "Accepted"), pair("Unknown", "Unavailable"));
    assert_eq!(message(&unknown, "Accepted"), "the registry cannot be reached; it is tried again");
    assert_eq!(condition(&unknown, "Connected"), pair("False", "NeverSeen"));
    assert_eq!((unknown["phase"].as_str(), unknown["observedGeneration"].as_i64()), (Some("NeverSeen"), Some(1)));
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Unavailable")));
    let told = with_status(&changed, &writes);
    reconcile(Arc::new(told), stage.context.clone()).await.expect_err("away");
    assert!(stage.cluster.writes().0.is_empty(), "once is enough");
}

#[tokio::test]
async fn an_object_of_a_newer_crd_is_told_to_wait_for_a_newer_operator() {
    let stage = Stage::new();
    stage.cluster.answers(Method::GET, POLICY, 200, newer());
    stage.cluster.answers(Method::PATCH, &format!("{POLICY}/status"), 200, newer());
    let policy: Arc<DeserializeGuard<Policy>> = parsed(newer());
    for _ in 0..2 {
        let next = read(policy.clone(), stage.context.clone()).await.expect("told");
        assert_eq!(next, Action::await_change());
    }
    let (writes, _) = stage.cluster.writes();
    assert_eq!(writes.len(), 1, "once a generation: {writes:?}");
    let refused = status(&writes).expect("written");
    assert_eq!(condition(&refused, "Accepted"), pair("False", "Unreadable"));
    let told = message(&refused, "Accepted");
    assert!(told.contains("Unknown variant audit") && told.contains("use one that is as new as the CRD"), "{told}");
    assert!(stage.platform.calls().is_empty());
}

#[tokio::test]
async fn what_is_known_of_an_object_that_cannot_be_read_stays_and_is_written_once_by_the_rate_of_all() {
    let other = json!({
        "type": "Connected", "status": "True", "reason": "Connected", "message": "m",
        "lastTransitionTime": "2023-01-01T00:00:00Z",
    });
    let mut known = newer();
    known["status"] = json!({"phase": "Connected", "conditions": [other]});
    let stage = Stage::new();
    stage.cluster.answers(Method::GET, POLICY, 200, known.clone());
    stage.cluster.answers(Method::PATCH, &format!("{POLICY}/status"), 200, newer());
    while stage.context.may_write() {}
    let policy: Arc<DeserializeGuard<Policy>> = parsed(newer());
    let next = read(policy.clone(), stage.context.clone()).await.expect("later");
    assert_eq!(next, Action::requeue(Duration::from_secs(5)));
    assert!(stage.cluster.writes().0.is_empty(), "the rate of all is used up");
    stage.clock.advance(5_000);
    read(policy.clone(), stage.context.clone()).await.expect("told");
    let told = status(&stage.cluster.writes().0).expect("written");
    assert_eq!(condition(&told, "Accepted"), pair("False", "Unreadable"));
    assert_eq!((condition(&told, "Connected"), &told["phase"]), (pair("True", "Connected"), &json!("Connected")));

    // Another process finds it said.
    known["status"] = told;
    let another = Stage::new();
    another.cluster.answers(Method::GET, POLICY, 200, known);
    let next = read(policy, another.context.clone()).await.expect("told");
    assert_eq!((next, another.cluster.writes().0.len()), (Action::await_change(), 0));
}

#[tokio::test]
async fn an_object_of_a_newer_crd_hangs_no_namespace() {
    let stage = Stage::new();
    stage.cluster.answers(Method::PATCH, POLICY, 200, newer());
    let policy: Arc<DeserializeGuard<Policy>> = parsed(going(newer(), NOW_MS));
    let failure = read(policy.clone(), stage.context.clone()).await.expect_err("it waits");
    assert_eq!(failure.to_string(), "this operator is too old to read the object");
    stage.clock.advance(600_000);
    read(policy, stage.context.clone()).await.expect("let go");
    assert_eq!(removed(&stage.cluster.calls(), POLICY), 1);
}
