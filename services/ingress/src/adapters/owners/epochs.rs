//! Epochs that begin with the time: microseconds since the Unix epoch, made greater than what they have to exceed.
//!
//! So they exceed those of [`super::Embedded`] too, of any node with fewer than some 400,000 starts: whoever moves a
//! platform from one node to several goes on in order. They stay below 2^53, which JSON readers keep exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drover_types::Clock;

/// The epochs of one process.
pub struct Epochs {
    clock: Arc<dyn Clock>,
    last: AtomicU64,
}

impl Epochs {
    /// Epochs above those that the embedded owners gave in the boots before this one, and in this.
    pub fn new(clock: Arc<dyn Clock>, boot: u32) -> Self {
        Self { clock, last: AtomicU64::new((u64::from(boot) + 1) << 32) }
    }

    /// One that is higher than `former`, and than every one before of this process.
    pub fn after(&self, former: u64) -> u64 {
        let now_us = self.clock.now_ms().saturating_mul(1_000);
        let least = now_us.max(former.saturating_add(1));
        let next = |last: u64| last.saturating_add(1).max(least);
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.expect("there always is a next one"))
    }
}

#[cfg(test)]
mod tests {
    use drover_types::FixedClock;

    use super::*;

    #[test]
    fn epochs_grow_whatever_the_clock_says_and_none_comes_twice() {
        let clock = Arc::new(FixedClock::at(1_000));
        let epochs = Epochs::new(clock.clone(), 0);
        let floor = 1 << 32;
        assert_eq!([0, 0, 0].map(|former| epochs.after(former)), [floor + 1, floor + 2, floor + 3]);
        clock.advance(1_795_000_000_000);
        let now_us = 1_795_000_001_000_000;
        assert_eq!(
            [0, 0, now_us + 7, 0].map(|former| epochs.after(former)),
            [now_us, now_us + 1, now_us + 8, now_us + 9]
        );
        assert!(Epochs::new(clock, 500_000).after(0) > 500_000 << 32 | 0xffff_ffff, "also after very many boots");
    }
}
