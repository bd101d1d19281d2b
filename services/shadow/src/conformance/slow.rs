//! Another store, whose shadows are slow to be put, or hang, where a test wants it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::shadow::ShadowName;
use drover_types::{DeviceId, DeviceKey, TenantId};
use tokio::sync::watch;

use crate::domain::command::{Body, Change, Head};
use crate::domain::{Shadow, ShadowKey};
use crate::ports::{CommandStore, ShadowStore, Store, StoreError};

/// A store behind a long way. Commands go through at once.
pub struct SlowStore {
    store: Arc<dyn Store>,
    /// Before each put of shadows.
    delay: Duration,
    puts_hang: watch::Sender<bool>,
    gets_hang: watch::Sender<bool>,
}

impl SlowStore {
    /// Puts of shadows reach `store` after `delay`.
    pub fn new(store: Arc<dyn Store>, delay: Duration) -> Self {
        Self { store, delay, puts_hang: watch::Sender::new(false), gets_hang: watch::Sender::new(false) }
    }

    /// From now on puts of shadows wait, or those that have waited go on.
    pub fn hang_puts(&self, hang: bool) {
        self.puts_hang.send_replace(hang);
    }

    /// From now on reads of single shadows wait, or those that have waited go on.
    pub fn hang_gets(&self, hang: bool) {
        self.gets_hang.send_replace(hang);
    }
}

/// Waits until nothing hangs.
async fn pass(hangs: &watch::Sender<bool>) {
    hangs.subscribe().wait_for(|hangs| !hangs).await.expect("its sender is borrowed");
}

#[async_trait]
impl ShadowStore for SlowStore {
    async fn get(&self, key: &ShadowKey) -> Result<Option<Shadow>, StoreError> {
        pass(&self.gets_hang).await;
        self.store.get(key).await
    }

    async fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError> {
        self.store.names(device).await
    }

    async fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        self.store.open_deltas(tenant, after, limit).await
    }

    async fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        self.store.next(partition).await
    }

    async fn put(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: Vec<(ShadowKey, Shadow)>,
    ) -> Result<(), StoreError> {
        tokio::time::sleep(self.delay).await;
        pass(&self.puts_hang).await;
        self.store.put(partition, from, next, shadows).await
    }
}

#[async_trait]
impl CommandStore for SlowStore {
    async fn command_heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError> {
        self.store.command_heads(device).await
    }

    async fn command_body(&self, device: &DeviceKey, head: &Head) -> Result<Option<Body>, StoreError> {
        self.store.command_body(device, head).await
    }

    async fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        self.store.commands_next(partition).await
    }

    async fn put_commands(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        self.store.put_commands(partition, from, next, changes).await
    }

    async fn command_sent(&self, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError> {
        self.store.command_sent(device, head, sent_ms).await
    }

    async fn forget_commands(
        &self,
        before_ms: u64,
        after: Option<&DeviceKey>,
    ) -> Result<Option<DeviceKey>, StoreError> {
        self.store.forget_commands(before_ms, after).await
    }
}
