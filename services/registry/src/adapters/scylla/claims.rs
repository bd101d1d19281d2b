//! Claims of Kafka topics: one row a topic, changed by compare-and-set on the whole of it.

use drover_scylla_kit::Failure;

use super::Scylla;
use crate::adapters::claims;
use crate::ports::{StoreError, TopicClaim};

/// How often a claim starts over because others changed the same topic's meanwhile.
const TRIES_MAX: usize = 64;

impl Scylla {
    /// A topic's claim.
    pub(super) async fn claim_of(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError> {
        let stored: Option<(Option<Vec<u8>>,)> = self.store.row(&self.statements.topic, (topic,)).await?;
        stored.and_then(|(claim,)| claim).as_deref().map(claims::read).transpose()
    }

    /// Puts in the place of a topic's claim what `change` makes of it; a row that stays the same is not written. A
    /// change whose fate is unknown is made again on what is there now, so `change` made twice must be as made once.
    pub(super) async fn change_claim<T>(
        &self,
        topic: &str,
        change: impl Fn(Option<TopicClaim>) -> (Option<TopicClaim>, T),
    ) -> Result<T, StoreError> {
        let (mut read, mut failure) = (&self.statements.topic, None);
        for _ in 0..TRIES_MAX {
            let stored: Option<(Option<Vec<u8>>,)> = self.store.row(read, (topic,)).await?;
            let stored = stored.and_then(|(claim,)| claim);
            let before = stored.as_deref().map(claims::read).transpose()?;
            let (after, answer) = change(before.clone());
            if after == before {
                return Ok(answer);
            }
            let row = after.as_ref().map(claims::write);
            match self.store.try_write(&self.statements.claim_topic, (row, topic, stored)).await {
                Ok(true) => return Ok(answer),
                Ok(false) => {}
                Err(unknown @ Failure::Unavailable { .. }) => failure = Some(unknown),
                Err(refused) => return Err(refused.into()),
            }
            read = &self.statements.settled_topic;
        }
        let contended = || StoreError::Unavailable { reason: format!("topic {topic} is claimed by too many at once") };
        Err(failure.map_or_else(contended, StoreError::from))
    }
}
