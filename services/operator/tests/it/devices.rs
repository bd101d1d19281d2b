//! Turns of devices.

use std::time::Duration;

use axum::http::Method;
use drover_operator::controller::Kind as _;
use drover_operator::crd::Device;
use drover_operator::ports::Presence;
use drover_types::{ApiError, ErrorCode};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::cluster::{Call, refusal};
use crate::stage::{Stage, condition, message, object, pair, status, with_status};

const SECRETS: &str = "/api/v1/namespaces/home/secrets";

fn device(spec: Value) -> Device {
    object("devices.drover.dev/v1alpha1", "Device", "thermo-1", spec)
}

fn with_token() -> Device {
    device(json!({"credentials": [{"token": {"secretName": "t"}}]}))
}

fn with_certificate() -> Device {
    device(json!({"credentials": [{"certificate": {"secretName": "c", "duration": "9h"}}]}))
}

/// From now on the API server has the Secret that was just written.
fn keep(stage: &Stage, writes: &[Call], name: &str) {
    let written = writes.iter().find(|call| call.path.starts_with(SECRETS)).expect("a Secret was written");
    let mut secret = written.body.clone();
    secret["metadata"]["resourceVersion"] = json!("5");
    stage.cluster.answers(Method::GET, &format!("{SECRETS}/{name}"), 200, secret);
}

/// The API server has a Secret `t` of somebody else's, which the first turn of a device comes upon.
async fn not_ours(stage: &Stage) {
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "type": "Opaque"});
    stage.cluster.answers(Method::GET, &format!("{SECRETS}/t"), 200, foreign);
    stage.cluster.answers(Method::POST, SECRETS, 409, refusal(409, "AlreadyExists"));
    with_token().apply(&stage.context).await.expect_err("it cannot be made");
    stage.cluster.calls();
}

#[tokio::test]
async fn a_new_device_costs_one_write_for_its_secret_and_one_for_its_status() {
    let stage = Stage::new();
    let device = with_token();
    let (writes, events) = stage.turn(&device).await;
    assert_eq!(writes.iter().map(|call| &call.method).collect::<Vec<_>>(), [Method::POST, Method::PATCH]);
    assert!(events.is_empty(), "{events:?}");
    let secret = &writes[0].body;
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "uid-thermo-1");
    assert_eq!(secret["metadata"]["annotations"]["drover.dev/credential"], "c1");
    let status = status(&writes).expect("written");
    assert_eq!(condition(&status, "Accepted"), pair("True", "Registered"));
    assert_eq!(condition(&status, "Ready"), pair("True", "Furnished"));
    assert_eq!(condition(&status, "Connected"), pair("False", "NeverSeen"));
    assert_eq!((status["phase"].as_str(), status["observedGeneration"].as_i64()), (Some("NeverSeen"), Some(1)));
    assert_eq!(stage.platform.devices.lock().unwrap()["thermo-1"].object.owner, "kubernetes");
}

#[tokio::test]
async fn a_device_that_is_the_first_of_its_name_is_written_without_a_look() {
    let stage = Stage::new();
    with_token().apply(&stage.context).await.expect("nothing is away");
    let calls: Vec<_> = stage.cluster.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(calls, [Method::POST, Method::PATCH]);
    assert_eq!(stage.platform.calls(), ["device", "put_device", "issue"]);
}

#[tokio::test]
async fn a_device_that_is_as_declared_costs_one_question_to_the_registry() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&with_token()).await;
    keep(&stage, &writes, "t");
    let device = with_status(&with_token(), &writes);
    stage.turn(&device).await;
    stage.platform.calls();
    for _ in 0..3 {
        stage.clock.advance(60_000);
        device.apply(&stage.context).await.expect("nothing is away");
        assert_eq!((stage.platform.calls(), stage.cluster.calls().len()), (vec!["device".to_owned()], 0));
    }
    stage.clock.advance(10 * 60_000);
    assert!(stage.turn(&device).await.0.is_empty(), "all is looked at again, and nothing written");
    assert!(stage.platform.calls().contains(&"credentials".to_owned()));
}

