//! The topics this service lives on: its own are made, those of others waited for.

use anyhow::Context as _;
use drover_bus::{AdminError, Bus, TopicConfig};
use drover_host::{Backoff, Ports, Shutdown};
use drover_types::TELEMETRY_TOPIC;

use crate::config::RulesConfig;
use crate::domain::{ERRORS_TOPIC, OUTBOX_TOPIC, RETRY_TOPIC, STATE_TOPIC};
use crate::feed::CHANGES_TOPIC;

/// One day in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Returns when all topics are there, waiting for those of others and for a bus that is away; `None`: the process is
/// stopping. Fails where waiting does not help.
pub async fn prepare(ports: &Ports, config: &RulesConfig, shutdown: &Shutdown) -> anyhow::Result<Option<()>> {
    let mut backoff = Backoff::default();
    loop {
        match try_prepare(&*ports.bus, config).await {
            Ok(None) => return Ok(Some(())),
            Ok(Some(missing)) => ports.ready.waiting(format!("topic {missing} does not exist yet")),
            Err(error @ AdminError::Unavailable { .. }) => ports.ready.waiting(error.to_string()),
            Err(
                error @ (AdminError::Name { .. }
                | AdminError::PartitionCount { .. }
                | AdminError::Partitions { .. }
                | AdminError::Setting { .. }
                | AdminError::Unknown { .. }
                | AdminError::Refused { .. }),
            ) => return Err(error).context("the topics of the rules service cannot be made"),
        }
        if !backoff.wait(shutdown).await {
            return Ok(None);
        }
    }
}

/// Makes the topics; `Some`: one of another service is not there yet.
async fn try_prepare(bus: &dyn Bus, config: &RulesConfig) -> Result<Option<&'static str>, AdminError> {
    for (topic, days) in [(OUTBOX_TOPIC, 7), (ERRORS_TOPIC, 30)] {
        make(bus, topic, config.partitions, days * DAY_MS).await?;
    }
    let there = bus.topics().await?;
    let known = |topic: &str| there.iter().find(|known| &*known.topic == topic);
    let (Some(telemetry), Some(_)) = (known(TELEMETRY_TOPIC), known(CHANGES_TOPIC)) else {
        let missing = if known(TELEMETRY_TOPIC).is_none() { TELEMETRY_TOPIC } else { CHANGES_TOPIC };
        return Ok(Some(missing));
    };
    // A partition's states stand in the partition of the same number.
    let (topic, partitions) = (STATE_TOPIC.into(), telemetry.partitions);
    let states = TopicConfig { topic, partitions, compact: true, retention_ms: None, retention_bytes: None };
    bus.create_topic(states).await?;
    // Where actions of a partition of the outbox stand, too.
    let partitions = known(OUTBOX_TOPIC).map_or(config.partitions, |outbox| outbox.partitions);
    let topic = RETRY_TOPIC.into();
    let retry = TopicConfig { topic, partitions, compact: true, retention_ms: None, retention_bytes: None };
    bus.create_topic(retry).await?;
    Ok(None)
}

/// Makes a topic that is missing; one that is there stays as it is.
pub async fn make(bus: &dyn Bus, topic: &str, partitions: u32, retention_ms: u64) -> Result<(), AdminError> {
    let retention_ms = Some(retention_ms);
    let config = TopicConfig { topic: topic.into(), partitions, compact: false, retention_ms, retention_bytes: None };
    match bus.create_topic(config).await {
        Ok(_) | Err(AdminError::Partitions { .. }) => Ok(()),
        Err(
            error @ (AdminError::Name { .. }
            | AdminError::PartitionCount { .. }
            | AdminError::Setting { .. }
            | AdminError::Unknown { .. }
            | AdminError::Refused { .. }
            | AdminError::Unavailable { .. }),
        ) => Err(error),
    }
}
