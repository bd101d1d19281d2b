//! The topics this service makes.

use drover_bus::{AdminError, Bus, TopicConfig};

/// Every change of every object; key = `kind/tenant/name`, value = `drover.registry.v1.Change`.
pub const CHANGES_TOPIC: &str = "drover.registry.changes";
/// What ingress nodes say of their connections; key = `tenant/device`, value = `drover.ingress.v1.PresenceReport`.
pub const PRESENCE_TOPIC: &str = "drover.presence";
/// Words of life of ingress nodes; key = the node, value = `drover.ingress.v1.NodeAlive`. One partition.
pub const NODES_TOPIC: &str = "drover.nodes";
/// Ordered lifecycle events; key = `tenant/device`, value = JSON.
pub const EVENTS_TOPIC: &str = "drover.events";

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
