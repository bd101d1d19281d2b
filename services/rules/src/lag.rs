//! How far the rules are behind the log: told of a rule by gRPC, and of the service as a metric.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, Position, ReadError};
use drover_host::Shutdown;
use drover_types::{Clock, TELEMETRY_TOPIC};
use futures::future::try_join_all;
use tokio::sync::watch::Sender;

use crate::engine::GROUP;
use crate::telemetry::Telemetry;

/// Between two looks; each asks the log for the ends of all partitions.
const LOOK: Duration = Duration::from_secs(10);
/// Partitions whose next record is read at a time.
const AT_ONCE: usize = 8;

/// What is not evaluated yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages behind the committed offsets, of all members.
    pub records: u64,
    /// Age of the oldest of them, in milliseconds.
    pub age_ms: u64,
}

/// Keeps the metric and what is `known` true until `shutdown`. While the log does not answer they stay as they were.
pub async fn watch(
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    known: Sender<Option<Lag>>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let look = async {
        loop {
            match of(&*bus, clock.now_ms()).await {
                Ok(lag) => {
                    telemetry.lag(lag);
                    known.send_replace(Some(lag));
                }
                Err(error) => tracing::debug!(%error, "how far the rules are behind is unknown"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // The look has no end of its own.
    let _: Option<()> = shutdown.run_until_cancelled(look).await;
    Ok(())
}

/// How far the group is behind at `now_ms`, milliseconds since the Unix epoch.
async fn of(bus: &dyn Bus, now_ms: u64) -> Result<Lag, ReadError> {
    let partitions = drover_bus::bounds(bus, TELEMETRY_TOPIC).await?.unwrap_or_default();
    let committed = bus.committed(GROUP, TELEMETRY_TOPIC).await?;
    let (mut lag, mut behind) = (Lag::default(), Vec::new());
    for (at, bounds) in partitions {
        let next = committed.iter().find(|position| position.at == at).map_or(0, |p| p.offset);
        let offset = next.max(bounds.earliest);
        if bounds.end > offset {
            lag.records += bounds.end - offset;
            behind.push(Position { at, offset });
        }
    }
    for some in behind.chunks(AT_ONCE) {
        for received_ms in try_join_all(some.iter().map(|position| received_ms(bus, position))).await? {
            lag.age_ms = lag.age_ms.max(received_ms.map_or(0, |received_ms| now_ms.saturating_sub(received_ms)));
        }
    }
    Ok(lag)
}

/// When the message at `position` was received; `None`: it has gone meanwhile.
async fn received_ms(bus: &dyn Bus, position: &Position) -> Result<Option<u64>, ReadError> {
    match bus.read(&position.at, position.offset, 1, Duration::ZERO).await {
        Ok(records) => Ok(records.first().map(|stored| stored.record.timestamp_ms.unsigned_abs())),
        Err(ReadError::OutOfRange { .. } | ReadError::Corrupt { .. }) => Ok(None),
        Err(error @ (ReadError::Unknown { .. } | ReadError::Unavailable { .. })) => Err(error),
    }
}
