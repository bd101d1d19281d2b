//! What may go wrong with a write, and how often.

use std::time::Duration;

use crate::SeededRandom;

/// Probabilities in per mille, and bounds of delays.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusFaults {
    /// The write happens, its acknowledgement is lost.
    pub lost_acknowledgement: u64,
    /// The write does not happen.
    pub lost_write: u64,
    /// The bus hangs for up to `hang_ms_max` before it goes on.
    pub hang: u64,
    pub hang_ms_max: u64,
    /// Every write takes up to this long.
    pub delay_ms_max: u64,
    /// A group is told to rebalance at a poll.
    pub rebalance: u64,
}

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    /// Written, but the writer is told that its fate is unknown.
    Unacknowledged,
    /// Not written, and the writer is told so or that its fate is unknown.
    Lost,
}

impl BusFaults {
    /// How long the next write takes.
    pub fn delay(&self, random: &SeededRandom) -> Duration {
        let hang = if random.chance(self.hang) { random.below(self.hang_ms_max + 1) } else { 0 };
        Duration::from_millis(hang + random.below(self.delay_ms_max + 1))
    }

    /// What becomes of the next write.
    pub fn fate(&self, random: &SeededRandom) -> Fate {
        if random.chance(self.lost_write) {
            Fate::Lost
        } else if random.chance(self.lost_acknowledgement) {
            Fate::Unacknowledged
        } else {
            Fate::Acknowledged
        }
    }
}
