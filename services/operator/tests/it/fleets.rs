//! Turns of fleets.

use std::time::Duration;

use axum::http::Method;
use drover_operator::OperatorConfig;
use drover_operator::controller::Kind as _;
use drover_operator::crd::DeviceFleet;
use drover_operator::ports::{Registry as _, Wanted};
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, ErrorCode, TenantId};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::stage::{NOW_MS, Stage, condition, message, object, pair, status, with_status};

fn fleet(source: Value) -> DeviceFleet {
    object("drover.dev/v1alpha1", "DeviceFleet", "sensors", json!({"source": source}))
}

fn counted(devices: u64) -> DeviceFleet {
    fleet(json!({"count": {"devices": devices, "prefix": "s-", "digits": 4}}))
}

#[tokio::test]
async fn a_fleet_is_registered_by_bulk_calls_and_only_its_status_is_written() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&counted(1_200)).await;
    assert_eq!(writes.len(), 1, "no object of the cluster but the fleet");
    let status = status(&writes).expect("written");
    assert_eq!((status["declared"].as_i64(), status["registered"].as_i64()), (Some(1_200), Some(1_200)));
    assert_eq!(condition(&status, "Ready"), pair("True", "Registered"));
    let calls = stage.platform.calls();
    assert_eq!(calls.iter().filter(|call| *call == "put_devices").count(), 3);
    assert_eq!(stage.platform.devices.lock().unwrap()["s-0001"].object.owner, "kubernetes/fleets/sensors");
}

#[tokio::test]
async fn a_fleet_that_is_all_there_is_read_and_nothing_written() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&counted(7)).await;
    let known = with_status(&counted(7), &writes);
    stage.platform.calls();
    stage.clock.advance(600_000);
    assert!(stage.turn(&known).await.0.is_empty());
    assert_eq!(stage.platform.calls(), ["devices", "devices", "devices"], "three of a page");
}

#[tokio::test]
async fn a_smaller_fleet_loses_its_last_devices_and_a_deleted_one_all_but_those_of_others() {
    let stage = Stage::new();
    stage.turn(&counted(7)).await;
    stage.platform.change("s-0007", |found| found.object.owner = "kubernetes".into());
    let (writes, _) = stage.turn(&counted(5)).await;
    assert_eq!(status(&writes).expect("written")["registered"], 5);
    let left = |stage: &Stage| stage.platform.devices.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(left(&stage), ["s-0001", "s-0002", "s-0003", "s-0004", "s-0005", "s-0007"]);
    counted(5).cleanup(&stage.context).await.expect("nothing is away");
    assert_eq!(left(&stage), ["s-0007"]);
}

#[tokio::test]
async fn a_deleted_fleet_waits_for_devices_that_cannot_be_deleted_now() {
    let stage = Stage::new();
    stage.turn(&counted(7)).await;
    stage.platform.held.lock().unwrap().push("s-0002".into());
    let failure = counted(7).cleanup(&stage.context).await.expect_err("one is left");
    assert_eq!(failure.to_string(), "the store does not answer");
    assert_eq!(stage.platform.devices.lock().unwrap().keys().cloned().collect::<Vec<_>>(), ["s-0002"]);
    stage.platform.held.lock().unwrap().clear();
    counted(7).cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.devices.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_changed_elsewhere_is_set_back_and_told() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&counted(4)).await;
    let known = with_status(&counted(4), &writes);
    stage.platform.change("s-0002", |found| found.object.spec.enabled = false);
    let (_, events) = stage.turn(&known).await;
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Drift")));
    assert!(stage.platform.devices.lock().unwrap()["s-0002"].object.spec.enabled);
}

#[tokio::test]
async fn devices_that_are_refused_are_counted_and_the_first_are_told() {
    let stage = Stage::new();
    stage.turn(&counted(2)).await;
    stage.platform.change("s-0001", |found| found.object.owner = String::new());
    let (writes, _) = stage.turn(&fleet(json!({"names": ["s-0001", "good", "not good"]}))).await;
    let status = status(&writes).expect("written");
    assert_eq!(condition(&status, "Ready"), pair("False", "DevicesFailed"));
    assert_eq!((status["registered"].as_i64(), status["failed"].as_i64()), (Some(1), Some(2)));
    assert_eq!(status["firstErrors"][0]["device"], "s-0001");
    assert_eq!(status["firstErrors"][1]["message"], "metadata.name: device id contains ' '");
}

