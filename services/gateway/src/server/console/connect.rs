//! "Connect a device": a name becomes a device, and the device a program with its credentials in place.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use drover_proto::registry::v1::{GetDeviceRequest, IssueTokenResponse};
use drover_proto::types::v1 as wire;
use drover_snippets::{Access, Endpoints, Language};
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceId, DeviceKey, ErrorCode};
use serde::Deserialize;

use super::login::{self, Csrf};
use super::templates::{self, Connect, Page, Program, Programs};
use crate::domain::caller::Caller;
use crate::domain::sessions::Session;
use crate::server::{Api, credentials, making};

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
    match made(&api, &session, &form.name).await {
        Ok(access) => show(&session, &caller, &access),
        Err(error) => {
            let page = Page::new(&session, &caller, "connect");
            let status = StatusCode::from_u16(error.code.http()).expect("codes map to valid statuses");
            let error = match error.code {
                ErrorCode::AlreadyExists => {
                    let name = &form.name;
                    format!("There is a device {name} already. Choose another name, or get a program on its page.")
                }
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
        let key = key(&session, &name)?;
        let request = GetDeviceRequest { tenant: key.tenant.to_string(), name: key.device.to_string() };
        api.registry.call(async |mut client| client.get_device(request).await).await?;
        let issued = credentials::issue_token(&api, &key.tenant, &key.device, 0).await?;
        Ok::<_, ApiError>(access(&api, &key, issued))
    };
    match access.await {
        Ok(access) => show(&session, &caller, &access),
        Err(error) => templates::failure(error),
    }
}

async fn made(api: &Api, session: &Session, name: &str) -> Result<Access, ApiError> {
    let key = key(session, name)?;
    let meta = wire::Meta { tenant: key.tenant.to_string(), name: key.device.to_string(), ..wire::Meta::default() };
    let (_, issued) = making::device(api, &key, wire::Device::of(meta, DeviceSpec::default())).await?;
    Ok(access(api, &key, issued))
}

fn access(api: &Api, key: &DeviceKey, issued: IssueTokenResponse) -> Access {
    let config = &api.config;
    let endpoints = Endpoints {
        mqtt: config.mqtt_endpoint.clone(),
        mqtts: config.mqtts_endpoint.clone(),
        http: config.http_endpoint.clone(),
    };
    Access { tenant: key.tenant.to_string(), device: key.device.to_string(), token: issued.token, endpoints }
}

fn key(session: &Session, name: &str) -> Result<DeviceKey, ApiError> {
    let device = DeviceId::new(name.trim()).map_err(|error| ApiError::invalid("name", error.to_string()))?;
    Ok(DeviceKey { tenant: session.ticket.tenant.clone(), device })
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
