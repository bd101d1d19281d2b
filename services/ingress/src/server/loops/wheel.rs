//! When each connection wants to be looked at: a coarse wheel, eight bytes a connection.
//!
//! Pure. An entry is never moved or taken out: whoever is due looks at its real deadline, and comes back if that is
//! later. So a packet, which only moves a deadline further away, costs nothing.

use crate::domain::link::Place;

/// Milliseconds of one step: how late a connection may be looked at.
pub const STEP_MS: u64 = 128;
/// Steps of one turn; a deadline further away is looked at on the way.
const STEPS: usize = 1_024;
const WORDS: usize = STEPS / u64::BITS as usize;

/// The wheel.
pub struct Wheel {
    steps: Vec<Vec<Place>>,
    /// Which steps have entries.
    filled: [u64; WORDS],
    /// The first step that is not over.
    next: u64,
}

impl Wheel {
    /// An empty wheel at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self { steps: vec![Vec::new(); STEPS], filled: [0; WORDS], next: now_ms / STEP_MS }
    }

    /// Adds an entry for `deadline_ms`; the step at which it will be due.
    pub fn add(&mut self, place: Place, deadline_ms: u64) -> u64 {
        let last = self.next + STEPS as u64 - 1;
        let step = deadline_ms.div_ceil(STEP_MS).clamp(self.next, last);
        let index = index(step);
        self.steps[index].push(place);
        self.filled[index / 64] |= 1 << (index % 64);
        step
    }

    /// The step that a deadline belongs to.
    pub fn step(deadline_ms: u64) -> u64 {
        deadline_ms.div_ceil(STEP_MS)
    }

    /// Takes the entries of one step that is over at `now_ms`, with its number; `None` when there are no more.
    pub fn take_due(&mut self, now_ms: u64) -> Option<(u64, Vec<Place>)> {
        while self.next <= now_ms / STEP_MS {
            let (step, index) = (self.next, index(self.next));
            self.next += 1;
            if self.filled[index / 64] & 1 << (index % 64) != 0 {
                self.filled[index / 64] &= !(1 << (index % 64));
                return Some((step, std::mem::take(&mut self.steps[index])));
            }
        }
        None
    }

    /// When the first entry is due, milliseconds; `None` without entries.
    pub fn due_ms(&self) -> Option<u64> {
        let start = index(self.next);
        let ahead = |offset: usize| {
            let word = (start / 64 + offset) % WORDS;
            let mask = match offset {
                0 => u64::MAX << (start % 64),
                WORDS => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = self.filled[word] & mask;
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        };
        let found = (0..=WORDS).find_map(ahead)?;
        let distance = (found + STEPS - start) % STEPS;
        Some((self.next + distance as u64) * STEP_MS)
    }
}

fn index(step: u64) -> usize {
    (step % STEPS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(slot: u32) -> Place {
        Place { slot, life: 0 }
    }

    #[test]
    fn nobody_is_due_early_or_more_than_a_step_late() {
        let mut wheel = Wheel::new(5_000);
        assert_eq!(wheel.due_ms(), None);
        for (slot, deadline_ms) in [(1, 5_001), (2, 6_000), (3, 60_000), (4, 0)] {
            wheel.add(place(slot), deadline_ms);
        }
        let mut seen = Vec::new();
        for now_ms in 5_000..=60_200 {
            while let Some((_, due)) = wheel.take_due(now_ms) {
                seen.extend(due.into_iter().map(|place| (place.slot, now_ms)));
            }
        }
        assert_eq!(seen.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [4, 1, 2, 3]);
        for ((_, at_ms), deadline_ms) in seen.into_iter().zip([5_000, 5_001, 6_000, 60_000]) {
            assert!((deadline_ms..deadline_ms + STEP_MS).contains(&at_ms), "{deadline_ms}: {at_ms}");
        }
        assert_eq!(wheel.due_ms(), None);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_is_looked_at_on_the_way() {
        let mut wheel = Wheel::new(0);
        let step = wheel.add(place(1), 10_000_000);
        assert_eq!(step, STEPS as u64 - 1);
        assert_eq!(wheel.due_ms(), Some(step * STEP_MS));
        assert_eq!(wheel.take_due(step * STEP_MS).map(|(at, due)| (at, due.len())), Some((step, 1)));
    }

    #[test]
    fn the_first_entry_is_found_from_every_position() {
        for start in 0..STEPS as u64 {
            let mut wheel = Wheel::new(start * STEP_MS);
            wheel.add(place(1), (start + 900) * STEP_MS);
            assert_eq!(wheel.due_ms(), Some((start + 900) * STEP_MS));
            wheel.add(place(2), (start + 63) * STEP_MS);
            assert_eq!(wheel.due_ms(), Some((start + 63) * STEP_MS));
            wheel.add(place(3), start * STEP_MS);
            assert_eq!(wheel.due_ms(), Some(start * STEP_MS));
        }
    }
}
