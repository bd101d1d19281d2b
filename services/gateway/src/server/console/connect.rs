//! "Connect a device": a name becomes a device, and the device a program with its credentials in place.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use drover_proto::registry::v1::{CreateDeviceRequest, GetDeviceRequest};
use drover_proto::types::v1 as wire;
use drover_snippets::{Access, Endpoints, Language};
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceId, ErrorCode, TenantId};
use serde::Deserialize;

use super::login::{self, Csrf};
use super::templates::{self, Connect, Page, Program, Programs};
use crate::domain::caller::Caller;
use crate::domain::sessions::Session;
use crate::server::{Api, credentials};

/// The form.
#[derive(Deserialize)]
pub struct NewDevice {
    csrf: String,
    name: String,
}

pub async fn form(Extension(session): Extension<Session>, Extension(caller): Extension<Caller>) -> Response {
    let page = Page::new(&session, &caller, "connect");
    templates::html(&Connect { page, name: String::new(), error: None })
}

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(session): Extension<Session>,
    Extension(caller): Extension<Caller>,
    Form(form): Form<NewDevice>,
) -> Response {
    if let Err(error) = login::check(&session, &form.csrf) {
        return templates::failure(error);
    }
    match made(&api, &session.ticket.tenant, &form.name).await {
        Ok(access) => show(&session, &caller, &access),
        Err(error) => {
            let page = Page::new(&session, &caller, "connect");
            let status = StatusCode::from_u16(error.code.http()).expect("codes map to valid statuses");
            let error = match error.code {
                ErrorCode::AlreadyExists => format!("There is a device {} already. Choose another name.", form.name),
                _ => format!("That did not work: {}.", error.message),
            };
            (status, templates::html(&Connect { page, name: form.name, error: Some(error) })).into_response()
        }
    }
}

pub async fn program(
    State(api): State<Arc<Api>>,
    Extension(session): Extension<Session>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Form(form): Form<Csrf>,
) -> Response {
    let access = async {
        login::check(&session, &form.csrf)?;
        let (tenant, device) = (&session.ticket.tenant, checked(&name)?);
        let request = GetDeviceRequest { tenant: tenant.to_string(), name: device.to_string() };
        api.registry.call(async |mut client| client.get_device(request).await).await?;
        issued(&api, tenant, &device).await
    };
    match access.await {
        Ok(access) => show(&session, &caller, &access),
        Err(error) => templates::failure(error),
    }
}

async fn made(api: &Api, tenant: &TenantId, name: &str) -> Result<Access, ApiError> {
    let device = checked(name)?;
    let meta = wire::Meta { tenant: tenant.to_string(), name: device.to_string(), ..wire::Meta::default() };
    let request = CreateDeviceRequest { device: Some(wire::Device::of(meta, DeviceSpec::default())) };
    api.registry.call(async |mut client| client.create_device(request).await).await?;
    issued(api, tenant, &device).await
}

async fn issued(api: &Api, tenant: &TenantId, device: &DeviceId) -> Result<Access, ApiError> {
    let token = credentials::issue_token(api, tenant, device, 0).await?.token;
    let config = &api.config;
    let endpoints = Endpoints {
        mqtt: config.mqtt_endpoint.clone(),
        mqtts: config.mqtts_endpoint.clone(),
        http: config.http_endpoint.clone(),
    };
    Ok(Access { tenant: tenant.to_string(), device: device.to_string(), token, endpoints })
}

fn checked(name: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(name.trim()).map_err(|error| ApiError::invalid("name", error.to_string()))
}

fn show(session: &Session, caller: &Caller, access: &Access) -> Response {
    templates::html(&Programs {
        page: Page::new(session, caller, "connect"),
        name: access.device.clone(),
        programs: Language::ALL.into_iter().map(|language| Program::new(language, access)).collect(),
        mqtt: access.endpoints.mqtt.clone(),
        mqtts: access.endpoints.mqtts.clone(),
        http: access.endpoints.http.clone(),
        user_name: access.user_name(),
        token: access.token.clone(),
    })
}
