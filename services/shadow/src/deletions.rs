//! Devices that the registry has deleted: for each one a request to forget its shadows, at least once.
//!
//! The tombstone that follows a deletion in `drover.registry.changes` tells of it: its key says which device, and
//! compaction leaves it for a day. What becomes of the shadows is decided where all requests are.

use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::{Bus, Stored};
use drover_host::{CarryOut, InOrder, Shutdown};
use drover_types::{Clock, DeviceId, DeviceKey, TenantId};

use crate::domain::forget_request;
use crate::telemetry::Telemetry;
use crate::topics::REGISTRY_CHANGES_TOPIC;

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
        let request = forget_request(&device, deleted_ms, &stored.position, self.clock.now_ms());
        let receipt = self.bus.append(vec![request]).await.map_err(|error| error.to_string())?;
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
