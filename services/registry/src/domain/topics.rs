//! The topics this service makes.

use drover_bus::{AdminError, Bus, TopicConfig};

pub use drover_types::{EVENTS_TOPIC, NODES_TOPIC, PRESENCE_TOPIC, REGISTRY_CHANGES_TOPIC as CHANGES_TOPIC};

const HOUR_MS: u64 = 3600 * 1000;
/// Reports are events soon after; what is left of them is for looking into trouble.
const PRESENCE_RETENTION_MS: u64 = 6 * HOUR_MS;

/// Makes the topics that are missing. One that is there with another number of partitions is an error: events are
/// found by the partition of their device.
pub async fn create(bus: &dyn Bus, partitions: u32, events_retention_ms: u64) -> Result<(), AdminError> {
    let topic = |topic: &str, retention_ms: Option<u64>| TopicConfig {
        topic: topic.into(),
        partitions,
        compact: retention_ms.is_none(),
        retention_ms,
        retention_bytes: None,
    };
    for config in [
        topic(CHANGES_TOPIC, None),
        topic(PRESENCE_TOPIC, Some(PRESENCE_RETENTION_MS)),
        topic(EVENTS_TOPIC, Some(events_retention_ms)),
        TopicConfig { partitions: 1, ..topic(NODES_TOPIC, Some(HOUR_MS)) },
    ] {
        bus.create_topic(config).await?;
    }
    Ok(())
}
