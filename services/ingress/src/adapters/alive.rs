//! Says once a second that this node is there: the registry ends the sessions of a node that is silent for too long.
//!
//! Adapter: writes to `drover.nodes`. Where the registry is in the same process nobody waits for it: the two end together.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, Headers, Outgoing, Record};
use drover_host::Network;
use drover_proto::ingress::v1::NodeAlive;
use drover_types::{Clock, NODES_TOPIC};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

/// Between two words of life; a third of the lease.
const BEAT: Duration = Duration::from_secs(1);

/// Whether somebody wants to hear it.
pub fn is_awaited(network: &Network) -> bool {
    network.is_remote("registry")
}

/// Tells until `stop`. One record at a time: while the log hangs, none gathers.
pub async fn tell(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, node: String, boot: u32, stop: CancellationToken) {
    let telling = async {
        loop {
            let time_ms = clock.now_ms();
            let alive = NodeAlive { node: node.clone(), boot: u64::from(boot), time_ms };
            let record = Record {
                key: Some(node.clone().into()),
                value: Some(alive.encode_to_vec().into()),
                headers: Headers::default(),
                timestamp_ms: i64::try_from(time_ms).unwrap_or(i64::MAX),
            };
            let told = match bus.append(vec![Outgoing::keyed(NODES_TOPIC, record)]).await {
                Ok(receipt) => receipt.await.map(drop).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = told {
                tracing::debug!(error, "the log does not hear that this node is there");
            }
            tokio::time::sleep(BEAT).await;
        }
    };
    // It has no end of its own.
    let _: Option<()> = stop.run_until_cancelled(telling).await;
}
