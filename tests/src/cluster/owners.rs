//! Whose a session is, as one life of a node hears it: slowly, and broken on purpose.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_ingress::NodeOwners;
use drover_ingress::ports::{Former, Owner, Owners, OwnersError, Taken};
use drover_sim::SeededRandom;
use drover_types::{ClientId, TenantId};
use tokio_util::sync::CancellationToken;

use crate::world::severed::through;

/// Longest time that a call takes, milliseconds; none takes less than one, as in a database.
const DELAY_MS_MAX: u64 = 10;

/// What is broken; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnersFlaws {
    /// Each node gives epochs by itself, as if there was no other.
    pub unshared: bool,
    /// Whoever takes a session is told that nobody had it, so the former owner is not.
    pub nobody_before: bool,
}

/// After the line is severed no call begins, and none that has begun ends.
pub struct SeverableOwners {
    pub inner: NodeOwners,
    pub severed: CancellationToken,
    pub random: Arc<SeededRandom>,
    pub flaws: OwnersFlaws,
}

impl SeverableOwners {
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let slowly = async {
            tokio::time::sleep(Duration::from_millis(1 + self.random.below(DELAY_MS_MAX))).await;
            call.await
        };
        through(&self.severed, slowly).await
    }
}

#[async_trait]
impl Owners for SeverableOwners {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        let taken = self.call(self.inner.take(tenant, client)).await?;
        Ok(if self.flaws.nobody_before { Taken { former: Former::Here, ..taken } } else { taken })
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        self.call(self.inner.owner(tenant, client)).await
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        self.call(self.inner.take_if(tenant, client, owner)).await
    }

    async fn renew(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<(), OwnersError> {
        self.call(self.inner.renew(tenant, client, epoch)).await
    }
}
