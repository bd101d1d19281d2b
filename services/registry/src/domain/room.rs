//! How many objects of a kind a tenant may have.

use drover_types::{ApiError, ErrorCode};

use super::Domain;
use crate::object::{Object, ObjectKey};
use crate::ports::StoreError;

/// Objects read from the store at once where they are counted.
const READ_AT_ONCE: usize = 100;

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
        if current.is_some() || self.are_fewer(key, limit).await? {
            return Ok(current);
        }
        let error = ApiError::new(ErrorCode::ResourceExhausted, format!("the tenant has too many {what}"));
        Err(error.over(limit, limit + 1))
    }

    /// Whether the tenant of `key` has fewer than `limit` objects of its kind.
    async fn are_fewer(&self, key: &ObjectKey, limit: usize) -> Result<bool, StoreError> {
        let (mut count, mut after) = (0, String::new());
        while count < limit {
            let wanted = READ_AT_ONCE.min(limit - count);
            let found = self.store.page(key.kind, &key.tenant, &after, wanted).await?;
            count += found.len();
            match found.last().filter(|_| found.len() == wanted) {
                Some(last) => after.clone_from(&last.meta.name),
                None => return Ok(count < limit),
            }
        }
        Ok(false)
    }
}
