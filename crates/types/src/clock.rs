//! The clock port: the only way the domain learns what time it is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Wall-clock time. The system's clock lives in `drover-host`; tests and simulation pass their own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May step backwards when the system's clock is corrected.
    fn now_ms(&self) -> u64;
}

/// A clock that stands still until told otherwise; for tests.
#[derive(Debug, Default)]
pub struct FixedClock(AtomicU64);

impl FixedClock {
    /// A clock that reads `now_ms`.
    pub fn at(now_ms: u64) -> Self {
        Self(AtomicU64::new(now_ms))
    }

    /// Moves the clock forward by `ms` milliseconds.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
