//! Several nodes and nothing that they share: epochs are as good as the nodes' clocks, and every node is asked.
//!
//! A device that moves to a node whose clock is behind by more than the time since it last connected gets an epoch that
//! is too low. The former node knows better while it is there, and the connection is refused; else the device's presence
//! is believed again when its epochs have caught up.

use std::sync::Arc;

use async_trait::async_trait;
use drover_types::{ClientId, Clock, TenantId};

use super::epochs::Epochs;
use crate::ports::{Former, Owner, Owners, OwnersError, Taken};

/// The owners of a platform whose nodes share no database.
pub struct Clocks {
    epochs: Epochs,
}

impl Clocks {
    /// Those of the start with this number.
    pub fn new(clock: Arc<dyn Clock>, boot: u32) -> Self {
        Self { epochs: Epochs::new(clock, boot) }
    }
}

#[async_trait]
impl Owners for Clocks {
    async fn take(&self, _: &TenantId, _: &ClientId) -> Result<Taken, OwnersError> {
        Ok(Taken { epoch: self.epochs.after(0), former: Former::Anyone })
    }

    async fn owner(&self, _: &TenantId, _: &ClientId) -> Result<Option<Owner>, OwnersError> {
        Ok(None)
    }

    async fn take_if(&self, _: &TenantId, _: &ClientId, _: Option<Owner>) -> Result<Option<u64>, OwnersError> {
        Ok(Some(self.epochs.after(0)))
    }

    async fn renew(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<(), OwnersError> {
        Ok(())
    }
}
