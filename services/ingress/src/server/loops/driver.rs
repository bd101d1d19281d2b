//! A loop: connections of one thread, driven by readiness, mail and time, and by nothing else.
//!
//! It knows neither epoll nor a runtime's reactor: whoever runs it says which transports can go on, calls
//! [`Loop::turn`], and waits no longer than [`Loop::due_in`]. A turn never waits and takes a bounded step for each
//! connection that has something to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::appends::Appends;
use super::hands::{Entry, Hands, Shared};
use super::mailbox::{Mail, Mailbox};
use super::slot::{Outcome, Slot};
use super::slots::Slots;
use super::transport::Transport;
use crate::domain::connection::{Connection, Peer};
use crate::domain::link::{Link, Place, Stop};
use crate::server::questions::Answer;

pub use super::slot::Readiness;

/// Connections worked on before what they sent goes to the lanes.
const WORKED_MAX: usize = 256;

/// One loop.
pub struct Loop<T> {
    slots: Slots<Slot<T>>,
    hands: Hands,
    /// Connections with something to do.
    ready: Vec<usize>,
    /// The room of the list before, for the next.
    spare: Vec<usize>,
    mail: Vec<Mail>,
    lives: u32,
    /// Whether no new connections are taken.
    shut: bool,
    /// The slot up to which connections were told to end, in the course of a drain.
    closed_to: usize,
    /// Whether every connection is to end, also one that was on its way here.
    draining: bool,
}

impl<T: Transport> Loop<T> {
    /// A loop without connections that gets its mail from `mailbox`.
    pub fn new(shared: Arc<Shared>, mailbox: Arc<Mailbox>, appends: Appends) -> Self {
        Self {
            slots: Slots::new(),
            hands: Hands::new(shared, mailbox, appends),
            ready: Vec::new(),
            spare: Vec::new(),
            mail: Vec::new(),
            lives: 0,
            shut: false,
            closed_to: 0,
            draining: false,
        }
    }

