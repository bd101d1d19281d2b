//! Device groups, and devices by what is said of them.

use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::device_groups_client::DeviceGroupsClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Device, DeviceGroup, LabelOperator, LabelRequirement, LabelSelector, Meta};
use drover_registry::CHANGES_TOPIC;
use drover_types::{ApiError, ErrorCode};

use crate::stage::{Stage, device, until};

fn client(stage: &Stage) -> DeviceGroupsClient<grpc::Client> {
    DeviceGroupsClient::new(stage.network.client("registry"))
}

fn labels(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A group of the devices with these labels.
fn group(tenant: &str, name: &str, selector: &str, parent: &str) -> DeviceGroup {
    let meta = Meta { tenant: tenant.into(), name: name.into(), ..Meta::default() };
    let selector = LabelSelector { match_labels: labels(selector).collect(), match_expressions: Vec::new() };
    DeviceGroup { meta: Some(meta), selector: Some(selector), parent: parent.into(), ..Default::default() }
}

async fn put(stage: &Stage, group: DeviceGroup) -> Result<DeviceGroup, ApiError> {
    let answer = client(stage).put_device_group(PutDeviceGroupRequest { device_group: Some(group) }).await;
    Ok(answer.map_err(|status| from_status(&status))?.into_inner().device_group.expect("a group"))
}

async fn get(stage: &Stage, tenant: &str, name: &str) -> Result<DeviceGroup, ErrorCode> {
    let request = GetDeviceGroupRequest { tenant: tenant.into(), name: name.into() };
    let answer = client(stage).get_device_group(request).await.map_err(|status| from_status(&status).code)?;
    Ok(answer.into_inner().device_group.expect("a group"))
}

async fn delete(stage: &Stage, tenant: &str, name: &str) -> Result<(), ApiError> {
    let request = DeleteDeviceGroupRequest { tenant: tenant.into(), name: name.into() };
    client(stage).delete_device_group(request).await.map(drop).map_err(|status| from_status(&status))
}

/// Registers devices: name, type, labels.
async fn register(stage: &Stage, tenant: &str, devices: &[(&str, &str, &str)]) {
    for (name, device_type, of) in devices {
        let meta =
            Meta { tenant: tenant.into(), name: (*name).into(), labels: labels(of).collect(), ..Meta::default() };
        let device = Device { meta: Some(meta), r#type: (*device_type).into(), ..device(name) };
        stage.client.clone().create_device(CreateDeviceRequest { device: Some(device) }).await.expect("registered");
    }
}

async fn page(stage: &Stage, request: ListDevicesRequest) -> Result<(Vec<String>, String), ApiError> {
    let answer = stage.client.clone().list_devices(request).await.map_err(|status| from_status(&status))?.into_inner();
    let names = answer.devices.into_iter().filter_map(|known| Some(known.device?.meta?.name)).collect();
    Ok((names, answer.next_page_token))
}

async fn members(stage: &Stage, tenant: &str, group: &str) -> Result<Vec<String>, ApiError> {
    let request = ListDevicesRequest { tenant: tenant.into(), group: group.into(), ..Default::default() };
    page(stage, request).await.map(|(names, _)| names)
}

const HOUSE: [(&str, &str, &str); 5] = [
    ("a-hall-lamp", "lamp", "room=hall floor=1"),
    ("b-hall-fan", "fan", "room=hall floor=1"),
    ("c-attic-lamp", "lamp", "room=attic floor=3 old=yes"),
    ("d-cellar", "", "room=cellar"),
    ("e-bare", "lamp", ""),
];

#[tokio::test]
async fn devices_are_chosen_by_labels_and_by_type() {
    let stage = Stage::new().await;
    register(&stage, "home", &HOUSE).await;
    register(&stage, "away", &[("z", "lamp", "room=hall")]).await;
    let chosen = async |selector: &str, device_type: &str| {
        let (label_selector, r#type) = (selector.to_owned(), device_type.to_owned());
        let request = ListDevicesRequest { tenant: "home".into(), label_selector, r#type, ..Default::default() };
        let (names, next) = page(&stage, request).await.expect(selector);
        assert_eq!(next, "");
        names.iter().map(|name| name[..1].to_owned()).collect::<String>()
    };
    for (selector, device_type, expected) in [
        ("", "", "abcde"),
        ("room=hall", "", "ab"),
        ("room=hall", "lamp", "a"),
        ("", "lamp", "ace"),
        ("", "oven", ""),
        ("floor!=1", "", "cde"),
        ("room in (attic,cellar)", "", "cd"),
        ("room notin (attic,cellar)", "lamp", "ae"),
        ("floor,!old", "", "ab"),
        ("!room", "", "e"),
    ] {
        assert_eq!(chosen(selector, device_type).await, expected, "{selector} {device_type}");
    }
    let request = ListDevicesRequest { label_selector: "room>1".into(), ..Default::default() };
    let refused = page(&stage, request).await.expect_err("no selector");
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some("labelSelector")));
}

#[tokio::test]
async fn pages_of_chosen_devices_follow_each_other_without_gaps_or_repeats() {
    let stage = Stage::new().await;
    let names: Vec<String> = (0..30).map(|i| format!("d{i:02}")).collect();
    for (i, name) in names.iter().enumerate() {
        register(&stage, "home", &[(name, "", if i % 3 == 0 { "third=yes" } else { "" })]).await;
    }
    let (mut found, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let (tenant, label_selector) = ("home".to_owned(), "third".to_owned());
        let request = ListDevicesRequest { tenant, page_size: 4, page_token, label_selector, ..Default::default() };
        let (names, next) = page(&stage, request).await.expect("a page");
        sizes.push(names.len());
        found.extend(names);
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, names.iter().step_by(3).cloned().collect::<Vec<_>>());
    assert_eq!(sizes, [4, 4, 2]);
}

#[tokio::test]
async fn a_call_looks_at_ten_thousand_devices_and_the_next_goes_on_behind_them() {
    let stage = Stage::new().await;
    let meta = |i: usize| {
        let of = if i == 10_000 { "rare=yes" } else { "" };
        Some(Meta { name: format!("d{i:05}"), labels: labels(of).collect(), ..Meta::default() })
    };
    let all: Vec<Device> = (0..=10_000).map(|i| Device { meta: meta(i), ..device("d") }).collect();
    for devices in all.chunks(500) {
        let request = PutDevicesRequest { tenant: String::new(), devices: devices.to_vec() };
        let put = stage.client.clone().put_devices(request).await.expect("written").into_inner();
        assert_eq!(put.refusals, []);
    }
    let request = ListDevicesRequest { label_selector: "rare".into(), ..Default::default() };
    assert_eq!(page(&stage, request.clone()).await, Ok((Vec::new(), "d09999".to_owned())));
    let next = ListDevicesRequest { page_token: "d09999".into(), ..request };
    assert_eq!(page(&stage, next).await, Ok((vec!["d10000".to_owned()], String::new())));
}

#[tokio::test]
async fn a_group_has_the_devices_that_it_and_all_around_it_select() {
    let stage = Stage::new().await;
    register(&stage, "home", &HOUSE).await;
    put(&stage, group("home", "house", "", "")).await.expect("kept");
    put(&stage, group("home", "downstairs", "floor=1", "house")).await.expect("kept");
    put(&stage, group("home", "hall", "room=hall", "downstairs")).await.expect("kept");
    let lit = DeviceGroup { types: vec!["lamp".into(), "torch".into()], ..group("home", "lit", "", "hall") };
    put(&stage, lit).await.expect("kept");
    let requirement = LabelRequirement { key: "room".into(), operator: LabelOperator::Exists.into(), values: vec![] };
    let selector = LabelSelector { match_expressions: vec![requirement], ..Default::default() };
    put(&stage, DeviceGroup { selector: Some(selector), ..group("home", "roomy", "", "") }).await.expect("kept");
    let first = async |group: &str| {
        let names = members(&stage, "home", group).await.expect(group);
        names.iter().map(|name| name[..1].to_owned()).collect::<String>()
    };
    for (group, expected) in [("house", "abcde"), ("downstairs", "ab"), ("hall", "ab"), ("lit", "a"), ("roomy", "abcd")]
    {
        assert_eq!(first(group).await, expected, "{group}");
    }
    put(&stage, group("home", "downstairs", "floor=3", "house")).await.expect("kept");
    assert_eq!(first("hall").await, "", "no device is on floor 3 and in the hall");
    assert_eq!(members(&stage, "home", "none").await.expect_err("no such group").code, ErrorCode::NotFound);
    let (tenant, label_selector, r#type) = ("home".into(), "room!=cellar".into(), "lamp".into());
    let both = ListDevicesRequest { tenant, label_selector, r#type, group: "roomy".into(), ..Default::default() };
    assert_eq!(page(&stage, both).await.expect("chosen").0, ["a-hall-lamp", "c-attic-lamp"], "all of it has to hold");
}

#[tokio::test]
async fn a_group_is_never_within_itself_nor_within_what_is_not_there_nor_too_deep() {
    let stage = Stage::new().await;
    for level in 0..8 {
        let parent = if level == 0 { String::new() } else { format!("g{}", level - 1) };
        put(&stage, group("", &format!("g{level}"), "", &parent)).await.expect("within the limit");
    }
    for (name, parent, value) in [("g8", "g7", "9"), ("g0", "g0", "g0"), ("g0", "g3", "g3"), ("new", "none", "none")] {
        let refused = put(&stage, group("", name, "", parent)).await.expect_err(parent);
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some("spec.parent")));
        assert_eq!(refused.value.as_deref(), Some(value), "{name} in {parent}");
    }
    put(&stage, group("", "top", "", "")).await.expect("kept");
    let refused = put(&stage, group("", "g0", "", "top")).await.expect_err("what is within it counts");
    assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("8"), Some("9")));
    assert_eq!(members(&stage, "", "g7").await, Ok(vec![]));
}

