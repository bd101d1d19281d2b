//! Removes what is older than retention allows, a little at a time.

use std::sync::Arc;
use std::time::Duration;

use drover_host::Shutdown;
use drover_types::Clock;

use crate::ports::SeriesStore;
use crate::telemetry::Telemetry;

/// Pause between two sweeps. What is too old is not shown meanwhile.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// Pause between two steps of a sweep; lets writers through.
const BREATH: Duration = Duration::from_millis(5);

/// The sweeper.
pub struct Expiry {
    pub store: Arc<dyn SeriesStore>,
    pub clock: Arc<dyn Clock>,
    pub retention_ms: u64,
    pub telemetry: Telemetry,
}

impl Expiry {
    /// Sweeps until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        while shutdown.run_until_cancelled(self.sweep()).await.is_some() {
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// One look at everything. A failure ends it; the next one begins anew.
    async fn sweep(&self) {
        let before_ms = self.clock.now_ms().saturating_sub(self.retention_ms);
        let (mut cursor, mut rows) = (None, 0);
        loop {
            match self.store.expire(before_ms, cursor).await {
                Ok(expired) => {
                    rows += expired.rows;
                    cursor = expired.next;
                }
                Err(error) => {
                    tracing::warn!(%error, "removal of old rows waits");
                    break;
                }
            }
            if cursor.is_none() {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
        self.telemetry.expired(rows);
    }
}
