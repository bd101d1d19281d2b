//! Batches of one lane that are stored and routed here, and wait for the ingress nodes whose subscribers may want their
//! messages, and for the store where inboxes that have them are kept.
//!
//! Pure. The lane goes on meanwhile: a node or store that hangs holds back the receipts of those whose messages it may
//! want, and of nobody else. Receipts of one connection keep their order: what was stored behind messages that wait, waits with them.

use std::collections::BTreeMap;

use crate::domain::link::Place;

/// Batches of one lane that wait at the same time; where there would be one more, the lane waits as well.
const BATCHES_MAX: usize = 64;

/// A connection: the number of its loop, and its place there.
pub type Owner = (usize, Place);

/// Receipts of each connection, by their number.
pub type Owed = Vec<(Owner, usize)>;

/// Number of a batch that waits, in its lane.
pub type BatchId = u64;

/// The batches of one lane that wait.
#[derive(Default)]
pub struct Confirming {
    /// Oldest first, with the receipts that each connection gets when it is confirmed.
    batches: Vec<(BatchId, BTreeMap<Owner, usize>)>,
    added: BatchId,
}

impl Confirming {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether no further batch may wait.
    pub fn is_full(&self) -> bool {
        self.batches.len() >= BATCHES_MAX
    }

    /// Adds a batch that owes these receipts.
    pub fn add(&mut self, owed: impl IntoIterator<Item = (Owner, usize)>) -> BatchId {
        let mut of_each = BTreeMap::new();
        owed.into_iter().for_each(|(owner, count)| *of_each.entry(owner).or_default() += count);
        self.batches.push((self.added, of_each));
        self.added += 1;
        self.added - 1
    }

    /// A batch that waits for nothing owes these receipts. Those that nothing keeps back.
    pub fn free(&mut self, owed: impl IntoIterator<Item = (Owner, usize)>) -> Owed {
        free(&mut self.batches, owed)
    }

    /// Batch `id` is confirmed. The receipts that nothing keeps back any more.
    pub fn confirmed(&mut self, id: BatchId) -> Owed {
        let Some(at) = self.batches.iter().position(|(batch, _)| *batch == id) else { return Owed::new() };
        let (_, owed) = self.batches.remove(at);
        free(&mut self.batches[..at], owed)
    }
}

/// Adds receipts to those that the latest of `batches` owes the same connection; those that remain.
fn free(batches: &mut [(BatchId, BTreeMap<Owner, usize>)], owed: impl IntoIterator<Item = (Owner, usize)>) -> Owed {
    let is_free = |(owner, count): &(Owner, usize)| {
        let latest = batches.iter_mut().rev().find_map(|(_, owed)| owed.get_mut(owner));
        latest.map(|owed| *owed += count).is_none()
    };
    owed.into_iter().filter(is_free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(owed: &[(u32, usize)]) -> Owed {
        owed.iter().map(|(slot, count)| ((0, Place { slot: *slot, life: 0 }), *count)).collect()
    }

    #[test]
    fn receipts_of_a_connection_keep_their_order_and_others_do_not_wait() {
        let mut confirming = Confirming::default();
        assert_eq!(confirming.free(owed(&[(1, 1)])), owed(&[(1, 1)]));
        let first = confirming.add(owed(&[(1, 2), (2, 1), (1, 1)]));
        let second = confirming.add(owed(&[(2, 5), (3, 7)]));
        assert_eq!(confirming.free(owed(&[(1, 4), (9, 1), (2, 1)])), owed(&[(9, 1)]), "9 waits for nothing");
        assert_eq!(confirming.confirmed(second), owed(&[(3, 7)]), "what 2 is owed is behind the first batch");
        assert_eq!(confirming.confirmed(first), owed(&[(1, 7), (2, 7)]));
        assert!(confirming.is_empty() && confirming.confirmed(first).is_empty());
    }

    #[test]
    fn no_more_batches_wait_than_may() {
        let mut confirming = Confirming::default();
        let ids: Vec<_> = std::iter::from_fn(|| (!confirming.is_full()).then(|| confirming.add([]))).collect();
        assert_eq!(ids.len(), BATCHES_MAX);
        confirming.confirmed(ids[3]);
        assert!(!confirming.is_full());
    }
}
