//! `groups`, `groups/{group}` and `groups/{group}/devices`: devices by what is said of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::Field;
use drover_proto::registry::v1::{
    DeleteDeviceGroupRequest, GetDeviceGroupRequest, ListDeviceGroupsRequest, PutDeviceGroupRequest,
};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use drover_types::object::{DeviceGroupSpec, DeviceSpec};

use super::Api;
use super::body::{Body, Params};
use super::devices::{self, Choice, Device};
use super::objects::{Answer, List, Page};
use super::path::{At, GroupParam};
use crate::domain::declared::{Declared, Metadata};

type DeviceGroup = Declared<DeviceGroupSpec>;

/// Device groups, in the order of their names.
#[utoipa::path(get, path = "/groups", operation_id = "listGroups", tag = "groups", params(Page),
    responses((status = 200, body = List<Declared<DeviceGroupSpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<DeviceGroup>> {
    let request = ListDeviceGroupsRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.groups.call(async |mut client| client.list_device_groups(request).await).await?;
    let items = listed.device_groups.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One device group.
#[utoipa::path(get, path = "/groups/{group}", operation_id = "getGroup", tag = "groups", params(GroupParam),
    responses((status = 200, body = Declared<DeviceGroupSpec>, description = "The group.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<DeviceGroup> {
    let request = GetDeviceGroupRequest { tenant: at.tenant.to_string(), name: at.name("group")?.to_owned() };
    let found = api.groups.call(async |mut client| client.get_device_group(request).await).await?;
    Ok(Json(shown(found.device_group.as_ref().required("device_group")?)?))
}

/// Makes or replaces a device group. The group it is within has to be there.
#[utoipa::path(put, path = "/groups/{group}", operation_id = "putGroup", tag = "groups", params(GroupParam),
    request_body = Declared<DeviceGroupSpec>, responses((status = 200, body = Declared<DeviceGroupSpec>, description = "The group as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<DeviceGroup> {
    let object = DeviceGroup::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("group")?))?;
    let request = PutDeviceGroupRequest { device_group: Some(wire::DeviceGroup::of(meta, object.spec)) };
    let kept = api.groups.call(async |mut client| client.put_device_group(request).await).await?;
    Ok(Json(shown(kept.device_group.as_ref().required("device_group")?)?))
}

/// Deletes a device group; its devices stay. One that another group is within is not deleted.
#[utoipa::path(delete, path = "/groups/{group}", operation_id = "deleteGroup", tag = "groups", params(GroupParam),
    responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let request = DeleteDeviceGroupRequest { tenant: at.tenant.to_string(), name: at.name("group")?.to_owned() };
    api.groups.call(async |mut client| client.delete_device_group(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The devices of a group, in the order of their names: those that it selects, and every group it is within.
///
/// A page may have fewer than it could, even none, and still a `nextPageToken`: a request looks at 10,000 devices.
#[utoipa::path(get, path = "/groups/{group}/devices", operation_id = "listGroupDevices", tag = "groups",
    params(GroupParam, Choice), responses((status = 200, body = List<Declared<DeviceSpec>>, description = "One page.")))]
pub async fn devices(State(api): State<Arc<Api>>, at: At, Params(choice): Params<Choice>) -> Answer<List<Device>> {
    devices::listed(&api, &at.tenant, at.name("group")?.to_owned(), choice).await
}

fn shown(group: &wire::DeviceGroup) -> Result<DeviceGroup, ApiError> {
    let metadata = Metadata::from(group.meta.as_ref().required("device_group.meta")?);
    Ok(Declared::new(metadata, DeviceGroupSpec::try_from(group)?, None))
}
