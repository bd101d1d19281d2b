//! How far the rules are behind the log: told of a rule by gRPC, and of the service as a metric.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, ReadError};
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
    let partitions = drover_bus::bounds(bus, TELEMETRY_TOPIC).await?.unwrap_or_default();
    let committed = bus.committed(GROUP, TELEMETRY_TOPIC).await?;
    let behind = partitions.iter().map(|(at, bounds)| {
        let next = committed.iter().find(|position| position.at == *at).map_or(0, |p| p.offset);
        bounds.end.saturating_sub(next.max(bounds.earliest))
    });
    Ok(behind.sum())
}
