//! `rules/{rule}/replay`: messages through a rule again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use drover_proto::rules::v1::ReplayRequest;
use drover_types::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::objects::Answer;
use super::path::{At, RuleParam};
use crate::domain::declared::typed;
use crate::domain::span::moment;

/// What goes through a rule again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReplayFrom {
    /// Its dead letters.
    Errors,
    /// The messages of the log.
    Log,
}

/// A replay, or the next part of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayOrder {
    from: ReplayFrom,
    /// `-1h`, milliseconds since 1970 or an ISO 8601 time; of dead letters, all where absent.
    since: Option<String>,
    /// `next` of the answer before, the rest unchanged.
    cursor: Option<String>,
}

/// What a part of a replay came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayPart {
    /// Records looked at.
    read: u64,
    /// Messages and dead letters that went through the rule.
    replayed: u64,
    /// Records handed to outputs and to the outbox.
    emitted: u64,
    /// Rows and actions that failed, dead letters again.
    failed: u64,
    /// Dead letters that cannot go through again.
    skipped: u64,
    /// Records still to be looked at, about.
    left: u64,
    /// Absent: this was all.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Puts messages through a rule again, a part of them: ask again with `next` until there is none. What comes out has the
/// ids it had before.
#[utoipa::path(post, path = "/rules/{rule}/replay", operation_id = "replayRule", tag = "rules", params(RuleParam),
    request_body = ReplayOrder, responses((status = 200, body = ReplayPart, description = "What this part came to.")))]
pub async fn replay(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<ReplayPart> {
    let ReplayOrder { from, since, cursor } = typed("", body)?;
    let since_ms = match (&since, from) {
        (Some(since), _) => moment("since", since, api.clock.now_ms())?,
        (None, ReplayFrom::Errors) => 0,
        (None, ReplayFrom::Log) => return Err(ApiError::invalid("since", "is missing: from when on").into()),
    };
    let request = ReplayRequest {
        tenant: at.tenant.to_string(),
        name: at.name("rule")?.to_owned(),
        errors: from == ReplayFrom::Errors,
        since_ms,
        cursor: cursor.unwrap_or_default(),
    };
    let part = api.rules.call(async |mut client| client.replay(request).await).await?;
    Ok(Json(ReplayPart {
        read: part.read,
        replayed: part.replayed,
        emitted: part.emitted,
        failed: part.failed,
        skipped: part.skipped,
        left: part.left,
        next: Some(part.next).filter(|next| !next.is_empty()),
    }))
}
