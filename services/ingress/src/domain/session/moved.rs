//! What a session that was taken back from the store has got already, so that a message which comes to it by two ways is kept
//! once: by the node that held it before, and by the one that holds it now.
//!
//! Domain layer, pure. For a while only: two ways take seconds.

use std::collections::{HashSet, VecDeque};

use drover_types::RecordId;
use drover_types::limits::INBOX_MESSAGES_MAX;

use crate::ports::sessions::Row;

/// How long ids are remembered, in milliseconds: longer than a node is waited for, and its sessions are read.
const REMEMBERED_MS: u64 = 600_000;
/// Newest ids remembered, 16 bytes each, twice; an older message that comes twice is kept twice.
const IDS_MAX: usize = 2 * INBOX_MESSAGES_MAX;
/// Of messages that have no record.
pub(super) const NO_ID: RecordId = RecordId([0; 16]);

/// The messages of one session, by their ids.
pub(super) struct Moved {
    known: HashSet<RecordId>,
    /// The same, the oldest first.
    order: VecDeque<RecordId>,
    /// Milliseconds since the Unix epoch.
    until_ms: u64,
}

impl Moved {
    /// Of a session whose inbox has `rows`.
    pub fn new(rows: &[Row], now_ms: u64) -> Self {
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        let mut moved = Self { known: HashSet::new(), order: VecDeque::new(), until_ms };
        moved.add(rows);
        moved
    }

    /// Whether nothing comes by the former way any more.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Adds messages of the inbox.
    pub fn add(&mut self, rows: &[Row]) {
        for delivery in rows.iter().filter_map(|row| row.delivery.as_ref()) {
            self.is_new(delivery.message.telemetry.id);
        }
    }

    /// Whether a message was not known; it is from now on.
    pub fn is_new(&mut self, id: RecordId) -> bool {
        if id == NO_ID {
            return true;
        }
        let is_new = self.known.insert(id);
        if is_new {
            self.order.push_back(id);
        }
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> RecordId {
        RecordId((n as u128 + 1).to_be_bytes())
    }

    #[test]
    fn a_message_is_new_once_and_one_without_an_id_always() {
        let mut moved = Moved::new(&[], 0);
        let seen = [1, 2, 1].map(|n| moved.is_new(id(n)));
        assert_eq!(seen, [true, true, false]);
        assert!(moved.is_new(NO_ID) && moved.is_new(NO_ID));
        assert_eq!([0, REMEMBERED_MS - 1, REMEMBERED_MS].map(|now| moved.is_over(now)), [false, false, true]);
    }

    #[test]
    fn the_newest_messages_are_remembered() {
        let mut moved = Moved::new(&[], 0);
        assert!((0..=IDS_MAX).all(|n| moved.is_new(id(n))));
        assert!(!moved.is_new(id(IDS_MAX)) && !moved.is_new(id(1)));
        assert!(moved.is_new(id(0)), "it is forgotten");
    }
}
