//! Numbers of writes: microseconds since the Unix epoch, made to grow.
//!
//! They order the outbox and are the timestamps of all rows that follow from a write. Of one object they grow whatever
//! clocks say, because each is greater than the one it takes the place of; so do those of one process. Between
//! processes and objects they are as far apart as clocks are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use drover_types::Clock;

use super::rows::signed;

const MICROS_PER_MS: i64 = 1_000;
const MICROS_PER_MINUTE: i64 = 60_000_000;

/// Gives numbers of writes.
pub struct Sequence {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl Sequence {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicI64::new(0) }
    }

    /// A number greater than `former` and than all that were given.
    pub fn after(&self, former: i64) -> i64 {
        let least = self.now().max(former.saturating_add(1));
        let next = |last: i64| least.max(last + 1);
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.expect("always some"))
    }

    pub fn now(&self) -> i64 {
        signed(self.clock.now_ms()).saturating_mul(MICROS_PER_MS)
    }

    /// The minute it is.
    pub fn minute(&self) -> i64 {
        minute(self.now())
    }
}

/// The minute of a write, by which the outbox is cut into partitions.
pub fn minute(sequence: i64) -> i64 {
    sequence / MICROS_PER_MINUTE
}

#[cfg(test)]
mod tests {
    use drover_types::FixedClock;

    use super::*;

    #[test]
    fn numbers_grow_while_the_clock_stands_and_beyond_one_that_was_ahead() {
        let clock = Arc::new(FixedClock::at(1_000));
        let sequence = Sequence::new(clock.clone());
        assert_eq!([sequence.after(0), sequence.after(0)], [1_000_000, 1_000_001]);
        assert_eq!(sequence.after(5_000_000), 5_000_001);
        clock.advance(9_000);
        assert_eq!(sequence.after(5_000_001), 10_000_000);
    }
}
