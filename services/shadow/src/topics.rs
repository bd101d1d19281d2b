//! The topics this service lives on. All have as many partitions: what belongs to a device is in the partition of its
//! requests, whatever the key of the record.

use drover_bus::{AdminError, Bus, TopicConfig};
use drover_types::command::COMMANDS_TOPIC;
use drover_types::shadow::SHADOW_REQUESTS_TOPIC;

pub use drover_types::shadow::SHADOW_DOCUMENTS_TOPIC as DOCUMENTS_TOPIC;

/// What every accepted update and deletion set, key `tenant/device`, JSON.
pub const CHANGES_TOPIC: &str = "drover.shadow.changes";
/// What is to be handed to clients, key `tenant/device`, `drover.shadow.v1.Delivery`.
pub const REPLIES_TOPIC: &str = "drover.shadow.replies";

const HOUR_MS: u64 = 3_600 * 1_000;
/// Requests are answered soon; a service that was away for longer finds nothing worth an answer.
const REQUESTS_RETENTION_MS: u64 = 24 * HOUR_MS;
/// Answers and deltas: who missed them asks again when it connects.
const REPLIES_RETENTION_MS: u64 = 6 * HOUR_MS;
/// Commands and devices' answers: as long as the longest command may take.
const COMMANDS_RETENTION_MS: u64 = 7 * 24 * HOUR_MS;

/// Of each partition of the commands: what devices write there is bounded as well.
const COMMANDS_RETENTION_BYTES: u64 = 1024 * 1024 * 1024;

/// Makes the topics that are missing. One that is there with another number of partitions is an error.
pub async fn create(bus: &dyn Bus, partitions: u32, changes_retention_ms: u64) -> Result<(), AdminError> {
    for (topic, retention_ms) in [
        (SHADOW_REQUESTS_TOPIC, Some(REQUESTS_RETENTION_MS)),
        (DOCUMENTS_TOPIC, None),
        (CHANGES_TOPIC, Some(changes_retention_ms)),
        (REPLIES_TOPIC, Some(REPLIES_RETENTION_MS)),
        (COMMANDS_TOPIC, Some(COMMANDS_RETENTION_MS)),
    ] {
        let compact = retention_ms.is_none();
        let retention_bytes = (topic == COMMANDS_TOPIC).then_some(COMMANDS_RETENTION_BYTES);
        let config = TopicConfig { topic: topic.into(), partitions, compact, retention_ms, retention_bytes };
        bus.create_topic(config).await?;
    }
    Ok(())
}
