//! What a session that outlives its connections tells the store, change by change.
//!
//! Domain layer, no I/O: changes go into the journal under the lock of the session, so they are in the order of what
//! happened. The session in memory is the truth while this process lives; the store has all of it that may not be lost.

use std::sync::Arc;

use drover_mqtt::PacketId;

use super::Delivery;
use super::moved::Moved;
use crate::domain::journal::Journal;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Change, Head, Place, Row, Subscription, What};

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
    /// What it has got already, for a while after it was taken back.
    moved: Option<Box<Moved>>,
    /// A former owner may still add to its inbox: until that is settled, only what is known is removed.
    unsettled: bool,
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
        Self {
            journal,
            key: Arc::new(key),
            keeps_messages,
            next,
            stamp: epoch,
            passed: next,
            sent: None,
            whole_ms,
            moved: None,
            unsettled: false,
        }
    }

    /// Of a session that was in the store: `stamp` is the last that was used, `first` is its oldest message, `sent` the
    /// last that may have been sent.
    pub fn restored(self, stamp: u64, first: Option<Place>, sent: Option<Place>) -> Self {
        let stamp = self.stamp.max(stamp.saturating_add(1));
        Self { stamp, passed: first.unwrap_or(self.passed), sent, whole_ms: 0, ..self }
    }

    /// It comes from the store, with these messages.
    pub fn moved(&mut self, rows: &[Row], unsettled: bool) {
        self.moved = Some(Box::new(Moved::new(rows, self.journal.unix_ms())));
        self.unsettled = unsettled;
    }

    /// The inbox of a session that is arriving: `first` is its oldest message, `sent` the last that may have been sent. Stamps
    /// go on behind `stamp`.
    pub fn arrived(&mut self, stamp: u64, first: Option<Place>, sent: Option<Place>, unsettled: bool) {
        self.unsettled = unsettled;
        self.stamp = self.stamp.max(stamp.saturating_add(1));
        self.passed = first.unwrap_or(self.passed);
        self.sent = sent;
    }

    /// Nothing comes to it by a former way.
    pub fn drop_former_way(&mut self) {
        self.moved = None;
    }

    /// The same, if nothing does any more.
    pub fn forget_former_way(&mut self) {
        let now_ms = self.journal.unix_ms();
        self.moved.take_if(|moved| moved.is_over(now_ms));
    }

    /// Whether it has come from the store lately.
    pub fn has_moved(&self) -> bool {
        self.moved.is_some()
    }

    /// Whether the session has got this message already. Retained messages are read as often as they are asked for.
    pub fn has_already(&mut self, delivery: &Delivery) -> bool {
        if self.moved.is_some() {
            self.forget_former_way();
        }
        let id = delivery.message.telemetry.id;
        !delivery.retain && self.moved.as_mut().is_some_and(|moved| !moved.is_new(id))
    }

    /// Remembers messages that are in the store.
    pub fn remember(&mut self, rows: &[Row]) {
        if let Some(moved) = &mut self.moved {
            moved.add(rows);
        }
    }

    /// No former owner adds to the inbox any more.
    pub fn settled(&mut self) {
        self.unsettled = false;
    }

    /// Whether a former owner may still add to the inbox.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// The message at `place`, which a former owner has put there late, leaves it.
    pub fn remove(&mut self, place: Place) {
        let change = self.change(What::Remove(place));
        self.journal.push_lazily(change);
    }

    /// The session is to leave the list of the node that held it before.
    pub fn leave_list(&mut self, node: &str) -> u64 {
        let change = self.change(What::Left(node.into()));
        self.journal.push(change)
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

    /// A connection of this epoch holds the session; messages may have come under it already.
    pub fn hold(&mut self, epoch: u64) {
        if self.next.epoch != epoch {
            self.next = Place { epoch, number: 0 };
        }
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
        for place in places {
            if self.unsettled || place > oldest {
                self.remove(place);
            }
        }
        if oldest > self.passed && !self.unsettled {
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
