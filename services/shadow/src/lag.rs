//! Whether the store has what the log has: a list of a view that is still being filled would tell too little.

use std::time::Duration;

use drover_bus::{Bus, Partition, ReadError, TopicPartition};
use drover_types::{ApiError, ErrorCode};
use futures::{StreamExt, TryStreamExt, stream};

use crate::ports::ShadowStore;
use crate::topics::DOCUMENTS_TOPIC;

/// How old a document may be that the store has not got, milliseconds: it is on its way there.
pub const LAG_MS_MAX: u64 = 60_000;
/// Partitions that are looked at at a time.
const LOOKS: usize = 8;

/// `UNAVAILABLE` while the store lacks a document that at `now_ms` (since the Unix epoch) is older than [`LAG_MS_MAX`].
pub async fn check(bus: &dyn Bus, store: &dyn ShadowStore, partitions: u32, now_ms: u64) -> Result<(), ApiError> {
    let looks = (0..partitions).map(|partition| check_one(bus, store, partition, now_ms));
    stream::iter(looks).buffer_unordered(LOOKS).try_collect::<()>().await
}

async fn check_one(bus: &dyn Bus, store: &dyn ShadowStore, partition: Partition, now_ms: u64) -> Result<(), ApiError> {
    let at = TopicPartition::new(DOCUMENTS_TOPIC, partition);
    // Before the bounds: it moves on meanwhile.
    let kept = store.next(partition).await?.unwrap_or_default();
    let bounds = bus.bounds(&at).await.map_err(unavailable)?;
    let is_of_another_log = kept > bounds.end;
    let from = kept.clamp(bounds.earliest, bounds.end);
    let lacking = bus.read(&at, from, 1, Duration::ZERO).await.map_err(unavailable)?.into_iter().next();
    let is_old = |time_ms: i64| time_ms.unsigned_abs().saturating_add(LAG_MS_MAX) < now_ms;
    if is_of_another_log || lacking.is_some_and(|stored| is_old(stored.record.timestamp_ms)) {
        let message = format!("the shadow store is behind {DOCUMENTS_TOPIC}, partition {partition} at offset {kept}");
        return Err(ApiError::new(ErrorCode::Unavailable, message));
    }
    Ok(())
}

fn unavailable(error: ReadError) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, error.to_string())
}
