//! `devices/{device}/telemetry` and `devices/{device}/messages`: what storage keeps.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use drover_proto::storage::v1::{GetLatestRequest, GetMessagesRequest, GetRangeRequest};
use drover_types::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::Params;
use super::objects::{Answer, List};
use super::path::{At, DeviceParam};
use crate::domain::declared::iso;
use crate::domain::series::{KeptMessage, Sample};
use crate::domain::span::{Span, step};

/// Most points or steps of one answer.
const SAMPLES_MAX: u32 = 10_000;
/// Most messages of one answer.
const MESSAGES_MAX: u32 = 1_000;

/// The query of telemetry.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetryQuery {
    /// The field, `battery.voltage` for example; absent: the newest point of every field.
    field: Option<String>,
    /// Where the span begins: `-1h` (where absent), milliseconds since 1970, or an ISO 8601 time.
    from: Option<String>,
    /// Where it ends, itself left out; absent: now.
    to: Option<String>,
    /// Width of a step, `10s` for example; absent: the points themselves.
    step: Option<String>,
    /// Most points or steps; 1,000 where absent.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<u32>,
    /// The `nextPageToken` of the answer before, the rest of the query unchanged.
    page_token: Option<String>,
}

/// Points or steps, oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Samples {
    items: Vec<Sample>,
    /// The `from` that goes on; absent: this was all.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_from: Option<String>,
    /// Asks for what comes exactly behind; absent: this was all.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    next_page_token: String,
}

/// The query of messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessagesQuery {
    /// Where the span begins: `-1h` (where absent), milliseconds since 1970, or an ISO 8601 time.
    from: Option<String>,
    /// Where it ends, itself left out; absent: now.
    to: Option<String>,
    /// Most messages; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `nextPageToken` of the answer before, the rest of the query unchanged.
    page_token: Option<String>,
}

/// A field's points or steps in a span of time; without a field the newest point of each.
#[utoipa::path(get, path = "/devices/{device}/telemetry", operation_id = "getTelemetry", tag = "telemetry",
    params(DeviceParam, TelemetryQuery), responses((status = 200, body = Samples, description = "Oldest first.")))]
pub async fn telemetry(State(api): State<Arc<Api>>, at: At, Params(query): Params<TelemetryQuery>) -> Answer<Samples> {
    match &query.field {
        Some(field) => range(&api, &at, field, &query).await,
        None => latest(&api, &at, &query).await,
    }
}

async fn latest(api: &Api, at: &At, query: &TelemetryQuery) -> Answer<Samples> {
    let alone = [("from", query.from.is_some()), ("to", query.to.is_some()), ("step", query.step.is_some())];
    if let Some((name, _)) = alone.into_iter().find(|(_, given)| *given) {
        return Err(ApiError::invalid(name, "goes with a field").into());
    }
    let request = GetLatestRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        limit: within("limit", query.limit, SAMPLES_MAX)?,
        page_token: query.page_token.clone().unwrap_or_default(),
    };
    let latest = api.storage.call(async |mut client| client.get_latest(request).await).await?;
    let items = latest.points.into_iter().map(|point| Sample::Point(point.into())).collect();
    Ok(Json(Samples { items, next_from: None, next_page_token: latest.next_page_token }))
}

async fn range(api: &Api, at: &At, field: &str, query: &TelemetryQuery) -> Answer<Samples> {
    let span = Span::parse(query.from.as_deref(), query.to.as_deref(), api.clock.now_ms())?;
    let request = GetRangeRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        field: field.to_owned(),
        from_ms: span.from_ms,
        to_ms: span.to_ms,
        step_ms: step(query.step.as_deref())?,
        limit: within("limit", query.limit, SAMPLES_MAX)?,
        page_token: query.page_token.clone().unwrap_or_default(),
    };
    let range = api.storage.call(async |mut client| client.get_range(request).await).await?;
    let points = range.points.into_iter().map(|point| Sample::Point(point.into()));
    let steps = range.steps.into_iter().map(|step| Sample::Step(step.into()));
    let next_from = (range.next_from_ms > 0).then(|| iso(range.next_from_ms));
    Ok(Json(Samples { items: points.chain(steps).collect(), next_from, next_page_token: range.next_page_token }))
}

/// Messages of a device in a span of time, newest first.
#[utoipa::path(get, path = "/devices/{device}/messages", operation_id = "getMessages", tag = "telemetry",
    params(DeviceParam, MessagesQuery),
    responses((status = 200, body = List<KeptMessage>, description = "Newest first.")))]
pub async fn messages(
    State(api): State<Arc<Api>>,
    at: At,
    Params(query): Params<MessagesQuery>,
) -> Answer<List<KeptMessage>> {
    let span = Span::parse(query.from.as_deref(), query.to.as_deref(), api.clock.now_ms())?;
    let request = GetMessagesRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        from_ms: span.from_ms,
        to_ms: span.to_ms,
        limit: within("limit", query.limit, MESSAGES_MAX)?,
        page_token: query.page_token.unwrap_or_default(),
    };
    let found = api.storage.call(async |mut client| client.get_messages(request).await).await?;
    let items = found.messages.into_iter().map(KeptMessage::from).collect();
    Ok(Json(List { items, next_page_token: found.next_page_token }))
}

/// A number of a query; absent: 0, which leaves it to the service.
fn within(field: &str, wanted: Option<u32>, limit: u32) -> Result<u32, ApiError> {
    match wanted {
        None => Ok(0),
        Some(wanted) if (1..=limit).contains(&wanted) => Ok(wanted),
        Some(wanted) => Err(ApiError::invalid(field, format!("is out of range 1 to {limit}")).over(limit, wanted)),
    }
}
