//! `health`: whether what stands behind the gateway answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use drover_proto::registry::v1::ListPoliciesRequest;
use serde_json::{Value, json};

use super::Api;
use super::objects::Answer;
use super::path::At;

/// Whether what stands behind the gateway answers.
///
/// Fails without the registry; without the rules service the rest works on, which `rules` then says.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "health",
    responses((status = 200, body = Object, description = "Each service and what it says.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Value> {
    let request = ListPoliciesRequest { tenant: at.tenant.into(), page_size: 1, page_token: String::new() };
    api.registry.call(async |mut client| client.list_policies(request).await).await?;
    let rules = api.statuses.ping().await.map_or_else(|error| error.message, |()| "ok".to_owned());
    Ok(Json(json!({"registry": "ok", "rules": rules})))
}
