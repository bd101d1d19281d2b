//! What one partition saw and answered lately: repeats are found, and answered as the first time.

use std::collections::{HashMap, VecDeque};

use drover_bus::Offset;
use drover_types::Telemetry;
use drover_types::limits::REPEAT_WINDOW_MS;
use drover_types::repeat::{RepeatWindow, Verdict};

/// What a request and its repeats have in common.
pub type Identity = [u8; 16];

/// Most answers remembered of one partition, about 8 MB: 330 requests a second over 5 minutes.
const ANSWERS_MAX: usize = 100_000;

/// The window of requests, and where in the replies each was answered. Rebuilt from the log, never written.
#[derive(Debug, Default)]
pub struct Repeats {
    window: RepeatWindow,
    answers: HashMap<Identity, Offset>,
    /// Answers in the order given, with the time of their request; left-overs of answers given again among them.
    order: VecDeque<(u64, Identity, Offset)>,
}

impl Repeats {
    /// Looks a request up and remembers it. Requests come in the order of their partition.
    pub fn observe(&mut self, message: &Telemetry) -> Verdict {
        self.window.observe(message)
    }

    /// Remembers that a request received at `time_ms` is answered at `offset` of the replies.
    pub fn answered(&mut self, identity: Identity, time_ms: u64, offset: Offset) {
        self.answers.insert(identity, offset);
        self.order.push_back((time_ms, identity, offset));
        let oldest_ms = time_ms.saturating_sub(REPEAT_WINDOW_MS);
        while self.order.front().is_some_and(|(time_ms, ..)| *time_ms < oldest_ms) || self.order.len() > ANSWERS_MAX {
            self.forget_first();
        }
    }

    /// Where the request of this identity was answered last.
    pub fn answer(&self, identity: &Identity) -> Option<Offset> {
        self.answers.get(identity).copied()
    }

    /// Requests in the window.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    fn forget_first(&mut self) {
        let Some((_, identity, offset)) = self.order.pop_front() else { return };
        if self.answers.get(&identity) == Some(&offset) {
            self.answers.remove(&identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_counts_and_old_ones_are_forgotten() {
        let mut repeats = Repeats::default();
        repeats.answered([1; 16], 1_000, 5);
        repeats.answered([2; 16], 2_000, 6);
        repeats.answered([1; 16], 3_000, 7);
        assert_eq!((repeats.answer(&[1; 16]), repeats.answer(&[2; 16])), (Some(7), Some(6)));
        repeats.answered([3; 16], 2_001 + REPEAT_WINDOW_MS, 8);
        assert_eq!((repeats.answer(&[1; 16]), repeats.answer(&[2; 16])), (Some(7), None));
    }

    #[test]
    fn no_more_answers_are_kept_than_the_limit() {
        let mut repeats = Repeats::default();
        let identity = |number: usize| (number as u128).to_be_bytes();
        (0..=ANSWERS_MAX).for_each(|number| repeats.answered(identity(number), 1, number as Offset));
        assert_eq!(repeats.answers.len(), ANSWERS_MAX);
        assert_eq!((repeats.answer(&identity(0)), repeats.answer(&identity(1))), (None, Some(1)));
    }
}
