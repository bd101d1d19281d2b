//! `tokens`: API tokens of a tenant. A token leaves in the answer that made it, and never again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::Field;
use drover_proto::registry::v1::{CreateApiTokenRequest, DeleteApiTokenRequest, ListApiTokensRequest};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::At;
use super::verify;
use crate::domain::caller::{Caller, Role};
use crate::domain::declared::{iso, typed};

/// The parameter `token` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("token"))]
pub struct TokenParam(#[allow(dead_code, reason = "only documents")] String);

/// The token that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiTokenOrder {
    /// Its name in the tenant.
    name: String,
    role: Role,
    /// Seconds until it ends; absent: it does not.
    #[serde(default)]
    duration_s: u64,
}

/// What is known of a token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    tenant: String,
    name: String,
    role: Role,
    /// Who made it: `administrator`, or `token NAME` of the same tenant.
    created_by: String,
    creation_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<String>,
}

/// A token with itself.
#[derive(Serialize, ToSchema)]
pub struct MadeApiToken {
    #[serde(flatten)]
    known: ApiToken,
    /// Sent as `Authorization: Bearer TOKEN`.
    token: String,
}

/// API tokens in the order of their names, those that have ended among them. For the role `admin`.
#[utoipa::path(get, path = "/tokens", operation_id = "listApiTokens", tag = "tokens", params(Page),
    responses((status = 200, body = List<ApiToken>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<ApiToken>> {
    let request = ListApiTokensRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let registry = &api.verifier.api_tokens;
    let listed = registry.call(async |mut client| client.list_api_tokens(request).await).await?;
    let items = listed.api_tokens.iter().map(ApiToken::try_from).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// Makes an API token, which is shown this once. For the role `admin`.
#[utoipa::path(post, path = "/tokens", operation_id = "createApiToken", tag = "tokens", request_body = ApiTokenOrder,
    responses((status = 201, body = MadeApiToken, description = "The token.")))]
pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    at: At,
    Body(body): Body,
) -> Result<(StatusCode, Json<MadeApiToken>), Failure> {
    let ApiTokenOrder { name, role, duration_s } = typed("", body)?;
    let role = match role {
        Role::Viewer => wire::ApiTokenRole::Viewer,
        Role::Editor => wire::ApiTokenRole::Editor,
        Role::Admin => wire::ApiTokenRole::Admin,
    };
    let (tenant, created_by) = (at.tenant.to_string(), caller.title());
    let request = CreateApiTokenRequest { tenant, name, role: role.into(), duration_s, created_by };
    let registry = &api.verifier.api_tokens;
    let made = registry.call(async |mut client| client.create_api_token(request).await).await?;
    let known = ApiToken::try_from(made.api_token.as_ref().required("api_token")?)?;
    Ok((StatusCode::CREATED, Json(MadeApiToken { known, token: made.token })))
}

/// Deletes an API token: its requests are refused from now on, and its streams are ended. For the role `admin`.
#[utoipa::path(delete, path = "/tokens/{token}", operation_id = "deleteApiToken", tag = "tokens", params(TokenParam),
    responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let name = at.name("token")?;
    let request = DeleteApiTokenRequest { tenant: at.tenant.to_string(), name: name.to_owned() };
    let registry = &api.verifier.api_tokens;
    registry.call(async |mut client| client.delete_api_token(request).await).await?;
    api.verifier.forget(&at.tenant, name);
    Ok(StatusCode::NO_CONTENT)
}

impl TryFrom<&wire::ApiToken> for ApiToken {
    type Error = ApiError;

    fn try_from(token: &wire::ApiToken) -> Result<Self, ApiError> {
        let meta = token.meta.as_ref().required("api_token.meta")?;
        Ok(Self {
            tenant: meta.tenant.clone(),
            name: meta.name.clone(),
            role: verify::role(token.role())?,
            created_by: token.created_by.clone(),
            creation_timestamp: iso(meta.created_ms),
            expiration_timestamp: (token.expires_ms > 0).then(|| iso(token.expires_ms)),
        })
    }
}