#[tokio::test]
async fn a_group_goes_only_when_no_other_is_within_it() {
    let mut stage = Stage::new().await;
    put(&stage, group("", "house", "", "")).await.expect("kept");
    put(&stage, group("", "hall", "room=hall", "house")).await.expect("kept");
    let refused = delete(&stage, "", "house").await.expect_err("hall is within it");
    assert_eq!((refused.code, refused.value.as_deref()), (ErrorCode::FailedPrecondition, Some("hall")));
    assert!(refused.message.contains("group hall is within house"), "{}", refused.message);
    stage.restart().await;
    assert_eq!(get(&stage, "", "hall").await.map(|group| group.parent), Ok("house".to_owned()));
    delete(&stage, "", "hall").await.expect("deleted");
    delete(&stage, "", "house").await.expect("nothing is within it any more");
    assert_eq!(delete(&stage, "", "house").await.expect_err("gone").code, ErrorCode::NotFound);
    let key = b"device_group/default/house".as_slice();
    until(async || {
        let records = stage.records(CHANGES_TOPIC).await;
        records.iter().filter(|stored| stored.record.key.as_deref() == Some(key)).count() >= 3
    })
    .await;
}

#[tokio::test]
async fn groups_are_one_tenants_and_their_number_is_bounded() {
    let stage = Stage::new().await;
    for number in 0..1_000 {
        put(&stage, group("home", &format!("g-{number:03}"), "", "")).await.expect("within the limit");
    }
    let full = put(&stage, group("home", "one-more", "", "")).await.expect_err("one more");
    assert_eq!((full.code, full.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("1000")));
    put(&stage, group("home", "g-000", "", "g-999")).await.expect("replaced");

    register(&stage, "home", &HOUSE).await;
    let foreign = put(&stage, group("away", "hall", "", "g-000")).await.expect_err("P9");
    assert_eq!(foreign.message, "group g-000 does not exist", "P9");
    put(&stage, group("away", "all", "", "")).await.expect("another tenant has room of its own");
    assert_eq!(members(&stage, "away", "all").await, Ok(vec![]), "P9");
    assert_eq!(members(&stage, "away", "g-000").await.expect_err("P9").code, ErrorCode::NotFound);
    assert_eq!(get(&stage, "away", "g-000").await.map(drop), Err(ErrorCode::NotFound), "P9");
    assert_eq!(delete(&stage, "away", "g-000").await.expect_err("P9").code, ErrorCode::NotFound);
    let request = ListDeviceGroupsRequest { tenant: "away".into(), ..Default::default() };
    let listed = client(&stage).list_device_groups(request).await.expect("listed").into_inner();
    assert_eq!(listed.device_groups.len(), 1, "P9");
}

#[tokio::test]
async fn a_group_that_cannot_be_is_refused_by_its_field() {
    let stage = Stage::new().await;
    let requirement = LabelRequirement { key: "k".into(), operator: LabelOperator::In.into(), values: vec![] };
    let selector = LabelSelector { match_expressions: vec![requirement], ..Default::default() };
    let no_values = DeviceGroup { selector: Some(selector), ..group("", "g", "", "") };
    for (refusal, field) in [
        (group("", "G", "", ""), "metadata.name"),
        (group("", "g", "", "G"), "spec.parent"),
        (no_values, "spec.selector.matchExpressions[0].values"),
        (DeviceGroup { types: vec!["a b".into()], ..group("", "g", "", "") }, "spec.types"),
    ] {
        let refused = put(&stage, refusal).await.expect_err(field);
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
}
