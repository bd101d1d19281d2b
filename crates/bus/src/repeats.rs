//! Repeats in the telemetry topic: reads its records, and rebuilds the window of a partition from the log.
//!
//! Whoever consumes telemetry asks the same window ([`RepeatWindow`]) and rebuilds it here, so that all agree.

use std::time::Duration;

use drover_types::limits::REPEAT_WINDOW_MS;
use drover_types::repeat::RepeatWindow;
use drover_types::{InvalidTelemetry, Telemetry};
use futures::future::try_join_all;

use crate::{Bus, Offset, Position, ReadError, Stored, TopicPartition};

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Windows that are read back at a time.
const AT_ONCE: usize = 8;
/// Records at the end whose times are looked at: the earliest counts, since clocks of nodes differ.
const NEWEST_RECORDS: Offset = 100;

/// The message that a record of the telemetry topic holds.
pub fn telemetry(stored: &Stored) -> Result<Telemetry, InvalidTelemetry> {
    let record = &stored.record;
    Telemetry::from_parts(record.value.clone().unwrap_or_default(), &record.headers)
}

/// As [`window_before`], of several partitions side by side: in the order of `positions`.
pub async fn windows_before(bus: &dyn Bus, positions: &[Position]) -> Result<Vec<RepeatWindow>, ReadError> {
    let mut windows = Vec::with_capacity(positions.len());
    for some in positions.chunks(AT_ONCE) {
        windows.extend(try_join_all(some.iter().map(|position| window_before(bus, position))).await?);
    }
    Ok(windows)
}

/// The repeat window as the records before `position` leave it; one that cannot be read leaves no trace in it. Where
/// the log is damaged the window knows only what lies before the damage, and says so: in doubt a record is new.
pub async fn window_before(bus: &dyn Bus, position: &Position) -> Result<RepeatWindow, ReadError> {
    let mut window = RepeatWindow::default();
    match fill(bus, position, &mut window).await {
        Ok(()) => Ok(window),
        Err(ReadError::Corrupt { reason }) => {
            let Position { at, offset } = position;
            tracing::error!(reason, at.partition, offset, "repeats from before the damage may be taken for new");
            Ok(window)
        }
        Err(error @ (ReadError::Unknown { .. } | ReadError::OutOfRange { .. } | ReadError::Unavailable { .. })) => {
            Err(error)
        }
    }
}

async fn fill(bus: &dyn Bus, position: &Position, window: &mut RepeatWindow) -> Result<(), ReadError> {
    let Some(since) = window_start(bus, position).await? else { return Ok(()) };
    let observe = |stored: &Stored| {
        if let Ok(message) = telemetry(stored) {
            window.observe(&message);
        }
    };
    each_since(bus, &position.at, since, position.offset, observe).await
}

/// When the window of the records before `position` begins, in milliseconds since the Unix epoch; `None`: there are none.
pub async fn window_start(bus: &dyn Bus, position: &Position) -> Result<Option<i64>, ReadError> {
    let bounds = bus.bounds(&position.at).await?;
    let end = position.offset.min(bounds.end);
    if end <= bounds.earliest {
        return Ok(None);
    }
    let newest = end.saturating_sub(NEWEST_RECORDS).max(bounds.earliest);
    let last = bus.read(&position.at, newest, READ_BYTES, Duration::ZERO).await?;
    let before = last.iter().filter(|stored| stored.position.offset < end);
    let newest_ms = before.map(|stored| stored.record.timestamp_ms).min();
    Ok(newest_ms.map(|newest_ms| newest_ms.saturating_sub_unsigned(REPEAT_WINDOW_MS)))
}

/// Every record from `since` (milliseconds since the Unix epoch) up to the offset `end`, or to the end of the partition,
/// what is being decided included.
pub async fn each_since(
    bus: &dyn Bus,
    at: &TopicPartition,
    since: i64,
    end: Offset,
    mut each: impl FnMut(&Stored),
) -> Result<(), ReadError> {
    let bounds = bus.settled_bounds(at).await?;
    let end = end.min(bounds.end);
    let mut next = bus.offset_at(at, since).await?.max(bounds.earliest);
    while next < end {
        let records = bus.read(at, next, READ_BYTES, Duration::ZERO).await?;
        let Some(last) = records.last() else { break };
        next = last.position.offset + 1;
        records.iter().take_while(|stored| stored.position.offset < end).for_each(&mut each);
    }
    Ok(())
}
