//! Waiting before another try: doubling, bounded, started anew by success.

use std::time::Duration;

use crate::Shutdown;

/// First wait.
const FIRST: Duration = Duration::from_millis(20);
/// Longest wait: well below a group's session timeout.
const LONGEST: Duration = Duration::from_secs(1);

/// The wait before the next try.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// Waits, longer each time. False: the process is stopping.
    pub async fn wait(&mut self, shutdown: &Shutdown) -> bool {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.0 = FIRST;
    }
}
