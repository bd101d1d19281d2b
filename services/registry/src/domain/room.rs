//! How many objects of a kind a tenant may have.

use drover_types::{ApiError, ErrorCode};

use super::Domain;
use crate::object::{Object, ObjectKey};

impl Domain {
    /// The object at `key`. Where there is none, one more of its kind is refused if its tenant has `limit` of them; `what`
    /// they are called. Two creations at once could both be the last: the caller holds a lock of its kind. Of several
    /// processes each counts for itself.
    pub(super) async fn current_or_room(
        &self,
        key: &ObjectKey,
        limit: usize,
        what: &str,
    ) -> Result<Option<Object>, ApiError> {
        let current = self.store.get(key).await?;
        if current.is_some() || self.store.page(key.kind, &key.tenant, "", limit).await?.len() < limit {
            return Ok(current);
        }
        let error = ApiError::new(ErrorCode::ResourceExhausted, format!("the tenant has too many {what}"));
        Err(error.over(limit, limit + 1))
    }
}
