//! One node alone: epochs are its boot number and a counter, `boot << 32 | n`, so those of a later boot are higher
//! whatever clocks say.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use drover_types::{ClientId, TenantId};

use crate::ports::{Former, Owner, Owners, OwnersError, Taken};

/// The owners of a platform with one ingress node.
pub struct Embedded {
    last: AtomicU64,
}

impl Embedded {
    /// Those of the start with this number.
    pub fn new(boot: u32) -> Self {
        Self { last: AtomicU64::new(u64::from(boot) << 32) }
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[async_trait]
impl Owners for Embedded {
    async fn take(&self, _: &TenantId, _: &ClientId) -> Result<Taken, OwnersError> {
        Ok(Taken { epoch: self.next(), former: Former::Here })
    }

    async fn owner(&self, _: &TenantId, _: &ClientId) -> Result<Option<Owner>, OwnersError> {
        Ok(None)
    }

    async fn take_if(&self, _: &TenantId, _: &ClientId, _: Option<Owner>) -> Result<Option<u64>, OwnersError> {
        Ok(Some(self.next()))
    }

    async fn renew(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<(), OwnersError> {
        Ok(())
    }
}
