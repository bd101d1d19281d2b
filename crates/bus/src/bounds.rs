//! Where the partitions of a topic begin and end.

use crate::{AdminError, Bounds, Bus, ReadError, TopicPartition};

/// The partitions of a topic with their bounds; `None` if there is no such topic.
pub async fn bounds(bus: &dyn Bus, topic: &str) -> Result<Option<Vec<(TopicPartition, Bounds)>>, ReadError> {
    let topics = bus.topics().await.map_err(|error| match error {
        AdminError::Unavailable { reason } => ReadError::Unavailable { reason },
        other => ReadError::Unavailable { reason: other.to_string() },
    })?;
    let Some(config) = topics.iter().find(|config| &*config.topic == topic) else { return Ok(None) };
    let mut partitions = Vec::new();
    for partition in 0..config.partitions {
        let at = TopicPartition::new(topic, partition);
        let bounds = bus.bounds(&at).await?;
        partitions.push((at, bounds));
    }
    Ok(Some(partitions))
}
