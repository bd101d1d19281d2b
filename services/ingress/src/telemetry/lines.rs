//! Log lines whose number others decide: bounded, so that an attack cannot fill the disk, and never silently.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one kind.
pub struct Lines {
    per_interval: u32,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the first line of the present interval was written.
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// At most `per_interval` lines in each `interval`.
    pub fn new(per_interval: u32, interval: Duration) -> Self {
        Self { per_interval, interval, state: Mutex::default() }
    }

    /// Writes a line, which is given how many were left out before it, or leaves it out.
    pub fn write(&self, line: impl FnOnce(u64)) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.duration_since(since) >= self.interval) {
            (state.since, state.written) = (Some(now), 0);
        }
        if state.written >= self.per_interval {
            state.left_out += 1;
            return;
        }
        state.written += 1;
        line(std::mem::take(&mut state.left_out));
    }

    /// When no line has come since the interval ended: how many were left out, if any were.
    pub fn overdue(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.since.is_some_and(|since| now.duration_since(since) >= self.interval);
        (over && state.left_out > 0).then(|| std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_limit_are_left_out_and_told() {
        let lines = Lines::new(2, Duration::from_secs(10));
        let mut told = Vec::new();
        for _ in 0..5 {
            lines.write(|left_out| told.push(left_out));
        }
        assert_eq!((told.as_slice(), lines.overdue()), ([0, 0].as_slice(), None));
        tokio::time::advance(Duration::from_secs(10)).await;
        lines.write(|left_out| told.push(left_out));
        assert_eq!((told.as_slice(), lines.overdue()), ([0, 0, 3].as_slice(), None));
        for _ in 0..2 {
            lines.write(|left_out| told.push(left_out));
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((lines.overdue(), lines.overdue()), (Some(1), None), "told once, also when no line follows");
    }
}
