//! What comes to a loop from outside: signals of links, answers, receipts.
//!
//! Any thread posts; the loop takes everything at once. A loop that was told to look is not told again until it does.
//! The queue needs no limit of its own: each link, append and lane is in it at most once, each connection has at most one
//! question and one wait of its SUBSCRIBEs on its way, a drain says ten times a second how many to close, and batches that other loops have stored are bounded by what their
//! lanes hold.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::appends::Step;
use super::lanes::LaneId;
use crate::domain::link::{Doorbell, Place};
use crate::server::questions::Answer;

/// One thing to do for a loop.
pub enum Mail {
    /// The link of this connection has signals.
    Rung(Place),
    /// What this connection has asked for.
    Answered(Place, Answer),
    /// What the connection's oldest unanswered SUBSCRIBE or UNSUBSCRIBE waits for is settled.
    Settled(Place),
    /// What the loop has under way can go on.
    GoOn(Step),
    /// Another loop has stored messages of these connections: how many of each.
    Stored(Vec<(Place, usize)>),
    /// There is room in the lane again.
    Room(LaneId),
    /// Takes no new connections, and is done when the others have closed.
    Shut,
    /// Has so many connections more end.
    Close(usize),
    /// Has every connection end.
    Drain,
}

/// The way to one loop.
pub struct Mailbox {
    number: usize,
    posted: Mutex<Vec<Mail>>,
    told: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
    closed: Notify,
}

impl Mailbox {
    /// An empty box of loop `number`; `wake` makes the loop look.
    pub fn new(number: usize, wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (posted, told, closed) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        Arc::new(Self { number, posted, told, wake: Box::new(wake), closed })
    }

    /// Which loop's it is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Adds `mail`.
    pub fn post(&self, mail: Mail) {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
        self.wake();
    }

    /// Makes the loop look.
    pub fn wake(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Exchanges what was posted for `empty`.
    pub fn take(&self, empty: Vec<Mail>) -> Vec<Mail> {
        // First: whoever posts from here on wakes the loop again.
        self.told.store(false, Ordering::Release);
        mem::replace(&mut *self.posted.lock().unwrap_or_else(PoisonError::into_inner), empty)
    }
}

impl Doorbell for Mailbox {
    fn ring(&self, place: Place) {
        self.post(Mail::Rung(place));
    }

    fn number(&self) -> usize {
        self.number
    }

    fn closed(&self) -> &Notify {
        &self.closed
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("number", &self.number).finish_non_exhaustive()
    }
}
