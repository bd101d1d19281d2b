//! When devices were last heard of: by the last message of each that is kept.

use std::time::Duration;

use drover_types::{ApiError, DeviceKey};
use futures::stream::{self, StreamExt};
use tokio::time::timeout;

use super::query::Queries;
use crate::ports::Limit;
use crate::series::Place;

/// Devices of one question.
const DEVICES_MAX: usize = 1_000;
/// Devices looked up at once.
const AT_ONCE: usize = 16;
/// How long the store may take to tell of all: who asks waits for a second.
const PATIENCE: Duration = Duration::from_millis(800);
/// Messages and rows of rules that are passed over until a device's own message is found; behind more of them it counts
/// as silent. So it is only where the store does not keep the time apart.
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
    /// When the last message of each device came, milliseconds since the Unix epoch; in the order of `devices`. What the
    /// store has not told in time is left out; the error: it has told nothing and refused something.
    pub async fn last_heard(&self, devices: &[DeviceKey]) -> Result<Vec<Option<u64>>, ApiError> {
        let (from_ms, last) = (self.horizon_ms(), Place::last_of(self.clock.now_ms()));
        let (mut heard, mut refused) = (vec![None; devices.len()], None);
        let asked = devices.iter().enumerate();
        let asked: Vec<_> =
            asked.map(|(i, device)| async move { (i, self.heard(device, from_ms, last).await) }).collect();
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        let collecting = async {
            while let Some((i, answer)) = answers.next().await {
                match answer {
                    Ok(time_ms) => heard[i] = time_ms,
                    Err(error) => refused = Some(error),
                }
            }
        };
        let ended = timeout(PATIENCE, collecting).await;
        if ended.is_err() {
            tracing::debug!(devices = devices.len(), "the store is too slow to tell of all when they were heard");
        }
        match refused.filter(|_| heard.iter().all(Option::is_none)) {
            Some(error) => Err(error),
            None => Ok(heard),
        }
    }

    async fn heard(&self, device: &DeviceKey, from_ms: u64, mut last: Place) -> Result<Option<u64>, ApiError> {
        if let Some(time_ms) = self.store.heard(device).await? {
            return Ok(Some(time_ms).filter(|time_ms| *time_ms >= from_ms));
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use drover_types::{DeviceId, FixedClock, TenantId};

    use super::*;
    use crate::ports::{Expired, Page, SeriesStore, StoreError};
    use crate::series::{Entry, Field, Message, Point, Series};

    /// Was told of by `known` at 7, refuses `broken`, and never answers about `slow`.
    struct Slow;

    fn refused() -> StoreError {
        StoreError::Unavailable { reason: "it is broken".to_owned() }
    }

    #[async_trait]
    impl SeriesStore for Slow {
        async fn heard(&self, device: &DeviceKey) -> Result<Option<u64>, StoreError> {
            match device.device.as_str() {
                "known" => Ok(Some(7)),
                "broken" => Err(refused()),
                _ => std::future::pending().await,
            }
        }

        async fn store(&self, _: Arc<Vec<Entry>>) -> Result<(), StoreError> {
            Err(refused())
        }

        async fn newest(&self, _: &DeviceKey, _: &str, _: Limit) -> Result<Page<Point, Field>, StoreError> {
            Err(refused())
        }

        async fn points(&self, _: &Series, _: Place, _: u64, _: Limit) -> Result<Page<Point, Place>, StoreError> {
            Err(refused())
        }

        async fn points_back(&self, _: &Series, _: u64, _: Place, _: Limit) -> Result<Page<Point, Place>, StoreError> {
            Err(refused())
        }

        async fn messages(
            &self,
            _: &DeviceKey,
            _: u64,
            _: Place,
            _: Limit,
        ) -> Result<Page<Message, Place>, StoreError> {
            Err(refused())
        }

        async fn devices(
            &self,
            _: &TenantId,
            _: Option<Vec<u8>>,
            _: usize,
        ) -> Result<Page<DeviceId, Vec<u8>>, StoreError> {
            Err(refused())
        }

        async fn expire(&self, _: u64, _: Option<Vec<u8>>) -> Result<Expired, StoreError> {
            Err(refused())
        }
    }

    async fn heard(names: &[&str], retention_ms: Option<u64>) -> Result<Vec<Option<u64>>, ApiError> {
        let device = |name: &&str| DeviceKey {
            tenant: TenantId::new("home").expect("valid"),
            device: DeviceId::new(*name).expect("valid"),
        };
        let devices: Vec<DeviceKey> = names.iter().map(device).collect();
        Queries { store: Arc::new(Slow), clock: Arc::new(FixedClock::at(10)), retention_ms }.last_heard(&devices).await
    }

    #[tokio::test]
    async fn what_is_known_in_time_is_told_whatever_else_the_store_does_not_know() {
        assert_eq!(heard(&["slow", "known", "broken"], None).await, Ok(vec![None, Some(7), None]));
        assert_eq!(heard(&["known"], Some(3)).await, Ok(vec![Some(7)]));
        assert_eq!(heard(&["known"], Some(2)).await, Ok(vec![None]), "it is older than what is shown");
        assert!(heard(&["broken"], None).await.is_err(), "nothing is known");
    }
}
