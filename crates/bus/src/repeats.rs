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

/// The message that a record of the telemetry topic holds.
pub fn telemetry(stored: &Stored) -> Result<Telemetry, InvalidTelemetry> {
    let record = &stored.record;
    let headers = record.headers.iter().map(|h| (h.name.as_ref(), h.value.as_ref()));
    Telemetry::from_parts(record.value.clone().unwrap_or_default(), headers)
}

/// The repeat window as the records before `position` leave it; one that cannot be read leaves no trace in it.
pub async fn window_before(bus: &dyn Bus, position: &Position) -> Result<RepeatWindow, ReadError> {
    let (at, end) = (&position.at, position.offset);
    let mut window = RepeatWindow::default();
    let earliest = bus.bounds(at).await?.earliest;
    if end <= earliest {
        return Ok(window);
    }
    let last = bus.read(at, (end - 1).max(earliest), 1, Duration::ZERO).await?;
    let Some(newest) = last.first() else { return Ok(window) };
    let since = newest.record.timestamp_ms.saturating_sub_unsigned(REPEAT_WINDOW_MS);
    let mut next: Offset = bus.offset_at(at, since).await?.max(earliest);
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
    Ok(window)
}
