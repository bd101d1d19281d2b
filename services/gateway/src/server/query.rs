//! `query`: SQL over what storage keeps.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use drover_proto::storage::v1::QueryRequest;
use drover_types::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::body::Raw;
use super::objects::Answer;
use super::path::At;

/// A question.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// One statement that reads, at most 64 KiB: `SELECT device, avg(double) FROM points WHERE field = 'temperature' GROUP BY device`.
    sql: String,
}

/// What it found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    columns: Vec<FoundColumn>,
    /// One object a row, with a member a column: times as ISO 8601, bytes as base64, what is absent as `null`. At most 10,000
    /// rows and 3 MiB.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Box<RawValue>>,
    /// There are more rows than an answer may have: `LIMIT`, or a narrower question, brings fewer.
    truncated: bool,
}

/// A column of the answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QueryColumn)]
pub struct FoundColumn {
    name: String,
    /// As PostgreSQL calls it: `double precision`, `timestamp with time zone`.
    r#type: String,
}

/// The rows of one SQL statement that reads.
///
/// In PostgreSQL's dialect over the tables `points` (one row a scalar field of a message: `time`, `device`, `topic`, `field`,
/// `double`, `text`, `bool`), `telemetry` (one row a message: `time`, `device`, `topic`, `qos`, `id`, `payload`, `payload_text`)
/// and `devices` (`device`, `type`, `enabled`, and a column for each label). It changes nothing: for the role viewer.
#[utoipa::path(post, path = "/query", operation_id = "query", tag = "telemetry", request_body = Question,
    responses((status = 200, body = Found, description = "The rows.")))]
pub async fn query(State(api): State<Arc<Api>>, at: At, Raw(question): Raw<Question>) -> Answer<Found> {
    let request = QueryRequest { tenant: at.tenant.to_string(), sql: question.sql };
    let found = api.sql.call(async |mut client| client.query(request).await).await?;
    let columns = found.columns.into_iter().map(|column| FoundColumn { name: column.name, r#type: column.r#type });
    let rows = found.rows.into_iter().map(RawValue::from_string).collect::<Result<_, _>>();
    let rows = rows.map_err(|error| ApiError::new(ErrorCode::Internal, format!("a row is no JSON: {error}")))?;
    Ok(Json(Found { columns: columns.collect(), rows, truncated: found.truncated }))
}
