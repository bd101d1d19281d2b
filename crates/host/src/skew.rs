//! Whether clocks of other processes agree with ours: a line when one does not, and a line when it does again.
//!
//! Repeats, presence, expiry of credentials and times of messages go by the clocks of several processes.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderValue;
use axum::response::Response;
use drover_types::Clock;

use crate::SystemClock;

/// Header of answers over TCP: the clock of who answers, in milliseconds since the Unix epoch.
pub(crate) const HEADER: &str = "drover-time-ms";
/// What clocks may differ by; kept well below the time that repeats are remembered.
const SKEW_MAX_MS: u64 = 10_000;

/// Adds our time to an answer.
pub(crate) async fn tell_time(mut answer: Response) -> Response {
    answer.headers_mut().insert(HEADER, HeaderValue::from(SystemClock.now_ms()));
    answer
}

/// The clock of one service, as its answers tell it.
#[derive(Debug)]
pub(crate) struct Skew {
    service: String,
    told: AtomicBool,
}

impl Skew {
    pub fn of(service: &str) -> Self {
        Self { service: service.to_owned(), told: AtomicBool::new(false) }
    }

    /// Compares a clock that was read between two times of ours.
    pub fn look(&self, before_ms: u64, theirs_ms: u64, after_ms: u64) {
        let skew_ms = distance(before_ms, theirs_ms, after_ms);
        let (service, off) = (self.service.as_str(), skew_ms > SKEW_MAX_MS);
        match (off, self.told.swap(off, Ordering::Relaxed)) {
            (true, false) => {
                tracing::warn!(
                    service,
                    skew_ms,
                    limit_ms = SKEW_MAX_MS,
                    "clocks differ; set the clocks of all machines"
                );
            }
            (false, true) => tracing::info!(service, "clocks agree again"),
            (true, true) | (false, false) => {}
        }
    }
}

/// How far a clock is from the time in which it was read.
fn distance(before_ms: u64, theirs_ms: u64, after_ms: u64) -> u64 {
    before_ms.saturating_sub(theirs_ms).max(theirs_ms.saturating_sub(after_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_skew_and_a_clock_ahead_or_behind_is() {
        assert_eq!(distance(100, 150, 9_000), 0);
        assert_eq!((distance(100, 100, 100), distance(100, 70, 120), distance(100, 150, 120)), (0, 30, 30));
    }

    #[test]
    fn it_is_told_once_until_the_clocks_agree_again() {
        let skew = Skew::of("registry");
        for (theirs, told) in
            [(0, false), (SKEW_MAX_MS, false), (SKEW_MAX_MS + 1, true), (SKEW_MAX_MS + 9, true), (5, false)]
        {
            skew.look(0, theirs, 0);
            assert_eq!(skew.told.load(Ordering::Relaxed), told, "{theirs}");
        }
    }
}
