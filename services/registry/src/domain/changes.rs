//! The change feed: what was written goes to the log, in order, at least once.
//!
//! A row of the outbox is written with its object and removed after the log and the audit trail have it. Whatever stops this process in
//! between, the rows are sent again, in the same order; consumers know a repeat by its revision, and so does the audit trail. Of several registry
//! processes one relays: the store says which, and the log fences one that does not know yet that it is another's turn,
//! so that no old change ever comes behind a newer one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::{Bus, Headers, Outgoing, Record, TransactError, Transaction, Transactor};
use drover_host::Shutdown;
use prost::Message;
use tokio::sync::Notify;

use super::audit;
use super::topics::CHANGES_TOPIC;
use crate::ports::{Change, OutboxRow, RegistryStore, RelayTurn, StoreError};
use crate::telemetry::Telemetry;
use crate::wire;

/// Rows in flight at once; with the largest objects, functions, some 80 MiB.
const ROWS_MAX: usize = 128;
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// How long a row of another process may lie in the outbox before it is seen.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How often a process that does not relay asks whether it should.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Who relays is who holds this in the log.
const TRANSACTIONAL_ID: &str = "drover.registry.changes";
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
    Transact(#[from] TransactError),
}

impl ChangeFeed {
    /// Works until `shutdown`, which may interrupt it anywhere: what was not removed is sent by the next start.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.run_until_cancelled(self.relay_for_ever()).await;
    }

    async fn relay_for_ever(&self) {
        loop {
            match self.relay_while_ours().await {
                Ok(()) => tokio::time::sleep(ASK_AGAIN).await,
                Err(error) => {
                    self.telemetry.obstacle(PART, &error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Returns when it is another process's turn.
    async fn relay_while_ours(&self) -> Result<(), RelayError> {
        let mut transactor = None;
        loop {
            let turn = self.store.relay_turn().await?;
            self.telemetry.working("store");
            if turn == RelayTurn::Others {
                self.telemetry.working(PART);
                return Ok(());
            }
            // Opened before rows are read: what an earlier relay had under way is in the log or never will be.
            let transactor = match &mut transactor {
                Some(open) => open,
                None => transactor.insert(self.bus.transactor(TRANSACTIONAL_ID).await?),
            };
            let sent = self.relay(&mut **transactor).await?;
            self.telemetry.working(PART);
            if sent == 0 {
                self.wait(turn).await;
            }
        }
    }

    /// Waits for what may have been written.
    async fn wait(&self, turn: RelayTurn) {
        let written = self.written.notified();
        match turn {
            RelayTurn::Alone => written.await,
            RelayTurn::Ours | RelayTurn::Others => {
                // Nobody tells of what other processes have written.
                tokio::time::timeout(LOOK_AGAIN, written).await.unwrap_or_default();
            }
        }
    }

    async fn relay(&self, transactor: &mut dyn Transactor) -> Result<usize, RelayError> {
        let rows = self.store.outbox(ROWS_MAX).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let records = rows.iter().flat_map(|row| records(&row.change)).collect();
        transactor.commit(Transaction { records, offsets: None }).await?;
        self.store.put_audit(rows.iter().filter_map(|row| audit::entry(&row.change)).collect()).await?;
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
        Outgoing::keyed(
            CHANGES_TOPIC,
            Record { key: Some(key.clone()), value, headers: Headers::default(), timestamp_ms },
        )
    };
    let tombstone = change.after.is_none().then(|| record.clone()(None));
    std::iter::once(record(Some(value))).chain(tombstone)
}