#[tokio::test]
async fn what_was_changed_elsewhere_is_set_back_and_told() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&device(json!({}))).await;
    let device = with_status(&device(json!({})), &writes);
    stage.platform.change("thermo-1", |found| found.object.spec.enabled = false);
    let (writes, events) = stage.turn(&device).await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Drift")));
    assert!(stage.platform.devices.lock().unwrap()["thermo-1"].object.spec.enabled);
    stage.platform.devices.lock().unwrap().clear();
    let (_, events) = stage.turn(&device).await;
    assert_eq!(events.len(), 1, "deleted elsewhere");
    assert!(stage.platform.devices.lock().unwrap().contains_key("thermo-1"));
}

#[tokio::test]
async fn a_device_of_others_is_left_alone_until_it_is_to_be_taken_over() {
    let stage = Stage::new();
    stage.turn(&device(json!({}))).await;
    stage.platform.change("thermo-1", |found| found.object.owner = String::new());
    let (writes, events) = stage.turn(&device(json!({"enabled": false}))).await;
    let refused = status(&writes).expect("written");
    assert_eq!(condition(&refused, "Accepted"), pair("False", "NotOurs"));
    assert_eq!((events.len(), events[0].body["type"].as_str()), (1, Some("Warning")));
    assert!(stage.platform.devices.lock().unwrap()["thermo-1"].object.spec.enabled);
    device(json!({})).cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.devices.lock().unwrap().contains_key("thermo-1"), "it is not the operator's to delete");

    let mut adopting = device(json!({"enabled": false}));
    adopting.metadata.annotations = Some([("drover.dev/adopt".to_owned(), "true".to_owned())].into());
    let (writes, _) = stage.turn(&adopting).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("True", "Registered"));
    assert_eq!(stage.platform.devices.lock().unwrap()["thermo-1"].object.owner, "kubernetes");
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_refused_and_stays_as_it_is() {
    let stage = Stage::new();
    not_ours(&stage).await;
    let (writes, _) = stage.turn(&with_token()).await;
    assert_eq!(writes.len(), 1, "{writes:?}");
    let status = status(&writes).expect("written");
    assert_eq!(condition(&status, "Accepted"), pair("True", "Registered"));
    assert_eq!(condition(&status, "Ready"), pair("False", "SecretNotOurs"));
    assert!(message(&status, "Ready").contains("Secret t "), "{status}");
    assert!(stage.platform.ids().is_empty());
}

#[tokio::test]
async fn a_credential_whose_secret_could_not_be_written_is_revoked_at_once() {
    let stage = Stage::new();
    stage.cluster.answers(Method::POST, SECRETS, 500, refusal(500, "InternalError"));
    for _ in 0..3 {
        with_token().apply(&stage.context).await.expect_err("the API server has failed");
        assert!(stage.platform.ids().is_empty(), "{:?}", stage.platform.ids());
    }
    stage.cluster.answers(Method::POST, SECRETS, 201, json!({"metadata": {"name": "t"}}));
    stage.turn(&with_token()).await;
    assert_eq!(stage.platform.ids(), ["c4"]);
}

#[tokio::test]
async fn a_secret_that_the_api_server_refuses_is_told_and_leaves_no_credential() {
    let stage = Stage::new();
    for code in [403, 422] {
        stage.cluster.answers(Method::POST, SECRETS, code, refusal(code, "exceeded quota: secrets"));
        let (writes, events) = stage.turn(&with_token()).await;
        let status = status(&writes).expect("written");
        assert_eq!(condition(&status, "Accepted"), pair("True", "Registered"));
        assert_eq!(condition(&status, "Ready"), pair("False", "SecretRefused"));
        assert_eq!(
            message(&status, "Ready"),
            "Secret t cannot be written: exceeded quota: secrets; mend that, or choose another secretName"
        );
        assert_eq!(events[0].body["reason"], "SecretRefused");
        assert!(stage.platform.ids().is_empty(), "{:?}", stage.platform.ids());
    }
    stage.cluster.answers(Method::POST, SECRETS, 201, json!({"metadata": {"name": "t"}}));
    let (writes, _) = stage.turn(&with_token()).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Ready"), pair("True", "Furnished"));
}