#[tokio::test]
async fn devices_whose_shadows_want_what_is_not_reported_are_not_converged() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&counted(7)).await;
    assert_eq!(status(&writes).expect("written")["converged"], 7);
    let known = with_status(&counted(7), &writes);
    let open = ["s-0006", "other", "s-0002", "s-0008", "s-0003", "s-0007", "t-0001"];
    *stage.platform.open.lock().unwrap() = open.map(String::from).to_vec();
    stage.platform.change("s-0007", |found| found.object.owner = "kubernetes".into());
    let (writes, _) = stage.turn(&known).await;
    let told = status(&writes).expect("written");
    assert_eq!((told["registered"].as_i64(), told["converged"].as_i64()), (Some(6), Some(3)));
    *stage.platform.open_unknown.lock().unwrap() = Some(ApiError::new(ErrorCode::Unavailable, "behind"));
    let (writes, _) = stage.turn(&with_status(&known, &writes)).await;
    let told = status(&writes).expect("written");
    assert_eq!((told["registered"].as_i64(), told.get("converged")), (Some(6), None));
}

#[tokio::test]
async fn ten_million_by_typo_are_refused_before_anything_is_written() {
    let stage = Stage::with(OperatorConfig { fleet_devices_max: 9_999, ..OperatorConfig::default() });
    let (writes, _) = stage.turn(&fleet(json!({"count": {"devices": 10_000_000, "prefix": "s-", "digits": 9}}))).await;
    let status = status(&writes).expect("written");
    assert_eq!(condition(&status, "Accepted"), pair("False", "Invalid"));
    let told = message(&status, "Accepted");
    assert!(told.contains("operator.fleet_devices_max") && told.contains("(limit 9999, found 10000000)"), "{told}");
    assert!(stage.platform.calls().is_empty());
}

#[tokio::test]
async fn a_table_comes_from_a_config_map_which_may_be_missing_or_wrong() {
    let stage = Stage::new();
    let fleet = fleet(json!({"csv": {"configMap": "table", "key": "devices.csv"}}));
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "ConfigMapMissing"));
    let table = |text: &str| {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": {"devices.csv": text},
        });
        stage.cluster.answers(Method::GET, "/api/v1/namespaces/home/configmaps/table", 200, object);
    };
    table("name,labels\na,room\n");
    let (writes, _) = stage.turn(&fleet).await;
    let refused = status(&writes).expect("written");
    assert!(message(&refused, "Accepted").contains("line 2"), "{refused}");
    table("name,labels\na,room=kitchen\nb,\n");
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(status(&writes).expect("written")["registered"], 2);
    assert_eq!(stage.platform.devices.lock().unwrap()["a"].object.labels["room"], "kitchen");
    table("name,labels\n");
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "Invalid"));
    assert_eq!(stage.platform.devices.lock().unwrap().len(), 2, "an emptied table deletes none");
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn of_authority(template: Value) -> DeviceFleet {
    let source = json!({"certificateAuthority": {"secretName": "works-ca"}});
    object("drover.dev/v1alpha1", "DeviceFleet", "sensors", json!({"source": source, "template": template}))
}

fn secret(stage: &Stage, text: &str) {
    let data = json!({"ca.crt": ByteString(text.as_bytes().to_vec())});
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "works-ca"}, "data": data});
    stage.cluster.answers(Method::GET, "/api/v1/namespaces/home/secrets/works-ca", 200, object);
}

/// The registry registers a device for whoever keeps the authority.
async fn registered(stage: &Stage, name: &str, owner: &str) {
    let (labels, spec) = (Default::default(), DeviceSpec::default());
    let tenant = TenantId::new("home").expect("valid");
    let wanted = Wanted { tenant, name: name.to_owned(), labels, spec, owner: owner.to_owned() };
    stage.platform.put_device(&wanted, 0).await.expect("new");
}

