//! What is long over is forgotten, whoever it was for: a name that nobody has registered is never deleted, and takes nothing with it.

use std::sync::Arc;
use std::time::Duration;

use drover_host::Shutdown;
use drover_types::Clock;

use crate::domain::command::forgotten_before_ms;
use crate::ports::{Store, StoreError};

/// How often the store is gone through: its small rows are read, some 100 bytes of each command that is kept.
const EVERY: Duration = Duration::from_secs(6 * 3600);

/// Goes through the store.
pub struct Sweep {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
}

impl Sweep {
    /// Works until `shutdown`. What it cannot do now it does the next time.
    pub async fn run(self, shutdown: Shutdown) {
        let sweeping = async {
            loop {
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "commands that are long over are not forgotten yet");
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        shutdown.run_until_cancelled(sweeping).await;
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let (before_ms, mut after) = (forgotten_before_ms(self.clock.now_ms()), None);
        while let Some(last) = self.store.forget_commands(before_ms, after.as_ref()).await? {
            after = Some(last);
        }
        Ok(())
    }
}
