//! `devices/{device}/shadow[/{name}]`: the documents are those of the shadow service, byte by byte.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use drover_host::http::Failure;
use drover_proto::shadow::v1::{DeleteShadowRequest, GetShadowRequest, ListShadowsRequest, UpdateShadowRequest};
use drover_types::ApiError;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body;
use super::objects::{Answer, List};
use super::path::{At, DeviceParam};

/// The parameter `name` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("name"))]
pub struct NameParam(#[allow(dead_code, reason = "only documents")] String);

/// The version that a deletion made.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    version: u64,
}

/// JSON as the shadow service wrote it.
type Document = Result<([(axum::http::HeaderName, &'static str); 1], Vec<u8>), Failure>;

fn document(json: Vec<u8>) -> Document {
    Ok(([(CONTENT_TYPE, "application/json")], json))
}

/// Names of the shadows of a device; the classic one has the empty name.
#[utoipa::path(get, path = "/devices/{device}/shadows", operation_id = "listShadows", tag = "shadows",
    params(DeviceParam), responses((status = 200, body = List<String>, description = "All of them.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At) -> Answer<List<String>> {
    let request = ListShadowsRequest { tenant: at.tenant.to_string(), device: at.device()?.into() };
    let items = api.shadow.call(async |mut client| client.list_shadows(request).await).await?.names;
    Ok(Json(List { items, next_page_token: String::new() }))
}

/// The classic shadow of a device: `state`, `metadata`, `version`, `timestamp`.
#[utoipa::path(get, path = "/devices/{device}/shadow", operation_id = "getShadow", tag = "shadows",
    params(DeviceParam), responses((status = 200, body = Object, description = "The document.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Document {
    find(&api, &at, "").await
}

/// A named shadow of a device.
#[utoipa::path(get, path = "/devices/{device}/shadow/{name}", operation_id = "getNamedShadow", tag = "shadows",
    params(DeviceParam, NameParam), responses((status = 200, body = Object, description = "The document.")))]
pub async fn get_named(State(api): State<Arc<Api>>, at: At) -> Document {
    find(&api, &at, at.name("name")?).await
}

async fn find(api: &Api, at: &At, name: &str) -> Document {
    let request =
        GetShadowRequest { tenant: at.tenant.to_string(), device: at.device()?.into(), name: name.to_owned() };
    document(api.shadow.call(async |mut client| client.get_shadow(request).await).await?.document)
}

/// Changes the classic shadow: `{"state": {"desired": {…}}}`; members that are null are removed.
#[utoipa::path(patch, path = "/devices/{device}/shadow", operation_id = "updateShadow", tag = "shadows",
    params(DeviceParam), request_body = Object,
    responses((status = 200, body = Object, description = "What was accepted, with its version.")))]
pub async fn update(State(api): State<Arc<Api>>, at: At, request: Request) -> Document {
    change(&api, &at, "", request).await
}

/// As `PATCH`.
#[utoipa::path(post, path = "/devices/{device}/shadow", operation_id = "postShadow", tag = "shadows",
    params(DeviceParam), request_body = Object,
    responses((status = 200, body = Object, description = "What was accepted, with its version.")))]
pub async fn post(state: State<Arc<Api>>, at: At, request: Request) -> Document {
    update(state, at, request).await
}

/// Changes a named shadow.
#[utoipa::path(patch, path = "/devices/{device}/shadow/{name}", operation_id = "updateNamedShadow", tag = "shadows",
    params(DeviceParam, NameParam), request_body = Object,
    responses((status = 200, body = Object, description = "What was accepted, with its version.")))]
pub async fn update_named(State(api): State<Arc<Api>>, at: At, request: Request) -> Document {
    change(&api, &at, at.name("name")?, request).await
}

/// As `PATCH`.
#[utoipa::path(post, path = "/devices/{device}/shadow/{name}", operation_id = "postNamedShadow", tag = "shadows",
    params(DeviceParam, NameParam), request_body = Object,
    responses((status = 200, body = Object, description = "What was accepted, with its version.")))]
pub async fn post_named(state: State<Arc<Api>>, at: At, request: Request) -> Document {
    update_named(state, at, request).await
}

async fn change(api: &Api, at: &At, name: &str, request: Request) -> Document {
    let json = body::read(request, api).await?;
    // What it says is for the shadow service to judge; that it is JSON at all is said here with its place.
    serde_json::from_slice::<serde::de::IgnoredAny>(&json)
        .map_err(|error| ApiError::invalid("body", format!("is not JSON: {error}")))?;
    let request = UpdateShadowRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        name: name.to_owned(),
        document: json.into(),
        id: api.new_id().0.to_vec(),
    };
    document(api.shadow.call(async |mut client| client.update_shadow(request).await).await?.document)
}

/// Deletes the classic shadow.
#[utoipa::path(delete, path = "/devices/{device}/shadow", operation_id = "deleteShadow", tag = "shadows",
    params(DeviceParam), responses((status = 200, body = Deleted, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Answer<Deleted> {
    remove(&api, &at, "").await
}

/// Deletes a named shadow.
#[utoipa::path(delete, path = "/devices/{device}/shadow/{name}", operation_id = "deleteNamedShadow", tag = "shadows",
    params(DeviceParam, NameParam), responses((status = 200, body = Deleted, description = "It is deleted.")))]
pub async fn delete_named(State(api): State<Arc<Api>>, at: At) -> Answer<Deleted> {
    remove(&api, &at, at.name("name")?).await
}

async fn remove(api: &Api, at: &At, name: &str) -> Answer<Deleted> {
    let request = DeleteShadowRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        name: name.to_owned(),
        id: api.new_id().0.to_vec(),
    };
    let version = api.shadow.call(async |mut client| client.delete_shadow(request).await).await?.version;
    Ok(Json(Deleted { version }))
}
