//! Device types: what devices send.

use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::device_types_client::DeviceTypesClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{DeviceType, FieldType, Meta, TypeField};
use drover_registry::CHANGES_TOPIC;
use drover_types::{ApiError, ErrorCode};

use crate::stage::{Stage, until};

fn client(stage: &Stage) -> DeviceTypesClient<grpc::Client> {
    DeviceTypesClient::new(stage.network.client("registry"))
}

fn device_type(tenant: &str, name: &str, unit: &str) -> DeviceType {
    let meta = Meta { tenant: tenant.into(), name: name.into(), ..Meta::default() };
    let field = TypeField { r#type: FieldType::Double.into(), unit: unit.into(), description: String::new() };
    DeviceType { meta: Some(meta), description: "d".into(), fields: [("temperature".to_owned(), field)].into() }
}

async fn put(stage: &Stage, device_type: DeviceType) -> Result<DeviceType, ApiError> {
    let answer = client(stage).put_device_type(PutDeviceTypeRequest { device_type: Some(device_type) }).await;
    let kept = answer.map_err(|status| from_status(&status))?.into_inner();
    Ok(kept.device_type.expect("a type"))
}

async fn get(stage: &Stage, tenant: &str, name: &str) -> Result<DeviceType, ErrorCode> {
    let request = GetDeviceTypeRequest { tenant: tenant.into(), name: name.into() };
    let answer = client(stage).get_device_type(request).await.map_err(|status| from_status(&status).code)?;
    Ok(answer.into_inner().device_type.expect("a type"))
}

async fn names(stage: &Stage, tenant: &str, page_size: u32, page_token: &str) -> (Vec<String>, String) {
    let request = ListDeviceTypesRequest { tenant: tenant.into(), page_size, page_token: page_token.into() };
    let page = client(stage).list_device_types(request).await.expect("listed").into_inner();
    let names = page.device_types.into_iter().filter_map(|device_type| Some(device_type.meta?.name)).collect();
    (names, page.next_page_token)
}

#[tokio::test]
async fn a_type_is_versioned_outlives_a_restart_and_is_told_on_the_feed() {
    let mut stage = Stage::new().await;
    let generation = |kept: &DeviceType| kept.meta.as_ref().expect("meta").generation;
    let first = put(&stage, device_type("", "lamp", "K")).await.expect("kept");
    assert_eq!(generation(&first), 1);
    assert_eq!(put(&stage, device_type("", "lamp", "K")).await, Ok(first), "nothing has changed");
    let second = put(&stage, device_type("", "lamp", "°C")).await.expect("replaced");
    assert_eq!(generation(&second), 2);
    let mut stale = device_type("", "lamp", "F");
    stale.meta.as_mut().expect("meta").revision = 99;
    assert_eq!(put(&stage, stale).await.expect_err("somebody else's").code, ErrorCode::Aborted);

    stage.restart().await;
    assert_eq!(get(&stage, "", "lamp").await, Ok(second));
    let delete = DeleteDeviceTypeRequest { name: "lamp".into(), ..Default::default() };
    client(&stage).delete_device_type(delete.clone()).await.expect("deleted");
    assert_eq!(client(&stage).delete_device_type(delete).await.expect_err("gone").code(), tonic::Code::NotFound);
    assert_eq!(get(&stage, "", "lamp").await, Err(ErrorCode::NotFound));
    // Two writes, the deletion and its tombstone; what a restart interrupts may be sent again.
    let key = b"device_type/default/lamp".as_slice();
    until(async || {
        let records = stage.records(CHANGES_TOPIC).await;
        records.iter().filter(|stored| stored.record.key.as_deref() == Some(key)).count() >= 4
    })
    .await;
}

#[tokio::test]
async fn types_are_one_tenants_and_their_number_is_bounded() {
    let stage = Stage::new().await;
    for number in 0..1_000 {
        put(&stage, device_type("home", &format!("t-{number:03}"), "K")).await.expect("within the limit");
    }
    let full = put(&stage, device_type("home", "one-more", "K")).await.expect_err("one more");
    assert_eq!((full.code, full.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("1000")));
    put(&stage, device_type("home", "t-000", "m")).await.expect("replaced");
    put(&stage, device_type("away", "one-more", "K")).await.expect("another tenant has room of its own");

    assert_eq!(names(&stage, "home", 3, "t-001").await.0, ["t-002", "t-003", "t-004"]);
    assert_eq!(
        names(&stage, "home", 3, "t-996").await,
        (vec!["t-997".into(), "t-998".into(), "t-999".into()], String::new())
    );
    assert_eq!(names(&stage, "away", 0, "").await, (vec!["one-more".to_owned()], String::new()), "P9");
    assert_eq!(get(&stage, "away", "t-000").await, Err(ErrorCode::NotFound), "P9");
    let foreign = DeleteDeviceTypeRequest { tenant: "away".into(), name: "t-000".into() };
    assert_eq!(client(&stage).delete_device_type(foreign).await.expect_err("P9").code(), tonic::Code::NotFound);
    get(&stage, "home", "t-000").await.expect("still there");
}

#[tokio::test]
async fn a_type_that_cannot_be_is_refused_by_its_field() {
    let stage = Stage::new().await;
    let valid = || device_type("", "lamp", "K");
    let unknown = [("x".to_owned(), TypeField::default())].into();
    let spaced = [("a b".to_owned(), TypeField { r#type: FieldType::Bool.into(), ..Default::default() })].into();
    for (refusal, field) in [
        (device_type("", "Lamp", "K"), "metadata.name"),
        (DeviceType { description: "x".repeat(1_025), ..valid() }, "spec.description"),
        (DeviceType { fields: unknown, ..valid() }, "fields.type"),
        (DeviceType { fields: spaced, ..valid() }, "spec.fields"),
        (device_type("", "lamp", &"x".repeat(1_025)), "spec.fields.temperature.unit"),
    ] {
        let refused = put(&stage, refusal).await.expect_err(field);
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
    assert_eq!(names(&stage, "", 0, "").await.0, Vec::<String>::new());
}
