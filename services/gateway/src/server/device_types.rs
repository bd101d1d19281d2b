//! `types` and `types/{type}`: what devices send.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::Field;
use drover_proto::registry::v1::{
    DeleteDeviceTypeRequest, GetDeviceTypeRequest, ListDeviceTypesRequest, PutDeviceTypeRequest,
};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use drover_types::object::DeviceTypeSpec;

use super::Api;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::{At, TypeParam};
use crate::domain::declared::{Declared, Metadata};

type DeviceType = Declared<DeviceTypeSpec>;

/// Device types, in the order of their names.
#[utoipa::path(get, path = "/types", operation_id = "listTypes", tag = "types", params(Page),
    responses((status = 200, body = List<Declared<DeviceTypeSpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<DeviceType>> {
    let request = ListDeviceTypesRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.types.call(async |mut client| client.list_device_types(request).await).await?;
    let items = listed.device_types.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One device type.
#[utoipa::path(get, path = "/types/{type}", operation_id = "getType", tag = "types", params(TypeParam),
    responses((status = 200, body = Declared<DeviceTypeSpec>, description = "The type.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<DeviceType> {
    let request = GetDeviceTypeRequest { tenant: at.tenant.to_string(), name: at.name("type")?.to_owned() };
    let found = api.types.call(async |mut client| client.get_device_type(request).await).await?;
    Ok(Json(shown(found.device_type.as_ref().required("device_type")?)?))
}

/// Makes or replaces a device type. Devices may name it before it is there.
#[utoipa::path(put, path = "/types/{type}", operation_id = "putType", tag = "types", params(TypeParam),
    request_body = Declared<DeviceTypeSpec>, responses((status = 200, body = Declared<DeviceTypeSpec>, description = "The type as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<DeviceType> {
    let object = DeviceType::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("type")?))?;
    let request = PutDeviceTypeRequest { device_type: Some(wire::DeviceType::of(meta, object.spec)) };
    let kept = api.types.call(async |mut client| client.put_device_type(request).await).await?;
    Ok(Json(shown(kept.device_type.as_ref().required("device_type")?)?))
}

/// Deletes a device type; devices that name it stay as they are.
#[utoipa::path(delete, path = "/types/{type}", operation_id = "deleteType", tag = "types", params(TypeParam),
    responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let request = DeleteDeviceTypeRequest { tenant: at.tenant.to_string(), name: at.name("type")?.to_owned() };
    api.types.call(async |mut client| client.delete_device_type(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(device_type: &wire::DeviceType) -> Result<DeviceType, ApiError> {
    let metadata = Metadata::from(device_type.meta.as_ref().required("device_type.meta")?);
    Ok(Declared::new(metadata, DeviceTypeSpec::try_from(device_type)?, None))
}