#[tokio::test]
async fn a_fleet_of_an_authority_registers_that_and_counts_the_devices_it_has_brought() {
    let stage = Stage::new();
    let fleet = of_authority(json!({"labels": {"site": "north"}, "type": "lamp"}));
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "SecretMissing"));
    secret(&stage, "nonsense");
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "Invalid"));

    secret(&stage, CERTIFICATE);
    let (writes, _) = stage.turn(&fleet).await;
    let first = status(&writes).expect("written");
    assert_eq!(condition(&first, "Ready"), pair("True", "Registering"));
    assert_eq!((first["registered"].as_i64(), first.get("declared")), (Some(0), None));
    let authority = stage.platform.authorities.lock().unwrap()["sensors"].clone();
    assert_eq!(
        (authority.spec.certificate.as_str(), authority.owner.as_str()),
        (CERTIFICATE, "kubernetes/fleets/sensors")
    );
    assert_eq!(authority.spec.labels["site"], "north");
    assert_eq!(authority.spec.template.device_type.as_deref(), Some("lamp"));

    for name in ["a", "b", "c", "d"] {
        registered(&stage, name, "kubernetes/fleets/sensors").await;
    }
    registered(&stage, "other", "").await;
    stage.platform.change("b", |found| found.presence.connected = true);
    let (writes, _) = stage.turn(&with_status(&fleet, &writes)).await;
    let second = status(&writes).expect("written");
    assert_eq!((second["registered"].as_i64(), second["connected"].as_i64()), (Some(4), Some(1)));
}

#[tokio::test]
async fn devices_of_an_authority_whose_shadows_want_what_is_not_reported_are_not_converged() {
    let stage = Stage::with(OperatorConfig { fleet_devices_max: 3, ..OperatorConfig::default() });
    secret(&stage, CERTIFICATE);
    let fleet = of_authority(json!({}));
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(status(&writes).expect("written")["converged"], 0);
    for name in ["a", "b", "c"] {
        registered(&stage, name, "kubernetes/fleets/sensors").await;
    }
    let converged = async |open: &[&str], known: &DeviceFleet| {
        *stage.platform.open.lock().unwrap() = open.iter().map(|name| (*name).to_owned()).collect();
        let (writes, _) = stage.turn(known).await;
        with_status(known, &writes).status.expect("written").converged
    };
    assert_eq!(converged(&["b", "other"], &fleet).await, Some(2));
    // More names than a fleet may have devices are not kept in mind.
    let many = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(converged(&many, &fleet).await, None);
    *stage.platform.open_unknown.lock().unwrap() = Some(ApiError::new(ErrorCode::Unavailable, "behind"));
    assert_eq!(converged(&[], &fleet).await, None);
}

#[tokio::test]
async fn an_authority_that_has_ended_is_told() {
    let stage = Stage::new();
    let mut params = rcgen::CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(NOW_MS + 3_600_000);
    let key = rcgen::KeyPair::generate().expect("a key");
    secret(&stage, &params.self_signed(&key).expect("signed").pem());
    let fleet = of_authority(json!({}));
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Ready"), pair("True", "Registering"));
    stage.clock.advance(3_601_000);
    let (writes, events) = stage.turn(&with_status(&fleet, &writes)).await;
    let told = status(&writes).expect("written");
    assert_eq!(condition(&told, "Accepted"), pair("True", "Registered"));
    assert_eq!((condition(&told, "Ready"), events.len()), (pair("False", "AuthorityEnded"), 1));
}

#[tokio::test]
async fn a_deleted_fleet_takes_its_authority_away_before_its_devices_and_leaves_those_of_others() {
    let stage = Stage::new();
    secret(&stage, CERTIFICATE);
    let fleet = of_authority(json!({}));
    stage.turn(&fleet).await;
    registered(&stage, "a", "kubernetes/fleets/sensors").await;
    registered(&stage, "other", "").await;
    stage.platform.calls();
    fleet.cleanup(&stage.context).await.expect("nothing is away");
    let calls = stage.platform.calls();
    let place = |call: &str| calls.iter().position(|seen| seen == call).expect("called");
    assert!(place("delete_certificate_authority") < place("devices"), "{calls:?}");
    assert!(stage.platform.authorities.lock().unwrap().is_empty());
    assert_eq!(stage.platform.devices.lock().unwrap().keys().cloned().collect::<Vec<_>>(), ["other"]);

    stage.turn(&fleet).await;
    stage.platform.authorities.lock().unwrap().get_mut("sensors").expect("there").owner = String::new();
    let (writes, _) = stage.turn(&fleet).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "NotOurs"));
    fleet.cleanup(&stage.context).await.expect("nothing is away");
    assert_eq!(stage.platform.authorities.lock().unwrap().len(), 1, "it is another's now");
}
