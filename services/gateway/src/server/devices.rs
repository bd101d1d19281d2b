//! `devices` and `devices/{device}`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_proto::Field;
use drover_proto::registry::v1::{
    DeleteDeviceRequest, GetDeviceRequest, GetDeviceResponse, ListDevicesRequest, ListDevicesResponse, Presence,
    UpdateDeviceRequest,
};
use drover_proto::types::v1 as wire;
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceId, DeviceKey, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Body, Params};
use super::credentials::{self, Access};
use super::heard;
use super::making;
use super::objects::{Answer, List, Page, Revoked};
use super::path::{At, DeviceParam};
use crate::domain::declared::{Declared, Metadata};
use crate::domain::status;
use drover_host::http::Failure;

/// A device as it is shown.
pub type Device = Declared<DeviceSpec>;

/// A new device with all it needs to connect.
#[derive(Serialize, ToSchema)]
pub struct Created {
    #[serde(flatten)]
    object: Declared<DeviceSpec>,
    #[serde(flatten)]
    access: Access,
}

/// A device as it is now, and who may not know yet that it is disabled.
#[derive(Serialize, ToSchema)]
pub struct Changed {
    #[serde(flatten)]
    object: Declared<DeviceSpec>,
    #[serde(flatten)]
    revoked: Revoked,
}

/// The query of a list of devices.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Choice {
    /// How many devices; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// The `nextPageToken` of the page before.
    #[param(required = false)]
    page_token: String,
    /// Labels that they have, as Kubernetes writes it: `room=kitchen,floor!=2,env in (a,b),!old`.
    #[param(required = false)]
    label_selector: String,
    /// Their type.
    #[serde(rename = "type")]
    #[param(required = false)]
    device_type: String,
}

impl Choice {
    /// Asks for those that are in `group` as well; an empty name is no group.
    fn request(self, tenant: &TenantId, group: String, page_items_max: u32) -> Result<ListDevicesRequest, ApiError> {
        let page = Page { page_size: self.page_size, page_token: self.page_token };
        Ok(ListDevicesRequest {
            tenant: tenant.to_string(),
            page_size: page.size(page_items_max)?,
            page_token: page.page_token,
            label_selector: self.label_selector,
            r#type: self.device_type,
            group,
        })
    }
}

/// Devices, in the order of their names.
///
/// Where they are chosen, a page may have fewer than it could, even none, and still a `nextPageToken`: a request looks at
/// 10,000 devices.
#[utoipa::path(get, path = "/devices", operation_id = "listDevices", tag = "devices", params(Choice),
    responses((status = 200, body = List<Declared<DeviceSpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(choice): Params<Choice>) -> Answer<List<Device>> {
    listed(&api, &at.tenant, String::new(), choice).await
}

/// Chosen devices of a group; an empty name is no group.
pub async fn listed(api: &Api, tenant: &TenantId, group: String, choice: Choice) -> Answer<List<Device>> {
    let request = choice.request(tenant, group, api.config.page_items_max)?;
    let listed = api.registry.call(async |mut client| client.list_devices(request).await).await?;
    let heard = heard::last_heard(api, tenant.as_str(), names(&listed)).await;
    let items = listed.devices.into_iter().map(|device| known(device, &heard)).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// Makes a device with a token, which is shown this once.
///
/// After an error other than 409 the same request may be made again for ten minutes, until a token was issued.
#[utoipa::path(post, path = "/devices", operation_id = "createDevice", tag = "devices", request_body = Declared<DeviceSpec>,
    responses((status = 201, body = Created, description = "The device and all it needs to connect.")))]
pub async fn create(
    State(api): State<Arc<Api>>,
    at: At,
    Body(body): Body,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let object = Device::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, None)?;
    let key = DeviceKey { device: checked(&meta.name)?, tenant: at.tenant };
    let (made, issued) = making::device(&api, &key, wire::Device::of(meta, object.spec)).await?;
    let object = shown(made, &Presence::default(), None)?;
    let access = credentials::access(&api, &key.tenant, &key.device, issued)?;
    Ok((StatusCode::CREATED, Json(Created { object, access })))
}

/// One device and whether it is connected.
#[utoipa::path(get, path = "/devices/{device}", operation_id = "getDevice", tag = "devices", params(DeviceParam),
    responses((status = 200, body = Declared<DeviceSpec>, description = "The device.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Device> {
    Ok(Json(find(&api, &at).await?))
}

/// Changes a device; one that is disabled is disconnected.
#[utoipa::path(put, path = "/devices/{device}", operation_id = "putDevice", tag = "devices", params(DeviceParam),
    request_body = Declared<DeviceSpec>, responses((status = 200, body = Changed, description = "The device as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<Changed> {
    let object = Device::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.device()?.as_str()))?;
    let request = UpdateDeviceRequest { device: Some(wire::Device::of(meta, object.spec)) };
    let updated = api.registry.call(async |mut client| client.update_device(request).await).await?;
    let revoked = Revoked { unconfirmed_nodes: updated.unconfirmed_nodes };
    Ok(Json(Changed { object: find(&api, &at).await?, revoked }))
}

/// Deletes a device; its credentials are revoked and its connections closed.
#[utoipa::path(delete, path = "/devices/{device}", operation_id = "deleteDevice", tag = "devices", params(DeviceParam),
    responses((status = 200, body = Revoked, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Answer<Revoked> {
    let request = DeleteDeviceRequest { name: at.device()?.into(), tenant: at.tenant.into() };
    let deleted = api.registry.call(async |mut client| client.delete_device(request).await).await?;
    Ok(Json(Revoked { unconfirmed_nodes: deleted.unconfirmed_nodes }))
}

async fn find(api: &Api, at: &At) -> Result<Device, ApiError> {
    let device = at.device()?;
    let request = GetDeviceRequest { tenant: at.tenant.to_string(), name: device.to_string() };
    let (found, heard) = tokio::join!(
        api.registry.call(async |mut client| client.get_device(request).await),
        heard::last_heard(api, at.tenant.as_str(), vec![device.to_string()]),
    );
    known(found?, &heard)
}

/// The names of listed devices.
pub fn names(listed: &ListDevicesResponse) -> Vec<String> {
    listed.devices.iter().filter_map(|known| Some(known.device.as_ref()?.meta.as_ref()?.name.clone())).collect()
}

fn known(known: GetDeviceResponse, heard: &HashMap<String, u64>) -> Result<Device, ApiError> {
    let heard_ms = heard::of_this(&known, heard);
    shown(known.device.required("device")?, &known.presence.unwrap_or_default(), heard_ms)
}

fn shown(device: wire::Device, presence: &Presence, heard_ms: Option<u64>) -> Result<Device, ApiError> {
    let metadata = Metadata::from(device.meta.as_ref().required("device.meta")?);
    let status = status::device(device.enabled, presence, heard_ms);
    Ok(Declared::new(metadata, DeviceSpec::from(&device), Some(status)))
}

fn checked(name: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(name).map_err(|error| ApiError::invalid("metadata.name", error.to_string()))
}
