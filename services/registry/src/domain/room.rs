//! How many objects of a kind a tenant may have.

use drover_types::{ApiError, ErrorCode, TenantId};

use super::Domain;
use crate::object::Kind;

impl Domain {
    /// Refuses one more object of `kind` where its tenant has `limit` of them; `what` they are called. Two creations at
    /// once could both be the last: the caller holds a lock of its kind. Of several processes each counts for itself.
    pub(super) async fn has_room(
        &self,
        kind: Kind,
        tenant: &TenantId,
        limit: usize,
        what: &str,
    ) -> Result<(), ApiError> {
        if self.store.page(kind, tenant, "", limit).await?.len() < limit {
            return Ok(());
        }
        let error = ApiError::new(ErrorCode::ResourceExhausted, format!("the tenant has too many {what}"));
        Err(error.over(limit, limit + 1))
    }
}
