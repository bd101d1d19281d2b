//! Owners in memory, shared by several nodes, as a database would have them.
//!
//! Adapter layer, of tests only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_types::{ClientId, Clock, TenantId};

use super::epochs::Epochs;
use crate::domain::sessions::Key;
use crate::ports::{Former, Owner, Owners, OwnersError, Taken};

/// What all nodes have taken.
#[derive(Clone, Default)]
pub struct SharedOwners(Arc<Mutex<BTreeMap<Key, Owner>>>);

impl SharedOwners {
    /// The owners as the node of this name has them at its `boot`th start.
    pub fn of(&self, node: &str, clock: Arc<dyn Clock>, boot: u32) -> NodeOwners {
        NodeOwners { all: self.clone(), node: node.to_owned(), epochs: Epochs::new(clock, boot) }
    }

    /// Who the owner of a session is.
    pub fn owner(&self, tenant: &TenantId, client: &ClientId) -> Option<Owner> {
        self.all().get(&(tenant.clone(), client.clone())).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owners as one node has them.
pub struct NodeOwners {
    all: SharedOwners,
    node: String,
    epochs: Epochs,
}

impl NodeOwners {
    fn taken_from(&self, former: Option<&Owner>) -> Owner {
        Owner { node: self.node.clone(), epoch: self.epochs.after(former.map_or(0, |former| former.epoch)) }
    }
}

#[async_trait]
impl Owners for NodeOwners {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        let mut all = self.all.all();
        let key = (tenant.clone(), client.clone());
        let owner = self.taken_from(all.get(&key));
        let epoch = owner.epoch;
        let former = all.insert(key, owner).filter(|former| former.node != self.node);
        Ok(Taken { epoch, former: former.map_or(Former::Here, |former| Former::Node(former.node)) })
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        Ok(self.all.owner(tenant, client))
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        let mut all = self.all.all();
        let key = (tenant.clone(), client.clone());
        if all.get(&key) != owner.as_ref() {
            return Ok(None);
        }
        let owner = self.taken_from(owner.as_ref());
        let epoch = owner.epoch;
        all.insert(key, owner);
        Ok(Some(epoch))
    }

    async fn renew(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<(), OwnersError> {
        Ok(()) // nothing is forgotten here
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use drover_types::FixedClock;

    use super::*;
    use crate::conformance::{Factory, alone, shared};

    struct Memory(SharedOwners);

    #[async_trait]
    impl Factory for Memory {
        async fn open(&self, node: &str, boot: u32) -> Arc<dyn Owners> {
            Arc::new(self.0.of(node, Arc::new(FixedClock::at(1_795_000_000_000)), boot))
        }
    }

    /// With a clock that is an hour behind the one before at each start.
    #[derive(Default)]
    struct SetBack {
        owners: SharedOwners,
        starts: AtomicU64,
    }

    #[async_trait]
    impl Factory for SetBack {
        async fn open(&self, node: &str, boot: u32) -> Arc<dyn Owners> {
            let starts = self.starts.fetch_add(1, Ordering::Relaxed);
            Arc::new(self.owners.of(node, Arc::new(FixedClock::at(1_795_000_000_000 - starts * 3_600_000)), boot))
        }
    }

    #[tokio::test]
    async fn epochs_grow_over_starts_also_where_the_clock_is_set_back() {
        alone(&SetBack::default()).await;
        shared(&SetBack::default()).await;
    }

    #[tokio::test]
    async fn owners_in_memory_keep_every_promise() {
        alone(&Memory(SharedOwners::default())).await;
        shared(&Memory(SharedOwners::default())).await;
    }
}
