//! An inbox that has taken more than it holds, as publishers can wait for its client: who waits, and for how long (ADR 40).
//!
//! Domain layer, pure. Publishers wait until half of the inbox is free. If that takes a client too long, they are let go, and
//! for a while nobody waits for it again, whether it has taken all meanwhile, or has come back by another connection.

use std::sync::Arc;

use tokio::sync::watch;

use super::Session;
use crate::domain::link::{Link, Withheld};

/// How long publishers wait for one client, in milliseconds.
pub const PATIENCE_MS: u64 = 5_000;
/// How long they do not wait again for a client that was too slow, in milliseconds.
pub const MISTRUST_MS: u64 = 300_000;

/// Who waits for one client.
#[derive(Debug, Default)]
pub(super) struct Overfull {
    /// Of connections that have published what it has not taken.
    withheld: Vec<Withheld>,
    /// Tells tasks that wait; also by being dropped.
    over: watch::Sender<()>,
    /// When it was looked at first, monotonic milliseconds.
    since_ms: Option<u64>,
    too_slow: bool,
}

/// What became of an inbox that was overfull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Publishers wait for it.
    Awaited,
    /// Its client is too slow: they wait no longer, as of now.
    GivenUp,
    /// Nobody waits for it for now.
    Mistrusted,
    /// It has room, or its client is gone and was not too slow, or is trusted again.
    Over,
}

impl Overfull {
    /// Whether nobody waits for its client for now.
    pub fn is_too_slow(&self) -> bool {
        self.too_slow
    }

    fn withhold(&mut self, publisher: &Arc<Link>) {
        let is_known = self.withheld.last().is_some_and(|last| last.is_of(publisher));
        if !self.too_slow && !is_known {
            self.withheld.push(publisher.withhold());
        }
    }

    fn look(&mut self, now_ms: u64) -> Look {
        let given_up_ms = self.since_ms.get_or_insert(now_ms).saturating_add(PATIENCE_MS);
        if now_ms < given_up_ms {
            return Look::Awaited;
        }
        if now_ms >= given_up_ms.saturating_add(MISTRUST_MS) {
            return Look::Over;
        }
        if std::mem::replace(&mut self.too_slow, true) {
            return Look::Mistrusted;
        }
        self.withheld = Vec::new();
        self.over.send_replace(());
        Look::GivenUp
    }
}

impl Session {
    /// The connection of a publisher acknowledges nothing until there is room here; nothing, if there is by now.
    pub fn withhold(&self, publisher: &Arc<Link>) {
        if let Some(overfull) = self.state().overfull() {
            overfull.withhold(publisher);
        }
    }

    /// Changes or closes when there is room, or the client is waited for no longer; `None`: so it is by now.
    pub fn room(&self) -> Option<watch::Receiver<()>> {
        self.state().overfull().filter(|overfull| !overfull.too_slow).map(|overfull| overfull.over.subscribe())
    }

    /// Looks whether publishers have waited for long enough. To be called more often than every [`PATIENCE_MS`].
    pub fn look(&self, now_ms: u64) -> Look {
        let mut state = self.state();
        let look = state.overfull().map_or(Look::Over, |overfull| overfull.look(now_ms));
        if look == Look::Over {
            if let Some(outbox) = &mut state.outbox {
                outbox.trust();
            }
            state.tidy();
        }
        look
    }

    /// Whether the client of `epoch` was sent what it has to acknowledge.
    pub fn awaits_answers(&self, epoch: u64) -> bool {
        let state = self.state();
        state.held_by(epoch) && state.outbox.as_ref().is_some_and(|outbox| outbox.awaits_answers())
    }

    /// The connection that holds the session.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.state().holder.as_ref().map(|holder| holder.link.clone())
    }
}
