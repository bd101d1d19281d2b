//! The connections of a loop, each in a slot with a number, which the next one gets when it is gone.
//!
//! Slots lie in chunks that never move: growth copies nothing, and leaves room for no more than a chunk.

/// Slots of a chunk, so that it fills a size of the allocator.
const CHUNK: usize = 64;

/// A list of slots.
pub struct Slots<T> {
    chunks: Vec<Vec<Option<T>>>,
    /// Numbers of those that were taken before, to be taken again.
    free: Vec<usize>,
}

impl<T> Slots<T> {
    /// Without any.
    pub fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }

    /// All numbers are below.
    pub fn end(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// The number of the slot that is taken next.
    pub fn vacant(&self) -> usize {
        self.free.last().copied().unwrap_or_else(|| self.end())
    }

    /// Takes the slot that [`Slots::vacant`] says.
    pub fn insert(&mut self, value: T) {
        if let Some(number) = self.free.pop() {
            self.chunks[number / CHUNK][number % CHUNK] = Some(value);
            return;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut().expect("there is room in one").push(Some(value));
    }

    pub fn get(&self, number: usize) -> Option<&T> {
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)?.as_ref()
    }

    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)?.as_mut()
    }

    /// Empties a slot.
    pub fn remove(&mut self, number: usize) -> Option<T> {
        let removed = self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)?.take();
        self.free.extend(removed.is_some().then_some(number));
        removed
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.end()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_again_and_none_moves_when_there_are_more() {
        let mut slots = Slots::new();
        assert!(slots.is_empty() && slots.get(0).is_none() && slots.remove(0).is_none());
        slots.insert(0);
        let first: *const usize = slots.get(0).expect("it was taken");
        for number in 1..3 * CHUNK {
            assert_eq!(slots.vacant(), number);
            slots.insert(number);
        }
        assert_eq!((slots.end(), slots.iter().count()), (3 * CHUNK, 3 * CHUNK));
        assert!(std::ptr::eq(first, slots.get(0).expect("it is there")));
        assert_eq!((slots.remove(CHUNK), slots.remove(CHUNK), slots.get(CHUNK)), (Some(CHUNK), None, None));
        assert_eq!((slots.vacant(), slots.iter().count()), (CHUNK, 3 * CHUNK - 1));
        slots.insert(7);
        assert_eq!((slots.get(CHUNK), slots.vacant()), (Some(&7), 3 * CHUNK));
        assert_eq!(slots.get_mut(CHUNK), Some(&mut 7));
        for number in 0..3 * CHUNK {
            assert!(!slots.is_empty() && slots.remove(number).is_some());
        }
        assert!(slots.is_empty());
    }
}
