//! How far the rules are behind the log: told of a rule by gRPC, and of the service as a metric.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, ReadError, TopicPartition};
use drover_host::Shutdown;
use drover_types::TELEMETRY_TOPIC;

use crate::engine::GROUP;
use crate::telemetry::Telemetry;

/// Between two looks; each asks the log for the ends of all partitions.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps the metric true until `shutdown`. While the log does not answer it stays as it was.
pub async fn watch(bus: Arc<dyn Bus>, telemetry: Telemetry, shutdown: Shutdown) -> anyhow::Result<()> {
    let look = async {
        loop {
            match records(&*bus).await {
                Ok(lag) => telemetry.lag(lag),
                Err(error) => tracing::debug!(%error, "how far the rules are behind is unknown"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // The look has no end of its own.
    let _: Option<()> = shutdown.run_until_cancelled(look).await;
    Ok(())
}

/// Records of the telemetry topic behind the group's committed offsets.
pub async fn records(bus: &dyn Bus) -> Result<u64, ReadError> {
    let unavailable = |error: drover_bus::AdminError| ReadError::Unavailable { reason: error.to_string() };
    let topics = bus.topics().await.map_err(unavailable)?;
    let partitions = topics.iter().find(|config| &*config.topic == TELEMETRY_TOPIC).map_or(0, |c| c.partitions);
    let committed = bus.committed(GROUP, TELEMETRY_TOPIC).await?;
    let mut lag = 0;
    for partition in 0..partitions {
        let bounds = bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, partition)).await?;
        let next = committed.iter().find(|position| position.at.partition == partition).map_or(0, |p| p.offset);
        lag += bounds.end.saturating_sub(next.max(bounds.earliest));
    }
    Ok(lag)
}