#[tokio::test]
async fn a_credential_that_cannot_be_replaced_holds_until_it_can() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&with_certificate()).await;
    keep(&stage, &writes, "c");
    let longer = device(json!({"credentials": [{"certificate": {"secretName": "c", "duration": "18h"}}]}));
    let mut longer = with_status(&longer, &writes);
    longer.metadata.generation = Some(2);
    let secret = format!("{SECRETS}/c");
    stage.cluster.answers(Method::PATCH, &secret, 422, refusal(422, "immutable"));
    let (writes, _) = stage.turn(&longer).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Ready"), pair("False", "SecretRefused"));
    assert_eq!(stage.platform.ids(), ["c1"], "the device's only one");
    stage.cluster.answers(Method::PATCH, &secret, 200, json!({"metadata": {"name": "c"}}));
    stage.turn(&longer).await;
    assert_eq!(stage.platform.ids(), ["c3"]);
}

#[tokio::test]
async fn a_name_that_no_secret_has_is_refused_before_anybody_is_asked() {
    let stage = Stage::new();
    let wrong = device(json!({"credentials": [{"token": {"secretName": "../../lab/secrets/t"}}]}));
    let (writes, _) = stage.turn(&wrong).await;
    let refused = status(&writes).expect("written");
    assert!(message(&refused, "Accepted").starts_with("spec.credentials[0].secretName: "), "{refused}");
    assert!(writes.len() == 1 && stage.platform.calls().is_empty(), "{writes:?}");
}

#[tokio::test]
async fn a_certificate_is_renewed_in_its_secret_and_the_former_one_holds() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&with_certificate()).await;
    assert_eq!(writes[0].body["type"], "kubernetes.io/tls");
    keep(&stage, &writes, "c");
    let device = with_status(&with_certificate(), &writes);
    stage.clock.advance(6 * 3_600_000 - 1);
    assert!(stage.turn(&device).await.0.is_empty());
    stage.clock.advance(1);
    let (writes, events) = stage.turn(&device).await;
    assert_eq!((writes.len(), &writes[0].method), (1, &Method::PATCH));
    let annotations = &writes[0].body["metadata"]["annotations"];
    assert_eq!(annotations["drover.dev/previous-credential"], "c1");
    assert_eq!(writes[0].body["metadata"]["resourceVersion"], "5", "nobody else's write is lost");
    assert_eq!(events[0].body["reason"], "Renewed");
    assert_eq!(stage.platform.ids(), ["c1", "c2"]);
}

#[tokio::test]
async fn a_phase_is_written_at_most_once_in_ten_minutes() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&device(json!({}))).await;
    let device = with_status(&device(json!({})), &writes);
    let connected = Presence { ever_seen: true, connected: true, changed_ms: 1_700_000_001_000 };
    stage.platform.change("thermo-1", |found| found.presence = connected);
    stage.clock.advance(9 * 60_000);
    assert!(stage.turn(&device).await.0.is_empty());
    stage.clock.advance(60_000);
    let (writes, _) = stage.turn(&device).await;
    let status = status(&writes).expect("written");
    assert_eq!(
        (status["phase"].as_str(), status["lastSeen"].as_str()),
        (Some("Connected"), Some("2023-11-14T22:13:21Z"))
    );
    assert_eq!(condition(&status, "Connected"), pair("True", "Connected"));
}

#[tokio::test]
async fn phases_of_all_devices_are_written_at_a_bounded_rate() {
    let config = drover_operator::OperatorConfig { status_writes_per_second: 1, ..Default::default() };
    let stage = Stage::with(config);
    let mut written = 0;
    for i in 0..10 {
        let name = format!("d{i}");
        let new: Device = object("devices.drover.dev/v1alpha1", "Device", &name, json!({}));
        let (writes, _) = stage.turn(&new).await;
        let mut known = with_status(&new, &writes);
        known.status.as_mut().expect("a status").observed_time = Some("2023-11-14T00:00:00Z".into());
        let connected = Presence { ever_seen: true, connected: true, changed_ms: 1_700_000_001_000 };
        stage.platform.change(&name, |found| found.presence = connected);
        written += stage.turn(&known).await.0.len();
    }
    assert_eq!(written, 2, "a burst of two seconds; the clock stands still");
}

