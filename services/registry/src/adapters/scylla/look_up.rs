//! Many look-ups at once: each is a call of its own, with its own time, and a bounded number of them is under way. One that
//! hangs, as the replicas of its key do, is given up long before whoever asks for all of them loses patience.

use std::time::Duration;

use futures::future::{BoxFuture, join3};
use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::Scylla;
use crate::ports::{Found, Lookups, RegistryStore, StoreError};

/// Requests of one kind and call under way at once.
const CONCURRENT: usize = 32;
/// How long one of them may take. An authentication looks things up three times, one after the other, within the five
/// seconds that an ingress gives it by default.
const EACH: Duration = Duration::from_secs(1);

impl Scylla {
    pub(super) async fn look_up_each(&self, wanted: &Lookups) -> Found {
        let mut objects = Vec::with_capacity(wanted.objects.len());
        for key in &wanted.objects {
            objects.push(self.get(key));
        }
        let mut by_digest = Vec::with_capacity(wanted.digests.len());
        for digest in &wanted.digests {
            by_digest.push(self.credential_by_digest(digest));
        }
        let mut had_credentials = Vec::with_capacity(wanted.had_credentials.len());
        for device in &wanted.had_credentials {
            had_credentials.push(self.has_had_credentials(device));
        }
        let (objects, by_digest, had_credentials) = join3(all(objects), all(by_digest), all(had_credentials)).await;
        Found { objects, by_digest, had_credentials }
    }
}

/// The outcomes of these reads, in their order. One that hangs keeps its own place among those under way, and no other.
async fn all<T: Send>(reads: Vec<BoxFuture<'_, Result<T, StoreError>>>) -> Vec<Result<T, StoreError>> {
    let mut timed = Vec::with_capacity(reads.len());
    for (place, read) in reads.into_iter().enumerate() {
        timed.push(async move { (place, timeout(EACH, read).await.unwrap_or_else(|_| Err(late()))) });
    }
    let mut outcomes: Vec<(usize, Result<T, StoreError>)> =
        stream::iter(timed).buffer_unordered(CONCURRENT).collect().await;
    outcomes.sort_unstable_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn late() -> StoreError {
    StoreError::Unavailable { reason: format!("cassandra did not answer within {EACH:?}") }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::{pending, ready};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_given_up_and_holds_up_no_other() {
        let mut reads: Vec<BoxFuture<'_, Result<usize, StoreError>>> = vec![pending().boxed()];
        reads.extend((1..4 * CONCURRENT).map(|place| ready(Ok(place)).boxed()));
        let began = Instant::now();
        let outcomes = all(reads).await;
        assert!(began.elapsed() < EACH * 2, "{:?}", began.elapsed());
        assert_eq!(outcomes[0], Err(late()));
        let others: Vec<Result<usize, StoreError>> = (1..4 * CONCURRENT).map(Ok).collect();
        assert_eq!(outcomes[1..], others);
    }
}
