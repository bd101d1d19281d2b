//! An inbox that has taken more than it holds, as publishers can wait for its client: who waits, and whether the client moves
//! (ADR 40).
//!
//! Domain layer, pure. It lasts until half of the inbox is free. Who waits is let go with it; or before, when the client
//! has stood still for too long: then nothing more is taken, and nobody waits again, before half of the inbox is free.

use std::sync::Arc;

use tokio::sync::watch;

use super::Session;
use crate::domain::link::{Link, Withheld};

/// How long a client that takes and acknowledges nothing is waited for, in milliseconds.
pub const STANDSTILL_MS: u64 = 5_000;

/// Who waits for one client.
#[derive(Debug, Default)]
pub(super) struct Overfull {
    /// Of connections that have published what it has not taken.
    withheld: Vec<Withheld>,
    /// Tells tasks that wait; also by being dropped.
    over: watch::Sender<()>,
    /// How often the client has taken or acknowledged something.
    steps: u64,
    /// What `steps` was when it was last seen to grow, and when that was, monotonic milliseconds.
    seen: Option<(u64, u64)>,
    stalled: bool,
}

/// What became of an inbox that was overfull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Publishers wait for it.
    Awaited,
    /// Its client has stood still for too long: nobody waits any more.
    Stalled,
    /// It has room, or its client is gone.
    Over,
}

impl Overfull {
    /// Whether its client has stood still for too long.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The client has taken or acknowledged something.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    fn withhold(&mut self, publisher: &Arc<Link>) {
        let is_known = self.withheld.last().is_some_and(|last| last.is_of(publisher));
        if !self.stalled && !is_known {
            self.withheld.push(publisher.withhold());
        }
    }

    fn look(&mut self, now_ms: u64) -> Look {
        let (steps, since_ms) = *self.seen.get_or_insert((self.steps, now_ms));
        if steps != self.steps {
            self.seen = Some((self.steps, now_ms));
        } else if now_ms >= since_ms.saturating_add(STANDSTILL_MS) {
            self.stalled = true;
            self.withheld = Vec::new();
            self.over.send_replace(());
        }
        if self.stalled { Look::Stalled } else { Look::Awaited }
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
        self.state().overfull().filter(|overfull| !overfull.stalled).map(|overfull| overfull.over.subscribe())
    }

    /// Looks whether the client moves while others wait for it. To be called more often than every [`STANDSTILL_MS`].
    pub fn look(&self, now_ms: u64) -> Look {
        self.state().overfull().map_or(Look::Over, |overfull| overfull.look(now_ms))
    }

    /// The client of `epoch` has taken bytes of a message, and may take all of it only later.
    pub fn takes_bytes(&self, epoch: u64) {
        let mut state = self.state();
        if state.held_by(epoch)
            && let Some(overfull) = state.overfull()
        {
            overfull.step();
        }
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
