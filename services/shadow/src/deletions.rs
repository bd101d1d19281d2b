//! Devices that the registry has deleted: for each one a request to forget its shadows, and one to forget its
//! commands, at least once.
//!
//! The tombstone that follows a deletion in `drover.registry.changes` tells of it: its key says which device, and
//! compaction leaves it for a day. What becomes of shadows and commands is decided where all
//! requests are.

use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::{Bus, Stored};
use drover_host::{CarryOut, InOrder, Shutdown};
use drover_types::{Clock, DeviceId, DeviceKey, REGISTRY_CHANGES_TOPIC, TenantId};

use crate::domain::command::forget_record;
use crate::domain::{deletion_id, forget_request};
use crate::telemetry::Telemetry;

/// Consumer group of this loop.
const DELETIONS_GROUP: &str = "drover.shadow.deletions";
/// Changes of one poll.
const POLL_RECORDS: usize = 500;
/// First level of the keys of devices.
const DEVICE: &str = "device";

/// The loop over `drover.registry.changes`.
pub struct Deletions {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Telemetry,
}

impl Deletions {
    /// Works until `shutdown`, as `member` of the group.
    pub async fn run(self, member: String, shutdown: Shutdown) {
        let (bus, topic) = (Arc::clone(&self.bus), REGISTRY_CHANGES_TOPIC);
        InOrder { bus, group: DELETIONS_GROUP, member, topic, poll_records: POLL_RECORDS }.run(&self, &shutdown).await;
    }
}

#[async_trait]
impl CarryOut for Deletions {
    async fn carry_out(&self, stored: &Stored) -> Result<(), String> {
        let Some(device) = deleted(stored) else { return Ok(()) };
        let deleted_ms = stored.record.timestamp_ms.unsigned_abs();
        let (id, now_ms) = (deletion_id(deleted_ms, &stored.position), self.clock.now_ms());
        let requests =
            vec![forget_request(&device, deleted_ms, id, now_ms), forget_record(&device, deleted_ms, id, now_ms)];
        let receipt = self.bus.append(requests).await.map_err(|error| error.to_string())?;
        receipt.await.map_err(|error| error.to_string())?;
        self.telemetry.deletions.inc();
        Ok(())
    }
}

/// The device whose deletion a record tells of.
fn deleted(stored: &Stored) -> Option<DeviceKey> {
    if stored.record.value.is_some() {
        return None;
    }
    let mut key = std::str::from_utf8(stored.record.key.as_deref()?).ok()?.splitn(3, '/');
    let (kind, tenant, device) = (key.next()?, key.next()?, key.next()?);
    let device = DeviceKey { tenant: TenantId::new(tenant).ok()?, device: DeviceId::new(device).ok()? };
    (kind == DEVICE).then_some(device)
}
