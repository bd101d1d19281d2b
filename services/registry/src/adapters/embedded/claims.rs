//! Claims of Kafka topics in the embedded store: one row a topic, read and written by one caller at a time.

use std::sync::PoisonError;

use fjall::PersistMode;

use super::{Embedded, keys, store_error};
use crate::adapters::claims;
use crate::ports::{StoreError, TopicClaim};

impl Embedded {
    /// A topic's claim.
    pub(super) async fn claim_of(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError> {
        let row = keys::topic(topic);
        self.read(move |open| {
            let stored = open.rows.get(row).map_err(store_error)?;
            stored.map(|stored| claims::read(&stored)).transpose()
        })
        .await
    }

    /// Puts in the place of a topic's claim what `change` makes of it; a row that stays the same is not written.
    pub(super) async fn change_claim<T: Send + 'static>(
        &self,
        topic: String,
        change: impl FnOnce(Option<TopicClaim>) -> (Option<TopicClaim>, T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _alone = shared.claiming.lock().unwrap_or_else(PoisonError::into_inner);
            let open = shared.database.opened()?;
            let row = keys::topic(&topic);
            let stored = open.rows.get(&row).map_err(store_error)?;
            let before = stored.map(|stored| claims::read(&stored)).transpose()?;
            let (after, answer) = change(before.clone());
            if after != before {
                let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
                match &after {
                    Some(claim) => batch.insert(&open.rows, row, claims::write(claim)),
                    None => batch.remove(&open.rows, row),
                }
                shared.database.commit(&open, batch)?;
            }
            Ok(answer)
        });
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}
