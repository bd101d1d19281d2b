//! A runtime of one thread whose clock moves only when every task waits.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Virtual time after which a world that has not come to rest has stalled.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Runs a world to its end. The error is the world's, or says that it has stalled.
pub fn run<T>(world: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let finished = tokio::time::timeout(PATIENCE, world).await;
        finished.map_err(|_| anyhow::anyhow!("not at rest after {PATIENCE:?}"))?
    }))
}