#[tokio::test]
async fn what_is_wanted_of_its_state_goes_to_the_shadow_as_far_as_it_differs() {
    let stage = Stage::new();
    let device = device(json!({"desired": {"targetTemperature": 21}}));
    let (writes, _) = stage.turn(&device).await;
    assert_eq!(stage.platform.desired.lock().unwrap()["targetTemperature"], 21);
    assert_eq!(status(&writes).expect("written")["shadowVersion"], 2);
    stage.platform.calls();
    stage.clock.advance(11 * 60_000);
    stage.turn(&device).await;
    assert!(!stage.platform.calls().contains(&"update_shadow".to_owned()));
}

#[tokio::test]
async fn a_device_is_refused_by_field_and_what_is_wrong_is_said_once() {
    let stage = Stage::new();
    let certificate = json!({"certificate": {"secretName": "c", "duration": "5m"}});
    let wrong = device(json!({"credentials": [certificate]}));
    let (writes, events) = stage.turn(&wrong).await;
    let refused = status(&writes).expect("written");
    assert_eq!(condition(&refused, "Accepted"), pair("False", "Invalid"));
    assert_eq!(
        message(&refused, "Accepted"),
        "spec.credentials[0].certificate.duration: is too short, in seconds (limit 3600, found 300)"
    );
    assert_eq!(events.len(), 1);
    let (writes, events) = stage.turn(&with_status(&wrong, &writes)).await;
    assert_eq!((writes.len(), events.len()), (0, 0));
}

#[tokio::test]
async fn a_refused_device_is_tried_again_ever_later_and_a_wrong_one_not_at_all() {
    let stage = Stage::new();
    not_ours(&stage).await;
    let (writes, _) = stage.turn(&with_token()).await;
    let mut refused = with_status(&with_token(), &writes);
    let seconds = |seconds| Action::requeue(Duration::from_secs(seconds));
    for expected in [20, 40] {
        assert_eq!(refused.apply(&stage.context).await.expect("nothing is away"), seconds(expected));
    }
    let last = refused.apply(&stage.context).await.expect("nothing is away");
    assert!(last != seconds(80) && last != Action::await_change(), "up to the resync: {last:?}");
    refused.metadata.generation = Some(2);
    stage.turn(&refused).await;
    assert_eq!(refused.apply(&stage.context).await.expect("nothing is away"), seconds(20), "another spec begins anew");
    let certificate = json!({"certificate": {"secretName": "c", "duration": "5m"}});
    let wrong = device(json!({"credentials": [certificate]}));
    let known = with_status(&wrong, &stage.turn(&wrong).await.0);
    assert_eq!(known.apply(&stage.context).await.expect("nothing is away"), Action::await_change());
}

#[tokio::test]
async fn a_registry_that_is_away_is_a_failure_and_writes_nothing_here() {
    let stage = Stage::new();
    *stage.platform.refusal.lock().unwrap() =
        Some(ApiError::new(ErrorCode::Unavailable, "the registry cannot be reached"));
    let failure = with_token().apply(&stage.context).await.expect_err("away");
    assert_eq!(failure.to_string(), "the registry cannot be reached");
    with_token().cleanup(&stage.context).await.expect_err("away");
    assert!(stage.cluster.calls().is_empty());
}

#[tokio::test]
async fn a_deleted_device_goes_with_its_credentials_and_twice_is_no_failure() {
    let stage = Stage::new();
    stage.turn(&with_token()).await;
    for _ in 0..2 {
        with_token().cleanup(&stage.context).await.expect("nothing is away");
    }
    assert!(stage.platform.devices.lock().unwrap().is_empty() && stage.platform.ids().is_empty());
    assert_eq!(stage.platform.calls().iter().filter(|call| *call == "delete_device").count(), 1);
}
