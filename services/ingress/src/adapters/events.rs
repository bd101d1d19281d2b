//! Lifecycle events from the log to this node's sessions, which they may end, and to its subscribers.
//!
//! Adapter: reads `drover.events` from its end, each partition at its own pace. An event is delivered after it is in
//! the log, and once: nothing is read twice while the node runs, and what was there before it started is not read. A
//! node that was cut off for a while does not flood its subscribers with what is old by then: it goes on from the end,
//! and counts what it has passed over.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Offset, ReadError, Stored, TopicPartition};
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::partitions;
use crate::domain::lifecycle::{self, EVENTS_TOPIC};
use crate::domain::node::{Node, Recipient};

/// Longest wait of one read.
const WAIT: Duration = Duration::from_secs(1);
/// Wait after a read that failed, and for a topic that is not there yet.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes of one read.
const READ_BYTES_MAX: usize = 256 * 1024;
/// A partition that could not be read for longer than this is gone on with from its end.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// Follows all partitions until `stop`.
pub async fn follow(node: Arc<Node>, stop: CancellationToken) {
    let follow = async {
        let tails = starts(&node).await.into_iter().map(|(at, next)| tail(&node, at, next));
        join_all(tails).await;
    };
    stop.run_until_cancelled(follow).await;
}

/// Where to begin: at the end, or at the beginning of a topic that is made only now.
async fn starts(node: &Node) -> Vec<(TopicPartition, Offset)> {
    let mut missing = false;
    loop {
        match partitions::bounds(&*node.bus, EVENTS_TOPIC).await {
            Ok(Some(found)) => {
                let start =
                    |(at, bounds): (_, drover_bus::Bounds)| (at, if missing { bounds.earliest } else { bounds.end });
                return found.into_iter().map(start).collect();
            }
            Ok(None) => missing = true,
            Err(failure) => tracing::debug!(failure, "lifecycle events cannot be read"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn tail(node: &Arc<Node>, at: TopicPartition, mut next: Offset) {
    let mut heard = Instant::now();
    loop {
        let read = node.bus.read(&at, next, READ_BYTES_MAX, WAIT).await;
        let away = heard.elapsed() > AWAY_MAX;
        match read {
            Ok(records) if !away => {
                heard = Instant::now();
                next = records.last().map_or(next, |last| last.position.offset + 1);
                records.iter().for_each(|record| deliver(node, record));
                continue;
            }
            Ok(_) | Err(ReadError::OutOfRange { .. }) => {
                if let Ok(bounds) = node.bus.bounds(&at).await {
                    node.telemetry.events_skipped(bounds.end.saturating_sub(next));
                    (next, heard) = (bounds.end, Instant::now());
                    continue;
                }
            }
            Err(error @ (ReadError::Unknown { .. } | ReadError::Corrupt { .. } | ReadError::Unavailable { .. })) => {
                tracing::debug!(%error, "lifecycle events cannot be read");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn deliver(node: &Arc<Node>, stored: &Stored) {
    match lifecycle::read(&stored.record) {
        Ok((event, message)) => {
            node.observe(&event);
            node.deliver(&Arc::new(message), &Recipient::Subscribers);
        }
        Err(error) => node.telemetry.event_malformed(&stored.position, &error),
    }
}