    /// What it shares with other loops.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.hands.shared
    }

    /// The slot of the next connection.
    pub fn vacant(&self) -> usize {
        self.slots.vacant()
    }

    /// Takes a connection that was let in, into the slot that [`Loop::vacant`] says.
    pub fn accept(&mut self, transport: T, address: SocketAddr, anonymous: bool, entry: Entry) {
        let node = &self.hands.shared.node;
        node.telemetry.opened();
        let peer = Peer { address, certificate: None, anonymous, over_limit: entry == Entry::OverLimit };
        let connection = Connection::new(node.environment.clone(), peer, node.now());
        self.lives = self.lives.wrapping_add(1);
        let key = self.slots.vacant();
        let place = Place { slot: u32::try_from(key).unwrap_or(u32::MAX), life: self.lives };
        let link = Arc::new(Link::new(self.hands.mailbox.clone(), place));
        if self.draining {
            link.stop(Stop::Drain);
        }
        self.slots.insert(Slot::new(transport, connection, link, place));
        self.queue(key);
    }

    /// A transport can go on.
    pub fn stir(&mut self, slot: usize, readiness: Readiness) {
        if let Some(connection) = self.slots.get_mut(slot) {
            connection.stir(readiness);
            self.queue(slot);
        }
    }

    /// Does everything that can be done now, a bounded step for each connection.
    pub fn turn(&mut self) {
        (self.hands.now, self.hands.instant) = (self.hands.shared.node.now(), Instant::now());
        let mut mail = self.hands.mailbox.take(std::mem::take(&mut self.mail));
        mail.drain(..).for_each(|mail| self.open(mail));
        self.mail = mail;
        self.tell_stored();
        self.expire();
        let spare = std::mem::take(&mut self.spare);
        let mut ready = std::mem::replace(&mut self.ready, spare);
        for (worked, key) in ready.drain(..).enumerate() {
            self.work(key);
            if worked % WORKED_MAX == WORKED_MAX - 1 {
                self.hands.hand_over();
            }
        }
        self.spare = ready;
        self.hands.hand_over();
    }

    /// Whether the next turn has something to do already.
    pub fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.hands.stored.is_empty()
    }

    /// How long the next turn may wait; `None`: until something happens.
    pub fn due_in(&self) -> Option<Duration> {
        let due_ms = self.hands.wheel.due_ms()?;
        Some(Duration::from_millis(due_ms.saturating_sub(self.hands.shared.node.now().monotonic_ms)))
    }

    /// Whether new connections are taken.
    pub fn accepts(&self) -> bool {
        !self.shut
    }

    /// Takes no new connections, and is done when the last has closed.
    pub fn shut(&mut self) {
        self.shut = true;
    }

    /// Whether it takes no new connections, has none, and all they sent is stored and routed.
    pub fn is_done(&self) -> bool {
        self.shut && self.slots.is_empty() && self.hands.appends.is_empty() && !self.is_busy()
    }

    fn open(&mut self, mail: Mail) {
        match mail {
            Mail::Rung(place) => self.with(place, |slot, hands| slot.signalled(hands)),
            Mail::Answered(place, answer) => {
                let slot = find(&mut self.slots, place);
                let unwanted = match slot {
                    Some(slot) => slot.answered(answer, &mut self.hands),
                    None => Some(answer),
                };
                match unwanted {
                    None => self.queue(place.slot as usize),
                    Some(Answer::Identity(Ok(_))) => self.hands.shared.node.reports.release(),
                    Some(Answer::Identity(Err(_)) | Answer::Owner(..) | Answer::Settled(_) | Answer::Failed) => {}
                }
            }
            Mail::Settled(place) => self.with(place, |slot, hands| slot.settled(hands)),
            Mail::GoOn(step) => self.hands.appends.go_on(step, &mut self.hands.stored),
            Mail::Stored(mut stored) => self.hands.stored.append(&mut stored),
            Mail::Room(lane) => {
                let held = std::mem::take(&mut self.hands.held);
                let (released, held) = held.into_iter().partition(|(of, _)| *of == lane);
                self.hands.held = held;
                let released: Vec<(_, Place)> = released;
                released.into_iter().for_each(|(_, place)| self.with(place, |slot, _| slot.release()));
            }
            Mail::Shut => self.shut(),
            Mail::Close(count) => self.close_some(count),
            Mail::Drain => {
                self.shut();
                self.draining = true;
                self.slots.iter().for_each(|slot| slot.link.stop(Stop::Drain));
            }
        }
    }

    /// Has the next `count` connections end, in the order of their slots.
    fn close_some(&mut self, count: usize) {
        let mut left = count;
        while left > 0 && self.closed_to < self.slots.end() {
            if let Some(slot) = self.slots.get(self.closed_to) {
                slot.link.stop(Stop::Drain);
                left -= 1;
            }
            self.closed_to += 1;
        }
    }

    /// Does something with a connection, if it is still there, and has it worked on.
    fn with(&mut self, place: Place, act: impl FnOnce(&mut Slot<T>, &mut Hands)) {
        if let Some(slot) = find(&mut self.slots, place) {
            act(slot, &mut self.hands);
            self.queue(place.slot as usize);
        }
    }

    /// Tells connections of their receipts, each of all of its own at once.
    fn tell_stored(&mut self) {
        let mut stored = std::mem::take(&mut self.hands.stored);
        stored.sort_unstable_by_key(|(place, _)| *place);
        for of_one in stored.chunk_by(|a, b| a.0 == b.0) {
            let count = of_one.iter().map(|(_, count)| count).sum();
            self.with(of_one[0].0, |slot, hands| slot.stored(count, hands));
        }
        stored.clear();
        self.hands.stored = stored;
    }

    fn expire(&mut self) {
        while let Some((step, due)) = self.hands.wheel.take_due(self.hands.now.monotonic_ms) {
            for place in due {
                let is_due = find(&mut self.slots, place).is_some_and(|slot| slot.due(step, &self.hands));
                if is_due {
                    self.queue(place.slot as usize);
                }
            }
        }
    }

    fn queue(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key).filter(|slot| !slot.queued) {
            slot.queued = true;
            self.ready.push(key);
        }
    }

    fn work(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.queued = false;
        match slot.work(&mut self.hands) {
            Outcome::Idle => {}
            Outcome::Again => self.queue(key),
            Outcome::Gone => self.remove(key),
        }
    }

    fn remove(&mut self, key: usize) {
        let Some(slot) = self.slots.remove(key) else { return };
        let (link, entry) = (slot.link.clone(), slot.entry());
        if slot.is_held() {
            self.hands.held.retain(|(_, place)| *place != slot.place());
        }
        drop(slot); // and with it the socket
        link.set_closed();
        let shared = &self.hands.shared;
        shared.node.telemetry.closed();
        shared.doors.leave(entry);
    }
}

fn find<T: Transport>(slots: &mut Slots<Slot<T>>, place: Place) -> Option<&mut Slot<T>> {
    slots.get_mut(place.slot as usize).filter(|slot| slot.place() == place)
}
