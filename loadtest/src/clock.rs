//! The clock of a run: microseconds since its start, which all workers have in common. The only place that asks for time.

use std::io;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at another process.
pub const LOOK: Duration = Duration::from_millis(20);

/// Counts from the start of the run.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since: Instant,
    start_unix_us: u64,
}

impl Clock {
    /// Waits until the start, and counts from there. A worker that comes late counts from the start all the same.
    #[allow(clippy::disallowed_methods, reason = "real time is what a load is about; no runtime here")]
    pub fn start(start_unix_us: u64) -> Self {
        let early_us = start_unix_us.saturating_sub(unix_us());
        std::thread::sleep(Duration::from_micros(early_us));
        let now = Instant::now();
        let late = Duration::from_micros(unix_us().saturating_sub(start_unix_us));
        Self { since: now.checked_sub(late).unwrap_or(now), start_unix_us }
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    /// A time of the run, in microseconds since 1970.
    pub fn unix_us(&self, time_us: u64) -> u64 {
        self.start_unix_us + time_us
    }

    /// Start of the run, in microseconds since 1970.
    pub fn start_unix_us(&self) -> u64 {
        self.start_unix_us
    }
}

/// Now, in microseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "real time is what a load is about")]
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}

/// Processor time of the calling thread, in microseconds, where the system says it.
pub fn cpu_us() -> Option<u64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(ns / 1_000)
}

/// Looks at another process until there is something to see, for so long at most; `None`: there was nothing.
pub fn until<T>(most: Duration, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let since_us = unix_us();
    loop {
        if let Some(seen) = look()? {
            return Ok(Some(seen));
        }
        let left = most.saturating_sub(Duration::from_micros(unix_us().saturating_sub(since_us)));
        if left.is_zero() {
            return Ok(None);
        }
        pause(left.min(LOOK));
    }
}

/// Waits between two looks at another process.
#[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
