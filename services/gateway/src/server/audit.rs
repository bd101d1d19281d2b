//! `audit`: who changed what and when, as the registry has kept it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use drover_proto::registry::v1::{self as wire, ListAuditRequest};
use drover_types::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::Params;
use super::objects::{Answer, List, page_size};
use super::path::At;
use crate::domain::declared::iso;
use crate::domain::span::moment;

/// The query of the audit trail.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditQuery {
    /// Where the span begins: `-1h`, milliseconds since 1970, or an ISO 8601 time; absent: as far back as entries are kept.
    from: Option<String>,
    /// Where it ends, itself left out; absent: now.
    to: Option<String>,
    /// Kind of the objects: `device`, `credential`, `policy`, `rule`, `api_token`, `function` or `certificate_authority`.
    kind: Option<String>,
    /// Name of the object, or of the device whose credential it is.
    name: Option<String>,
    /// Who changed it: `administrator`, `token NAME`, `operator`, `registration` or `unknown`.
    actor: Option<String>,
    /// How many entries at most; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// The `nextPageToken` of the page before, the rest of the query unchanged.
    page_token: Option<String>,
}

/// What happened to an object.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AuditAction {
    Created,
    Updated,
    Deleted,
}

/// One change of one object; never what was written, only where.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Unique in the tenant.
    id: String,
    /// ISO 8601.
    time: String,
    actor: String,
    action: AuditAction,
    kind: String,
    /// Of a credential: its id.
    name: String,
    /// Of a credential: whose it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    device: String,
    /// Of the write, as in `metadata.resourceVersion`.
    revision: String,
    /// What an update has changed, `spec.sql` for example: at most 32 paths, then `…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    changed: Vec<String>,
}

/// Who changed what and when, newest first.
///
/// A page may have fewer entries than were asked for, or none, and still be followed by another: with filters each looks
/// at a bounded number of entries. For the role admin.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = List<AuditEntry>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(query): Params<AuditQuery>) -> Answer<List<AuditEntry>> {
    let now_ms = api.clock.now_ms();
    let time = |field, text: Option<&str>| text.map_or(Ok(0), |text| moment(field, text, now_ms));
    let (from_ms, to_ms) = (time("from", query.from.as_deref())?, time("to", query.to.as_deref())?);
    if query.to.is_some() && from_ms >= to_ms {
        return Err(ApiError::invalid("from", "is not before the end of the span").over(to_ms, from_ms).into());
    }
    let request = ListAuditRequest {
        tenant: at.tenant.into(),
        from_ms,
        to_ms,
        kind: query.kind.unwrap_or_default(),
        name: query.name.unwrap_or_default(),
        actor: query.actor.unwrap_or_default(),
        page_size: page_size(query.page_size, api.config.page_items_max)?,
        page_token: query.page_token.unwrap_or_default(),
    };
    let listed = api.audit.call(async |mut client| client.list_audit(request).await).await?;
    let items = listed.entries.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

fn shown(entry: wire::AuditEntry) -> Result<AuditEntry, ApiError> {
    let action = match entry.action() {
        wire::AuditAction::Created => AuditAction::Created,
        wire::AuditAction::Updated => AuditAction::Updated,
        wire::AuditAction::Deleted => AuditAction::Deleted,
        wire::AuditAction::Unspecified => {
            return Err(ApiError::new(ErrorCode::Internal, "an entry of the audit trail has no action"));
        }
    };
    let wire::AuditEntry { id, time_ms, actor, kind, name, device, revision, changed, .. } = entry;
    let (time, revision) = (iso(time_ms), revision.to_string());
    Ok(AuditEntry { id, time, actor, action, kind, name, device, revision, changed })
}
