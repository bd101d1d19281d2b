//! What a partition's owner knows when it begins: brought back from the log.
//!
//! The store is brought up to the last document, and the window of repeats is filled from the requests that were
//! carried out and the answers they got. Nothing here is needed after a stop in good order; nothing is lost without it.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_bus::repeats::{each_since, window_start};
use drover_bus::{Bus, Offset, Partition, Position, ReadError, Stored, TopicPartition};
use drover_proto::shadow::v1::Delivery;
use prost::Message as _;

use crate::domain::{Repeats, Request, Shadow, ShadowKey};
use crate::ports::{ShadowStore, StoreError};
use crate::telemetry::Telemetry;
use crate::topics::{DOCUMENTS_TOPIC, REPLIES_TOPIC};

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;

/// Why it cannot be brought back now.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the shadow store has documents before offset {kept} of partition {partition}, {DOCUMENTS_TOPIC} ends at {end}: it is the view of another log; give it an empty directory or keyspace"
    )]
    Ahead { partition: Partition, kept: Offset, end: Offset },
}

/// Brings the store up to the last document of a partition; the offset after it, which the store then has as well.
pub async fn view(
    bus: &dyn Bus,
    store: &dyn ShadowStore,
    partition: Partition,
    telemetry: &Telemetry,
) -> Result<Offset, RestoreError> {
    let at = TopicPartition::new(DOCUMENTS_TOPIC, partition);
    // Whoever had the partition before may have ended in the middle of a transaction.
    let bounds = bus.settled_bounds(&at).await?;
    let kept = store.next(partition).await?;
    if let Some(kept) = kept.filter(|kept| *kept > bounds.end) {
        return Err(RestoreError::Ahead { partition, kept, end: bounds.end });
    }
    let mut next = kept.unwrap_or(bounds.earliest).max(bounds.earliest);
    let mut from = kept.unwrap_or_default();
    while next < bounds.end {
        let documents = bus.read(&at, next, READ_BYTES, Duration::ZERO).await?;
        let Some(last) = documents.last() else { break };
        next = last.position.offset + 1;
        // Of each shadow the last: their versions follow each other in the log.
        let shadows: BTreeMap<_, _> = documents.iter().filter_map(|stored| document(stored, telemetry)).collect();
        telemetry.restored.inc_by(shadows.len() as u64);
        store.put(partition, from, next, shadows.into_iter().collect()).await?;
        from = next;
    }
    Ok(from)
}

fn document(stored: &Stored, telemetry: &Telemetry) -> Option<(ShadowKey, Shadow)> {
    let record = &stored.record;
    let key = std::str::from_utf8(record.key.as_deref().unwrap_or_default()).ok().and_then(ShadowKey::parse);
    match (key, Shadow::from_json(record.value.as_deref().unwrap_or_default())) {
        (Some(key), Ok(shadow)) => Some((key, shadow)),
        (None, _) => {
            telemetry.malformed(&stored.position, &"its key is not tenant/device or tenant/device/name");
            None
        }
        (Some(_), Err(error)) => {
            telemetry.malformed(&stored.position, &error);
            None
        }
    }
}

/// What was seen and answered before `position` of the requests.
pub async fn repeats(bus: &dyn Bus, position: &Position) -> Result<Repeats, ReadError> {
    let mut repeats = Repeats::default();
    let Some(since) = window_start(bus, position).await? else { return Ok(repeats) };
    each_since(bus, &position.at, since, position.offset, |stored| {
        if let Ok(request) = Request::read(stored) {
            repeats.observe(request.message());
        }
    })
    .await?;
    let replies = TopicPartition::new(REPLIES_TOPIC, position.at.partition);
    each_since(bus, &replies, since, Offset::MAX, |stored| {
        let delivery = Delivery::decode(stored.record.value.clone().unwrap_or_default());
        let answer = delivery.ok().and_then(|delivery| delivery.answer);
        if let Some(identity) = answer.and_then(|answer| answer.identity.try_into().ok()) {
            repeats.answered(identity, stored.record.timestamp_ms.unsigned_abs(), stored.position.offset);
        }
    })
    .await?;
    Ok(repeats)
}
