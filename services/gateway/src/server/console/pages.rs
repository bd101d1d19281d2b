//! Pages that only show: the devices, one device, live messages.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::response::Response;
use drover_proto::Field;
use drover_proto::registry::v1::{GetDeviceRequest, GetDeviceResponse, ListDevicesRequest};
use drover_proto::storage::v1::GetLatestRequest;
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceId};
use serde::Deserialize;

use super::assets;
use super::templates::{self, Page, Shown, Value};
use crate::domain::caller::Caller;
use crate::domain::declared::{Metadata, iso};
use crate::domain::series::Point;
use crate::domain::sessions::Session;
use crate::domain::status::{Phase, last_seen_ms};
use crate::server::body::Params;
use crate::server::{Api, devices, heard};

/// Devices on a page.
const PAGE_ITEMS: u32 = 50;
/// A page does not wait longer than this for the last values of its device; the page's script shows them as they come.
const VALUES_DEADLINE: Duration = Duration::from_secs(2);

impl Page {
    /// The frame of a page of `session`.
    pub fn new(session: &Session, caller: &Caller, place: &'static str) -> Self {
        Self {
            version: &assets::VERSION,
            tenant: session.ticket.tenant.to_string(),
            csrf: session.csrf.clone(),
            editor: caller.is_editor(),
            place,
        }
    }
}

/// Which page of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct After {
    after: String,
}

pub async fn devices(
    State(api): State<Arc<Api>>,
    Extension(session): Extension<Session>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<After>,
) -> Response {
    let request = ListDevicesRequest {
        tenant: session.ticket.tenant.to_string(),
        page_size: PAGE_ITEMS,
        page_token: query.after.clone(),
        ..Default::default()
    };
    let listed = match api.registry.call(async |mut client| client.list_devices(request).await).await {
        Ok(listed) => listed,
        Err(error) => return templates::failure(error),
    };
    let heard = heard::last_heard(&api, session.ticket.tenant.as_str(), devices::names(&listed)).await;
    let row = |known: &GetDeviceResponse| shown(known, heard::of_this(known, &heard)).map(|(shown, _, _)| shown);
    let rows = listed.devices.iter().map(row).collect();
    match rows {
        Ok(devices) => templates::html(&templates::Devices {
            page: Page::new(&session, &caller, "devices"),
            devices,
            first: query.after.is_empty(),
            next: Some(listed.next_page_token).filter(|next| !next.is_empty()),
        }),
        Err(error) => templates::failure(error),
    }
}

pub async fn device(
    State(api): State<Arc<Api>>,
    Extension(session): Extension<Session>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Response {
    match find(&api, &session, &name).await {
        Ok(filled) => templates::html(&filled(Page::new(&session, &caller, "devices"))),
        Err(error) => templates::failure(error),
    }
}

async fn find(api: &Api, session: &Session, name: &str) -> Result<impl FnOnce(Page) -> templates::Device, ApiError> {
    let device = DeviceId::new(name).map_err(|error| ApiError::invalid("device", error.to_string()))?;
    let tenant = session.ticket.tenant.to_string();
    let request = GetDeviceRequest { tenant: tenant.clone(), name: device.to_string() };
    let latest = GetLatestRequest { tenant, device: device.to_string(), ..GetLatestRequest::default() };
    let storage = api.storage.hurried(VALUES_DEADLINE);
    let (known, heard, latest) = tokio::join!(
        api.registry.call(async |mut client| client.get_device(request).await),
        heard::last_heard(api, session.ticket.tenant.as_str(), vec![device.to_string()]),
        storage.call(async |mut client| client.get_latest(latest).await),
    );
    let known = known?;
    let heard_ms = heard::of_this(&known, &heard);
    let (device, spec, meta) = shown(&known, heard_ms)?;
    let points = latest.map(|latest| latest.points).unwrap_or_else(|error| {
        tracing::debug!(%error, "a page is shown without last values");
        Vec::new()
    });
    let mut values: Vec<Value> = points.into_iter().map(|point| value(point.into())).collect();
    values.sort_by(|a, b| a.field.cmp(&b.field));
    Ok(move |page| templates::Device {
        page,
        device,
        values,
        heard: heard_ms.map(iso),
        policies: spec.policies,
        labels: meta.labels.into_iter().collect(),
        attributes: spec.attributes.into_iter().collect(),
        created: meta.creation_timestamp,
    })
}

fn value(point: Point) -> Value {
    let number = point.value.is_number();
    let text = point.value.as_str().map_or_else(|| point.value.to_string(), str::to_owned);
    Value { field: point.field, text, number, time: point.time }
}

/// A listed device whose last known message came at `heard_ms`.
fn shown(known: &GetDeviceResponse, heard_ms: Option<u64>) -> Result<(Shown, DeviceSpec, Metadata), ApiError> {
    let device = known.device.as_ref().required("device")?;
    let meta = Metadata::from(device.meta.as_ref().required("device.meta")?);
    let presence = known.presence.unwrap_or_default();
    let spec = DeviceSpec::from(device);
    let shown = Shown {
        name: meta.name.clone(),
        phase: Phase::of(device.enabled, &presence, heard_ms),
        since: presence.ever_seen.then(|| iso(presence.changed_ms)),
        last_seen: last_seen_ms(&presence, heard_ms).map(iso),
        kind: spec.device_type.clone(),
    };
    Ok((shown, spec, meta))
}

/// The filter of live messages.
#[derive(Deserialize)]
#[serde(default)]
pub struct Filter {
    filter: String,
}

impl Default for Filter {
    fn default() -> Self {
        Self { filter: "#".to_owned() }
    }
}

pub async fn live(
    Extension(session): Extension<Session>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<Filter>,
) -> Response {
    templates::html(&templates::Live { page: Page::new(&session, &caller, "live"), filter: query.filter })
}
