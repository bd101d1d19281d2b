//! Where the partitions of a topic end.

use drover_bus::{Bounds, Bus, TopicPartition};

/// The partitions of a topic with their bounds; `None` if there is no such topic. The error says what is in the way.
pub async fn bounds(bus: &dyn Bus, topic: &str) -> Result<Option<Vec<(TopicPartition, Bounds)>>, String> {
    let topics = bus.topics().await.map_err(|e| e.to_string())?;
    let Some(config) = topics.iter().find(|config| &*config.topic == topic) else { return Ok(None) };
    let mut partitions = Vec::new();
    for partition in 0..config.partitions {
        let at = TopicPartition::new(topic, partition);
        let bounds = bus.bounds(&at).await.map_err(|e| e.to_string())?;
        partitions.push((at, bounds));
    }
    Ok(Some(partitions))
}
