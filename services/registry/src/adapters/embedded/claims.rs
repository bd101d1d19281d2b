//! Claims of Kafka topics: one row a topic, read and written by one caller at a time.

use std::sync::PoisonError;

use fjall::PersistMode;

use super::{Embedded, keys, store_error};
use crate::object::ObjectKey;
use crate::ports::{StoreError, TopicClaim};

impl Embedded {
    /// Puts in the place of a topic's claim what `change` makes of it; a row that stays the same is not written.
    pub(super) async fn change_claim<T: Send + 'static>(
        &self,
        topic: String,
        change: impl FnOnce(Option<TopicClaim>) -> (Option<TopicClaim>, T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _alone = shared.claiming.lock().unwrap_or_else(PoisonError::into_inner);
            let open = shared.opened()?;
            let row = keys::topic(&topic);
            let stored = open.rows.get(&row).map_err(store_error)?;
            let before = stored.map(|stored| keys::read_claim(&stored)).transpose()?;
            let (after, answer) = change(before.clone());
            if after != before {
                let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
                match &after {
                    Some(claim) => batch.insert(&open.rows, row, keys::write_claim(claim)),
                    None => batch.remove(&open.rows, row),
                }
                shared.commit(&open, batch)?;
            }
            Ok(answer)
        });
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}

/// The claim after `rule` has claimed the topic, which is also the answer; unchanged if it is another tenant's.
pub(super) fn claimed(before: Option<TopicClaim>, rule: &ObjectKey, now_ms: u64) -> (Option<TopicClaim>, TopicClaim) {
    let mut claim =
        before.unwrap_or_else(|| TopicClaim { tenant: rule.tenant.clone(), rules: Vec::new(), claimed_ms: now_ms });
    if claim.tenant == rule.tenant {
        claim.claimed_ms = now_ms;
        if let Err(place) = claim.rules.binary_search(&rule.name) {
            claim.rules.insert(place, rule.name.clone());
        }
    }
    (Some(claim.clone()), claim)
}

/// The claim without `rule`; none without its last rule.
pub(super) fn released(before: Option<TopicClaim>, rule: &ObjectKey) -> Option<TopicClaim> {
    let mut claim = before?;
    if claim.tenant == rule.tenant {
        claim.rules.retain(|name| *name != rule.name);
    }
    Some(claim).filter(|claim| !claim.rules.is_empty())
}
