//! Objects that somebody keeps as they are, and many devices in one call.

use drover_proto::from_status;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Device, Meta};
use drover_types::ErrorCode;

use crate::stage::{Stage, device};

fn owned(name: &str, owner: &str, revision: u64) -> Device {
    let meta = Meta { name: name.into(), owner: owner.into(), revision, ..Meta::default() };
    Device { meta: Some(meta), ..device(name) }
}

fn update(device: Device) -> UpdateDeviceRequest {
    UpdateDeviceRequest { device: Some(device) }
}

async fn owner_of(stage: &Stage, name: &str) -> String {
    let request = GetDeviceRequest { tenant: String::new(), name: name.into() };
    let found = stage.client.clone().get_device(request).await.expect("there").into_inner();
    found.device.and_then(|device| device.meta).expect("meta").owner
}

#[tokio::test]
async fn an_owner_stays_through_writes_that_name_none_and_gives_way_only_to_who_names_the_revision() {
    let mut stage = Stage::new().await;
    let mut client = stage.client.clone();
    let created = client.create_device(CreateDeviceRequest { device: Some(owned("d", "kubernetes", 0)) }).await;
    let revision = created.expect("created").into_inner().device.and_then(|d| d.meta).expect("meta").revision;
    let foreign = from_status(&client.update_device(update(owned("d", "another", 0))).await.expect_err("not its own"));
    assert_eq!((foreign.code, foreign.field.as_deref()), (ErrorCode::FailedPrecondition, Some("metadata.owner")));
    assert_eq!((foreign.limit.as_deref(), foreign.value.as_deref()), (Some("kubernetes"), Some("another")));
    let changed = Device { enabled: false, ..owned("d", "", 0) };
    client.update_device(update(changed)).await.expect("whoever names no owner may change it");
    stage.restart().await;
    assert_eq!(owner_of(&stage, "d").await, "kubernetes");

    let mut client = stage.client.clone();
    let stale = from_status(&client.update_device(update(owned("d", "another", revision))).await.expect_err("stale"));
    assert_eq!(stale.code, ErrorCode::Aborted);
    let request = GetDeviceRequest { tenant: String::new(), name: "d".into() };
    let seen = client.get_device(request).await.expect("there").into_inner();
    let revision = seen.device.and_then(|device| device.meta).expect("meta").revision;
    client.update_device(update(owned("d", "another", revision))).await.expect("it has seen whose it was");
    assert_eq!(owner_of(&stage, "d").await, "another");
}

#[tokio::test]
async fn credentials_say_who_takes_care_of_them() {
    let mut stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    for owner in ["", "kubernetes"] {
        let request = IssueTokenRequest { device: "d".into(), owner: owner.into(), ..Default::default() };
        stage.client.issue_token(request).await.expect("issued");
    }
    stage.restart().await;
    let request = ListCredentialsRequest { tenant: String::new(), device: "d".into() };
    let listed = stage.client.list_credentials(request).await.expect("listed").into_inner().credentials;
    let mut owners: Vec<String> = listed.into_iter().map(|credential| credential.owner).collect();
    owners.sort();
    assert_eq!(owners, ["", "kubernetes"]);
}

#[tokio::test]
async fn many_devices_are_written_in_one_call_and_each_refusal_is_told() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    stage.create_device("taken").await.expect("created");
    let names = ["a", "b", "taken", "c d", "e"];
    let devices = names.map(|name| owned(name, "fleet", 0)).to_vec();
    let request = PutDevicesRequest { tenant: String::new(), devices };
    for _ in 0..2 {
        let answer = client.put_devices(request.clone()).await.expect("answered").into_inner();
        let refusals: Vec<_> = answer.refusals.iter().map(|r| (r.name.as_str(), r.code, r.field.as_str())).collect();
        assert_eq!(answer.written, 3);
        assert_eq!(refusals, [("taken", 9, "metadata.owner"), ("c d", 3, "metadata.name")]);
    }
    let names = ["a", "taken", "nobody"].map(String::from).to_vec();
    let request = DeleteDevicesRequest { tenant: String::new(), owner: "fleet".into(), names };
    let answer = client.delete_devices(request.clone()).await.expect("answered").into_inner();
    assert_eq!((answer.deleted, answer.refusals[0].name.as_str(), answer.refusals.len()), (2, "taken", 1));
    let nobodys = DeleteDevicesRequest { owner: String::new(), ..request };
    let refused = from_status(&client.delete_devices(nobodys).await.expect_err("of nobody"));
    assert_eq!(refused.field.as_deref(), Some("owner"));
}

#[tokio::test]
async fn the_devices_of_one_call_are_bounded() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    let devices: Vec<Device> = (0..501).map(|i| device(&format!("d{i}"))).collect();
    let most = PutDevicesRequest { tenant: String::new(), devices: devices[..500].to_vec() };
    assert_eq!(client.put_devices(most).await.expect("at the limit").into_inner().written, 500);
    let over = PutDevicesRequest { tenant: String::new(), devices };
    let refused = from_status(&client.put_devices(over).await.expect_err("one more"));
    assert_eq!((refused.field.as_deref(), refused.limit.as_deref()), (Some("devices"), Some("500")));
}
