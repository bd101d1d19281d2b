//! Repeats in the telemetry topic: reads its records, and rebuilds the window of a partition from the log.
//!
//! Whoever consumes telemetry asks the same window ([`RepeatWindow`]) and rebuilds it here, so that all agree.

use std::time::Duration;

use drover_types::limits::REPEAT_WINDOW_MS;
use drover_types::repeat::RepeatWindow;
use drover_types::{InvalidTelemetry, Telemetry};

use crate::{Bus, Offset, Position, ReadError, Stored};

/// Bytes of one read while a window is rebuilt.
const READ_BYTES: usize = 1024 * 1024;
/// Records at the end whose times are looked at: the earliest counts, since clocks of nodes differ.
const NEWEST_RECORDS: Offset = 100;

/// The message that a record of the telemetry topic holds.
pub fn telemetry(stored: &Stored) -> Result<Telemetry, InvalidTelemetry> {
    let record = &stored.record;
    let headers = record.headers.iter().map(|h| (h.name.as_ref(), h.value.as_ref()));
    Telemetry::from_parts(record.value.clone().unwrap_or_default(), headers)
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
    let at = &position.at;
    let bounds = bus.bounds(at).await?;
    let end = position.offset.min(bounds.end);
    if end <= bounds.earliest {
        return Ok(());
    }
    let last =
        bus.read(at, end.saturating_sub(NEWEST_RECORDS).max(bounds.earliest), READ_BYTES, Duration::ZERO).await?;
    let newest =
        last.iter().filter(|stored| stored.position.offset < end).map(|stored| stored.record.timestamp_ms).min();
    let Some(newest) = newest else { return Ok(()) };
    let since = newest.saturating_sub_unsigned(REPEAT_WINDOW_MS);
    let mut next: Offset = bus.offset_at(at, since).await?.max(bounds.earliest);
    while next < end {
        let records = bus.read(at, next, READ_BYTES, Duration::ZERO).await?;
        let Some(last) = records.last() else { break };
        next = last.position.offset + 1;
        for stored in records.iter().take_while(|stored| stored.position.offset < end) {
            if let Ok(message) = telemetry(stored) {
                window.observe(&message);
            }
        }
    }
    Ok(())
}
