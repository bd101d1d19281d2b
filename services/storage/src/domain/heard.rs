//! When devices were last heard of: by the last message of each that is kept.

use drover_types::{ApiError, DeviceKey};
use futures::future::try_join_all;

use super::query::Queries;
use crate::ports::Limit;
use crate::series::Place;

/// Devices of one question.
const DEVICES_MAX: usize = 1_000;
/// Devices looked up at once.
const AT_ONCE: usize = 16;
/// Messages and rows of rules that are passed over until a device's own message is found; behind more of them it counts as silent.
const ROWS_PASSED_MAX: usize = 16;
/// One row, whatever its size.
const ONE: Limit = Limit { rows: 1, bytes: 1 };

/// The number of devices asked about; `key` names them.
pub fn check_devices(key: &str, count: usize) -> Result<(), ApiError> {
    if (1..=DEVICES_MAX).contains(&count) {
        return Ok(());
    }
    Err(ApiError::invalid(key, format!("has {count} entries, allowed are 1 to {DEVICES_MAX}")).over(DEVICES_MAX, count))
}

impl Queries {
    /// When the last message of each device came, milliseconds since the Unix epoch; in the order of `devices`.
    pub async fn last_heard(&self, devices: &[DeviceKey]) -> Result<Vec<Option<u64>>, ApiError> {
        let (from_ms, last) = (self.horizon_ms(), Place::last_of(self.clock.now_ms()));
        let mut heard = Vec::with_capacity(devices.len());
        for some in devices.chunks(AT_ONCE) {
            let asked: Vec<_> = some.iter().map(|device| self.heard(device, from_ms, last)).collect();
            heard.extend(try_join_all(asked).await?);
        }
        Ok(heard)
    }

    async fn heard(&self, device: &DeviceKey, from_ms: u64, mut last: Place) -> Result<Option<u64>, ApiError> {
        for _ in 0..=ROWS_PASSED_MAX {
            let page = self.store.messages(device, from_ms, last, ONE).await?;
            let own = page.rows.first().filter(|message| message.is_own());
            match (own, page.next) {
                (Some(message), _) => return Ok(Some(message.at.time_ms)),
                (None, Some(next)) => last = next,
                (None, None) => return Ok(None),
            }
        }
        Ok(None)
    }
}
