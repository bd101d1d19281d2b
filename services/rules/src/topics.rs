//! The topics this service lives on: its own are made, those of others waited for.

use drover_bus::{AdminError, Bus, TopicConfig};
use drover_host::{Backoff, Ports, Shutdown};
use drover_types::TELEMETRY_TOPIC;

use crate::config::RulesConfig;
use crate::domain::{ERRORS_TOPIC, OUTBOX_TOPIC};
use crate::feed::CHANGES_TOPIC;

/// One day in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Returns when all topics are there; `None`: the process is stopping.
pub async fn prepare(ports: &Ports, config: &RulesConfig, shutdown: &Shutdown) -> Option<()> {
    let mut backoff = Backoff::default();
    loop {
        let Err(obstacle) = try_prepare(&*ports.bus, config).await else { return Some(()) };
        tracing::info!(%obstacle, "rules wait");
        ports.ready.waiting(obstacle);
        if !backoff.wait(shutdown).await {
            return None;
        }
    }
}

async fn try_prepare(bus: &dyn Bus, config: &RulesConfig) -> Result<(), String> {
    for (topic, days) in [(OUTBOX_TOPIC, 7), (ERRORS_TOPIC, 30)] {
        make(bus, topic, config.partitions, Some(days * DAY_MS)).await.map_err(|error| error.to_string())?;
    }
    let there = bus.topics().await.map_err(|error| error.to_string())?;
    match [TELEMETRY_TOPIC, CHANGES_TOPIC].iter().find(|topic| !there.iter().any(|known| &*known.topic == **topic)) {
        Some(missing) => Err(format!("topic {missing} does not exist yet")),
        None => Ok(()),
    }
}

/// Makes a topic that is missing; one that is there stays as it is.
pub async fn make(bus: &dyn Bus, topic: &str, partitions: u32, retention_ms: Option<u64>) -> Result<(), AdminError> {
    let config = TopicConfig { topic: topic.into(), partitions, compact: false, retention_ms, retention_bytes: None };
    match bus.create_topic(config).await {
        Ok(_) | Err(AdminError::Partitions { .. }) => Ok(()),
        Err(
            error @ (AdminError::Name { .. }
            | AdminError::PartitionCount { .. }
            | AdminError::Unknown { .. }
            | AdminError::Unavailable { .. }),
        ) => Err(error),
    }
}
