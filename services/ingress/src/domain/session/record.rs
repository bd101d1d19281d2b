//! What a session that outlives its connections tells the store, change by change.
//!
//! Domain layer, no I/O: changes go into the journal under the lock of the session, so they are in the order of what
//! happened. The session in memory is the truth while this process lives; the store has all of it that may not be lost.

use std::sync::Arc;

use crate::domain::journal::Journal;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Change, Head, Place, Row, Subscription, What};
use drover_mqtt::PacketId;

/// All of a session but its messages is written anew when it was last written this long ago, in milliseconds: stores give
/// everything a time to live, of which this and the longest absence are a part.
const REFRESH_MS: u64 = 7 * 24 * 3600 * 1_000;

/// The writer of one session.
pub(super) struct Record {
    journal: Arc<Journal>,
    key: Arc<Key>,
    /// Whether its subscriptions and messages are kept; else it is here for a will alone.
    keeps_messages: bool,
    /// Place of the next message.
    next: Place,
    /// Of the next change.
    stamp: u64,
    /// All messages before it have left the inbox.
    passed: Place,
    /// The last message that a connection may have been sent.
    sent: Option<Place>,
    /// When all but its messages was last written, milliseconds since the Unix epoch.
    whole_ms: u64,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("key", &self.key).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Record {
    /// Of a new session, whose first connection has this epoch.
    pub fn new(journal: Arc<Journal>, key: Key, epoch: u64, keeps_messages: bool) -> Self {
        let (next, whole_ms) = (Place { epoch, number: 0 }, journal.unix_ms());
        Self { journal, key: Arc::new(key), keeps_messages, next, stamp: epoch, passed: next, sent: None, whole_ms }
    }

    /// Of a session that was in the store: `stamp` is the last that was used, `first` is its oldest message, `sent` the
    /// last that may have been sent.
    pub fn restored(self, stamp: u64, first: Option<Place>, sent: Option<Place>) -> Self {
        let stamp = self.stamp.max(stamp.saturating_add(1));
        Self { stamp, passed: first.unwrap_or(self.passed), sent, whole_ms: 0, ..self }
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub fn keeps_messages(&self) -> bool {
        self.keeps_messages
    }

    /// Whether all but its messages is to be written anew.
    pub fn is_stale(&self) -> bool {
        self.keeps_messages && self.journal.unix_ms() >= self.whole_ms.saturating_add(REFRESH_MS)
    }

    /// It is.
    pub fn refreshed(&mut self) {
        self.whole_ms = self.journal.unix_ms();
    }

    /// A connection of this epoch holds the session.
    pub fn hold(&mut self, epoch: u64) {
        self.next = Place { epoch, number: 0 };
        self.stamp = self.stamp.max(epoch);
    }

    /// The place of a message that comes.
    pub fn take_place(&mut self) -> Place {
        let place = self.next;
        self.next.number += 1;
        place
    }

    /// The message at `place` is handed to a connection.
    pub fn sent(&mut self, place: Place) {
        self.sent = self.sent.max(Some(place));
    }

    fn change(&mut self, what: What) -> Change {
        self.stamp += 1;
        Change { key: self.key.clone(), stamp: self.stamp, what }
    }

    /// The session as a whole, but for what is known here.
    pub fn put_head(&mut self, head: Head) -> u64 {
        let head = Head { epoch: self.next.epoch, sent: self.sent, ..head };
        let change = self.change(What::Head(Box::new(head)));
        self.journal.push(change)
    }

    pub fn put_subscriptions(&mut self, all: Vec<Subscription>) -> u64 {
        let change = self.change(What::Subscriptions(all));
        self.journal.push(change)
    }

    /// What the client is about to be told is stored, and has not let go of.
    pub fn put_received(&mut self, packet_ids: Vec<PacketId>) -> u64 {
        let change = self.change(What::Received(packet_ids));
        self.journal.push(change)
    }

    pub fn put(&mut self, row: Row) -> u64 {
        let change = self.change(What::Put(row));
        self.journal.push(change)
    }

    /// These messages have left the inbox; `oldest` is what is left of it.
    pub fn left(&mut self, places: Vec<Place>, oldest: Option<Place>) {
        let oldest = oldest.unwrap_or(self.next);
        for place in places.into_iter().filter(|place| *place > oldest) {
            let change = self.change(What::Remove(place));
            self.journal.push_lazily(change);
        }
        if oldest > self.passed {
            let change = self.change(What::Passed { from: self.passed, before: oldest });
            self.journal.push_lazily(change);
            self.passed = oldest;
        }
    }

    /// The session is over.
    pub fn end(mut self) -> u64 {
        let change = self.change(What::End);
        self.journal.push(change)
    }
}
