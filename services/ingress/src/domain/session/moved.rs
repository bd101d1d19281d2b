//! What a session that was taken back from the store has got already, so that a message which comes to it by two ways is kept
//! once: by the node that held it before, and by the one that holds it now.
//!
//! Domain layer, pure. For a while only: two ways take seconds.

use std::collections::HashSet;

use drover_types::RecordId;
use drover_types::limits::INBOX_MESSAGES_MAX;

use crate::ports::sessions::Row;

/// How long ids are remembered, in milliseconds: longer than a node is waited for, and its sessions are read.
const REMEMBERED_MS: u64 = 600_000;
/// Ids remembered; beyond it a message that comes twice is kept twice.
const IDS_MAX: usize = 4 * INBOX_MESSAGES_MAX;
/// Of messages that have no record.
const NO_ID: RecordId = RecordId([0; 16]);

/// The messages of one session, by their ids.
pub(super) struct Moved {
    /// Name of the node that held the session before.
    from: Box<str>,
    ids: HashSet<RecordId>,
    /// Milliseconds since the Unix epoch.
    until_ms: u64,
}

impl Moved {
    /// Of a session from the node `from`, whose inbox has `rows`.
    pub fn new(from: &str, rows: &[Row], now_ms: u64) -> Self {
        let until_ms = now_ms.saturating_add(REMEMBERED_MS);
        let mut moved = Self { from: from.into(), ids: HashSet::new(), until_ms };
        rows.iter().for_each(|row| {
            moved.add(row);
        });
        moved
    }

    /// Whether the session comes from this node.
    pub fn is_from(&self, node: &str) -> bool {
        *self.from == *node
    }

    /// Whether nothing comes by the former way any more.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Adds a message of the inbox; whether it was not known.
    pub fn add(&mut self, row: &Row) -> bool {
        row.delivery.as_ref().is_none_or(|delivery| self.is_new(delivery.message.telemetry.id))
    }

    /// Whether a message was not known; it is from now on.
    pub fn is_new(&mut self, id: RecordId) -> bool {
        if id == NO_ID {
            return true;
        }
        if self.ids.len() >= IDS_MAX { !self.ids.contains(&id) } else { self.ids.insert(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_and_one_without_an_id_always() {
        let mut moved = Moved::new("a", &[], 0);
        assert!(moved.is_from("a") && !moved.is_from("b"));
        let seen = [1, 2, 1].map(|n| moved.is_new(RecordId([n; 16])));
        assert_eq!(seen, [true, true, false]);
        assert!(moved.is_new(NO_ID) && moved.is_new(NO_ID));
        assert_eq!([0, REMEMBERED_MS - 1, REMEMBERED_MS].map(|now| moved.is_over(now)), [false, false, true]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut moved = Moved::new("a", &[], 0);
        let id = |n: usize| RecordId((n as u128 + 1).to_be_bytes());
        assert!((0..IDS_MAX).all(|n| moved.is_new(id(n))));
        assert!(!moved.is_new(id(0)));
        assert!(moved.is_new(id(IDS_MAX)) && moved.is_new(id(IDS_MAX)), "it cannot be remembered");
    }
}
