//! How long a test waits for what other processes do.

use std::time::{Duration, Instant};

/// Between two looks at a state.
pub const LOOK: Duration = Duration::from_millis(20);

/// A limit in real time: a look may itself take longer than the pause before the next one.
pub struct Patience {
    began: Instant,
    limit: Duration,
}

#[expect(clippy::disallowed_methods, reason = "other processes are waited for in real time")]
impl Patience {
    /// Begins to wait.
    pub fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    /// Whether there is any left.
    pub fn lasts(&self) -> bool {
        self.elapsed() < self.limit
    }

    /// How long has been waited.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Waits a moment.
#[expect(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
pub fn pause() {
    std::thread::sleep(LOOK);
}
