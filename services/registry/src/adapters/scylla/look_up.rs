//! Many look-ups at once: each is a call of its own, with its own time, and a bounded number of them is under way.

use futures::future::{BoxFuture, join3};
use futures::{StreamExt, stream};

use super::Scylla;
use crate::ports::{Found, Lookups, RegistryStore, StoreError};

/// Requests of one kind and call under way at once.
const CONCURRENT: usize = 32;

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

/// The outcomes of these reads, in their order.
async fn all<T>(reads: Vec<BoxFuture<'_, Result<T, StoreError>>>) -> Vec<Result<T, StoreError>> {
    stream::iter(reads).buffered(CONCURRENT).collect().await
}
