//! An audit trail of four entries a tenant, behind the real gRPC code. It answers two at a time, and as last entry who asks
//! for what.

use drover_host::actor;
use drover_proto::registry::v1::audit_server::Audit;
use drover_proto::registry::v1::*;
use tonic::{Request, Response, Status};

pub struct FakeAudit;

/// Entries of one page, whatever is asked for.
const PAGE: usize = 2;
const TIME_MS: u64 = 1_700_000_000_000;

#[tonic::async_trait]
impl Audit for FakeAudit {
    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<Response<ListAuditResponse>, Status> {
        let actor = actor::of(request.metadata()).unwrap_or("nobody").to_owned();
        let ListAuditRequest { tenant, from_ms, to_ms, kind, name, actor: by, page_size, page_token } =
            request.into_inner();
        let entry = |id: &str, action: AuditAction, changed: &[&str]| AuditEntry {
            id: id.into(),
            tenant: tenant.clone(),
            time_ms: TIME_MS,
            actor: "token ci".into(),
            action: action.into(),
            kind: "device".into(),
            name: format!("{tenant}-d"),
            device: String::new(),
            revision: 7,
            changed: changed.iter().map(ToString::to_string).collect(),
        };
        let asked = format!("{from_ms} {to_ms} {kind} {name} {by} {page_size}");
        let credential =
            AuditEntry { kind: "credential".into(), device: "d".into(), ..entry("2", AuditAction::Created, &[]) };
        let all = [
            entry("4", AuditAction::Deleted, &[]),
            entry("3", AuditAction::Updated, &["spec.enabled", "…"]),
            credential,
            AuditEntry { actor, name: asked, ..entry("1", AuditAction::Created, &[]) },
        ];
        let behind = all.iter().filter(|entry| page_token.is_empty() || entry.id < page_token);
        let entries: Vec<AuditEntry> = behind.take(PAGE).cloned().collect();
        let next = entries.last().filter(|entry| entry.id != "1");
        Ok(Response::new(ListAuditResponse { next_page_token: next.map_or(String::new(), |e| e.id.clone()), entries }))
    }
}
