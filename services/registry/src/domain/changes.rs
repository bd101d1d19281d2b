//! The change feed: what was written goes to the log, in order, at least once.
//!
//! A row of the outbox is written in one step with its object and removed after the log has it. Whatever stops this
//! process in between, the rows are sent again, in the same order; consumers know a repeat by its revision.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::{AppendError, Bus, Outgoing, Record, Unacknowledged};
use drover_host::Shutdown;
use prost::Message;
use tokio::sync::Notify;

use super::topics::CHANGES_TOPIC;
use crate::ports::{Change, OutboxRow, RegistryStore, StoreError};
use crate::telemetry::Telemetry;
use crate::wire;

/// Rows in flight at once; with the largest objects some 30 MiB.
const ROWS_MAX: usize = 128;
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// Name of this part in `/readyz`.
const PART: &str = "change feed";

/// Sends the outbox to the log.
pub struct ChangeFeed {
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn RegistryStore>,
    pub telemetry: Arc<Telemetry>,
    /// Woken when the outbox has grown.
    pub written: Arc<Notify>,
}

/// Why rows stay in the outbox for now.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Unacknowledged(#[from] Unacknowledged),
}

impl ChangeFeed {
    /// Works until `shutdown`, which may interrupt it anywhere: what was not removed is sent by the next start.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.run_until_cancelled(self.relay_for_ever()).await;
    }

    async fn relay_for_ever(&self) {
        loop {
            match self.relay().await {
                Ok(sent) => {
                    self.telemetry.working(PART);
                    if sent == 0 {
                        self.written.notified().await;
                    }
                }
                Err(error) => {
                    self.telemetry.obstacle(PART, &error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn relay(&self) -> Result<usize, RelayError> {
        let rows = self.store.outbox(ROWS_MAX).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let records = rows.iter().flat_map(|row| records(&row.change)).collect();
        self.bus.append(records).await?.await?;
        let sequences: Vec<u64> = rows.iter().map(|OutboxRow { sequence, .. }| *sequence).collect();
        self.store.forget(&sequences).await?;
        self.telemetry.published(rows.len());
        Ok(rows.len())
    }
}

/// The change, and after a deletion a tombstone, so that compaction forgets the key.
fn records(change: &Change) -> impl Iterator<Item = Outgoing> + use<> {
    let key = Bytes::from(change.key.to_string());
    let value = Bytes::from(wire::encode_change(change).encode_to_vec());
    let timestamp_ms = i64::try_from(change.time_ms).unwrap_or(i64::MAX);
    let record = move |value| {
        Outgoing::keyed(CHANGES_TOPIC, Record { key: Some(key.clone()), value, headers: Vec::new(), timestamp_ms })
    };
    let tombstone = change.after.is_none().then(|| record.clone()(None));
    std::iter::once(record(Some(value))).chain(tombstone)
}
