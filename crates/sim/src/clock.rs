//! Time and randomness of a simulated world.

use std::sync::{Mutex, PoisonError};

use drover_types::{Clock, Random};
use tokio::time::Instant;

/// Wall-clock time that follows tokio's paused clock: it moves only when every task waits.
pub struct VirtualClock {
    started: Instant,
    started_ms: u64,
}

impl VirtualClock {
    /// A clock that reads `started_ms` now.
    pub fn starting_at(started_ms: u64) -> Self {
        Self { started: Instant::now(), started_ms }
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> u64 {
        self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to pick faults and ids; not for secrets.
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True with a probability of `per_mille` in 1,000.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
