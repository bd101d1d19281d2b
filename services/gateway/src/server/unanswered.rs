//! What the log is told of a service that does not answer: a page of the console asks every few seconds, and scripts oftener.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

/// How often the log is told, however many requests there are.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Requests to a service that were not answered. Clones count together.
#[derive(Clone, Default)]
pub struct Unanswered(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// When the log was told last.
    at: Option<Instant>,
    /// Requests since then.
    requests: u64,
}

impl Unanswered {
    /// Another one, that ended with `status`.
    pub fn another(&self, service: &str, status: &Status) {
        if let Some(requests) = self.due(Instant::now()) {
            tracing::warn!(service, %status, requests, "no answer");
        }
    }

    /// Counts one; how many the log is to be told of now, this one among them.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.requests += 1;
        if told.at.is_some_and(|at| now.duration_since(at) < TOLD_EVERY) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_those_after_it_together() {
        let (unanswered, began) = (Unanswered::default(), Instant::now());
        let due = |seconds: u64| unanswered.clone().due(began + Duration::from_secs(seconds));
        assert_eq!(due(0), Some(1));
        assert_eq!([3, 6, 59].map(due), [None; 3]);
        assert_eq!(due(60), Some(4), "with those that were not told of");
        assert_eq!((due(61), due(1_000)), (None, Some(2)));
    }
}
