//! DTLS with pre-shared keys on one UDP socket (RFC 6347, RFC 7252 section 9.1.3.1): which datagram is for which handshake or
//! association, who may begin one, and who is to be asked for a key meanwhile.
//!
//! No loop waits for a key: a flight that needs one is held, and handed to the library with the answer. A peer costs nothing
//! beyond a bounded table until it has returned the cookie, and a place in another until it has shown its key. The
//! library is `dimpl`, without I/O; ADR 29.

mod asking;
mod engine;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dimpl::Config;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::telemetry::{Handshaken, Lost, Telemetry};
use crate::domain::coap::Peer;
use crate::domain::coap::records::{self, First};
use crate::domain::identity::Proof;
use crate::domain::sessions::Sessions;
use asking::Shown;
pub use asking::{Answer, Question, ask};
use engine::{Drained, HANDSHAKE, KeyAtHand};
use table::{Association, Handshake, Stage, Table};

/// Longest identity that is asked for, in bytes: a tenant, a device and what is between them.
const IDENTITY_BYTES_MAX: usize = 256;
/// Largest datagram of a handshake, in bytes; its flights are small.
const FLIGHT_BYTES_MAX: usize = 1_500;
/// Datagrams of a handshake that wait for its key: a flight of the client, and once more.
const HELD_MAX: usize = 8;

/// What a datagram has led to.
pub enum Event {
    /// A message over an association, and what that has shown.
    Message { peer: Peer, proof: Proof, message: Bytes },
    /// Somebody is to be asked, and [`Dtls::answered`] to be told.
    Asks(Question),
}

/// Bounds of the associations of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub associations: usize,
    pub idle: Duration,
}

/// A socket with its handshakes and associations.
pub struct Dtls {
    pub socket: UdpSocket,
    config: Arc<Config>,
    key: Arc<KeyAtHand>,
    bounds: Bounds,
    table: Mutex<Table>,
    telemetry: Arc<Telemetry>,
}

impl Dtls {
    /// Without any yet.
    pub fn new(socket: UdpSocket, bounds: Bounds, telemetry: Arc<Telemetry>) -> Result<Self, dimpl::Error> {
        let key = Arc::<KeyAtHand>::default();
        let config = engine::config(key.clone())?;
        Ok(Self { socket, config, key, bounds, table: Mutex::default(), telemetry })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A datagram has come.
    pub fn receive(&self, datagram: &[u8], address: SocketAddr, now: Instant) -> Vec<Event> {
        let Some(first) = records::first(datagram) else {
            self.telemetry.lost(Lost::Malformed);
            return Vec::new();
        };
        let mut guard = self.table();
        let table = &mut *guard;
        let mut events = Vec::new();
        if let Some(hello) = records::hello(datagram).filter(|hello| hello.sequence == 0) {
            let known = table.handshakes.get(&address);
            // Whoever has the cookie is not driven out by a hello, which anybody can send.
            if known.is_none_or(|known| known.is_unproven() && known.random != hello.random) {
                table.handshakes.remove(&address);
                if table.make_room(true) {
                    self.telemetry.handshake(Handshaken::CrowdedOut);
                }
                let handshake = table.begin(&self.config, &hello, now);
                table.handshakes.insert(address, handshake);
            }
        }
        let associated = table.associations.contains_key(&address);
        let goes_on = |handshake: &Handshake| {
            // What is protected is for the association that is there, until another one has a key.
            first.epoch == 0 || !associated || matches!(handshake.stage, Stage::Keyed(_) | Stage::Asking { .. })
        };
        if table.handshakes.get(&address).is_some_and(goes_on) {
            if let Some(handshake) = table.handshakes.remove(&address) {
                self.go_on(table, address, handshake, datagram, now, &mut events);
            }
        } else if associated {
            self.associated(table, address, datagram, first, now, &mut events);
        } else {
            self.telemetry.lost(Lost::Unassociated);
        }
        events
    }

    /// Hands a datagram to a handshake, or holds it until there is a key.
    fn go_on(
        &self,
        table: &mut Table,
        address: SocketAddr,
        mut handshake: Handshake,
        datagram: &[u8],
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        if datagram.len() > FLIGHT_BYTES_MAX {
            self.telemetry.lost(Lost::Malformed);
            table.handshakes.insert(address, handshake);
            return;
        }
        if let Stage::Asking { held, .. } = &mut handshake.stage {
            if held.len() < HELD_MAX {
                held.push(datagram.to_vec());
            } else {
                tracing::debug!(%address, held = HELD_MAX, "a datagram is dropped: too many wait for a key");
                self.telemetry.lost(Lost::CrowdedOut);
            }
            table.handshakes.insert(address, handshake);
            return;
        }
        let identity = records::identity(datagram).filter(|identity| identity.len() <= IDENTITY_BYTES_MAX);
        if let (Stage::Proven, Some(identity)) = (&handshake.stage, identity) {
            let (identity, ended) = (identity.to_vec(), CancellationToken::new());
            events.push(Event::Asks(Question { address, id: handshake.id, identity, ended: ended.clone() }));
            handshake.stage = Stage::Asking { held: vec![datagram.to_vec()], _question: ended.drop_guard() };
            table.handshakes.insert(address, handshake);
            return;
        }
        self.drive(table, address, handshake, datagram, now, events);
    }

    /// Has the library go on with a handshake.
    fn drive(
        &self,
        table: &mut Table,
        address: SocketAddr,
        mut handshake: Handshake,
        datagram: &[u8],
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let shown = match &handshake.stage {
            Stage::Keyed(shown) => shown.clone(),
            Stage::Unproven | Stage::Proven | Stage::Asking { .. } => None,
        };
        self.key.put(shown.as_ref().map(|shown| (shown.identity.clone(), shown.key.clone())));
        let outcome = handshake.engine.receive(datagram, now, &mut table.scratch);
        self.key.put(None);
        let drained = match outcome {
            Ok(drained) => drained,
            Err(error) => return self.failed(address, &handshake, &error),
        };
        self.send_all(&drained.packets, address);
        if drained.closed {
            self.telemetry.handshake(Handshaken::Failed);
        } else if let (true, Some(shown)) = (drained.connected, shown) {
            self.completed(table, address, handshake, shown, now);
            take(drained, address, table, events);
        } else {
            if handshake.is_unproven() && drained.packets.iter().any(|packet| records::has_server_hello(packet)) {
                if table.make_room(false) {
                    self.telemetry.handshake(Handshaken::CrowdedOut);
                }
                handshake.stage = Stage::Proven;
            }
            table.handshakes.insert(address, handshake);
        }
    }

    /// Somebody has answered. If nobody could tell, the client's flight, when it comes again, has them asked again.
    pub fn answered(&self, question: &Question, answer: Answer, now: Instant) -> Vec<Event> {
        let mut guard = self.table();
        let table = &mut *guard;
        let mut events = Vec::new();
        let asked = table.handshakes.get_mut(&question.address).filter(|handshake| handshake.id == question.id);
        let Some(handshake) = asked else { return events };
        let Stage::Asking { held, .. } = &mut handshake.stage else { return events };
        let held = std::mem::take(held);
        handshake.stage = match answer {
            Answer::Known(shown) => Stage::Keyed(Some(Arc::from(shown))),
            Answer::Nobodys => Stage::Keyed(None),
            Answer::Unknown => Stage::Proven,
        };
        if matches!(handshake.stage, Stage::Proven) {
            return events;
        }
        for datagram in held {
            // The handshake may have become an association, or come to its end, with the one before.
            let still = table.handshakes.get(&question.address).is_some_and(|handshake| handshake.id == question.id);
            if let Some(handshake) = still.then(|| table.handshakes.remove(&question.address)).flatten() {
                self.drive(table, question.address, handshake, &datagram, now, &mut events);
            }
        }
        events
    }

    /// A handshake becomes the association of its address, in the place of the one before.
    fn completed(&self, table: &mut Table, address: SocketAddr, handshake: Handshake, shown: Arc<Shown>, now: Instant) {
        let Handshake { id, engine, .. } = handshake;
        if table.associations.remove(&address).is_some() {
            self.telemetry.dissociated();
        } else if let Some((silent, association)) = table.make_associations_room(self.bounds.associations) {
            self.close(silent, association, table);
        }
        tracing::debug!(%address, device = %shown.who.device, "associated");
        let checked = shown.who.generation;
        table.generation = table.generation.min(checked); // what was revoked since then is looked at
        table.associations.insert(address, Association { id, engine, shown, heard: now, checked });
        self.telemetry.handshake(Handshaken::Completed);
        self.telemetry.associated();
    }

    fn failed(&self, address: SocketAddr, handshake: &Handshake, error: &dimpl::Error) {
        let Stage::Keyed(shown) = &handshake.stage else {
            tracing::debug!(%address, %error, "a handshake failed");
            return self.telemetry.handshake(Handshaken::Failed);
        };
        if let Some(shown) = shown {
            tracing::info!(%address, device = %shown.who.device, %error, "a handshake is refused: the key is wrong");
        }
        self.telemetry.handshake(Handshaken::Refused); // before the refused one can know
        self.send_all(&[records::REFUSAL.to_vec()], address);
    }

    /// A datagram for the association at an address.
    fn associated(
        &self,
        table: &mut Table,
        address: SocketAddr,
        datagram: &[u8],
        first: First,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        if first.epoch == 0 && !first.is_handshake {
            self.telemetry.lost(Lost::Unassociated); // anybody can send it
            return;
        }
        let Some(association) = table.associations.get_mut(&address) else { return };
        match association.engine.receive(datagram, now, &mut table.scratch) {
            Ok(drained) => {
                if !drained.messages.is_empty() {
                    association.heard = now;
                }
                self.send_all(&drained.packets, address);
                let closed = drained.closed;
                take(drained, address, table, events);
                if closed && let Some(association) = table.associations.remove(&address) {
                    self.close(address, association, table);
                }
            }
            Err(error) => {
                tracing::debug!(%address, %error, "an association has failed");
                table.associations.remove(&address);
                self.telemetry.dissociated();
            }
        }
    }

    /// Sends a message over the association that `peer` is; it is lost if there is none any more.
    pub fn send(&self, peer: Peer, message: &[u8], now: Instant) {
        let mut guard = self.table();
        let Table { associations, scratch, .. } = &mut *guard;
        let found = associations.get_mut(&peer.address).filter(|association| association.id == peer.association);
        match found.map(|association| association.engine.send(message, now, scratch)) {
            Some(Ok(drained)) => self.send_all(&drained.packets, peer.address),
            Some(Err(error)) => {
                tracing::debug!(%peer, %error, "an association has failed");
                associations.remove(&peer.address);
                self.telemetry.dissociated();
            }
            None => self.telemetry.lost(Lost::Unassociated),
        }
    }

    /// Handshakes that are late go, and what they have sent goes out again; so do associations whose key was revoked, and
    /// with `sweep` those that have ended or are silent.
    pub fn tick(&self, now: Instant, sweep: bool, sessions: &Sessions, unix_ms: u64) {
        let mut guard = self.table();
        let table = &mut *guard;
        self.tick_handshakes(table, now);
        let generation = sessions.generation();
        if !sweep && generation == table.generation {
            return;
        }
        table.generation = generation;
        let gone = |association: &mut Association| {
            let who = &association.shown.who;
            let revoked = association.checked < generation && sessions.is_revoked_after(association.checked, who);
            association.checked = generation.max(association.checked);
            revoked || association.is_idle(self.bounds.idle, now) || who.lasts_ms(unix_ms) == Some(0)
        };
        let all = table.associations.iter_mut();
        let gone: Vec<SocketAddr> =
            all.filter_map(|(address, association)| gone(association).then_some(*address)).collect();
        for address in gone {
            if let Some(association) = table.associations.remove(&address) {
                self.close(address, association, table);
            }
        }
    }

    fn tick_handshakes(&self, table: &mut Table, now: Instant) {
        let Table { handshakes, scratch, .. } = table;
        handshakes.retain(|address, handshake| {
            if now.saturating_duration_since(handshake.began) >= HANDSHAKE {
                self.telemetry.handshake(Handshaken::Late);
                return false;
            }
            // To somebody unproven nothing is sent that was not asked for.
            let waits = matches!(handshake.stage, Stage::Unproven | Stage::Asking { .. });
            if waits || handshake.engine.due() > now {
                return true;
            }
            match handshake.engine.wait(now, scratch) {
                Ok(drained) => {
                    self.send_all(&drained.packets, *address);
                    true
                }
                Err(_) => {
                    self.telemetry.handshake(Handshaken::Late);
                    false
                }
            }
        });
    }

    /// Ends the association that `peer` is, if it still is: what it has shown does not hold any more.
    pub fn dissociate(&self, peer: Peer) {
        let mut guard = self.table();
        let table = &mut *guard;
        let found = table.associations.get(&peer.address).is_some_and(|found| found.id == peer.association);
        if let Some(association) = found.then(|| table.associations.remove(&peer.address)).flatten() {
            self.close(peer.address, association, table);
        }
    }

    /// Ends the handshakes, and with them the questions.
    pub fn end_handshakes(&self) {
        self.table().handshakes.clear();
    }

    /// Ends all of them.
    pub fn end(&self) {
        let mut guard = self.table();
        let table = &mut *guard;
        for (address, association) in std::mem::take(&mut table.associations) {
            self.close(address, association, table);
        }
        table.handshakes.clear();
    }

    fn close(&self, address: SocketAddr, mut association: Association, table: &mut Table) {
        tracing::debug!(%address, device = %association.shown.who.device, "no longer associated");
        if let Ok(drained) = association.engine.close(&mut table.scratch) {
            self.send_all(&drained.packets, address);
        }
        self.telemetry.dissociated();
    }

    fn send_all(&self, packets: &[Vec<u8>], address: SocketAddr) {
        for packet in packets {
            if let Err(error) = self.socket.try_send_to(packet, address) {
                tracing::debug!(%address, %error, "a datagram was not sent");
                self.telemetry.lost(Lost::Socket);
            }
        }
    }
}

/// The messages that have come over the association at an address.
fn take(drained: Drained, address: SocketAddr, table: &Table, events: &mut Vec<Event>) {
    let Some(association) = table.associations.get(&address) else { return };
    let peer = Peer { address, association: association.id };
    let proof = &association.shown.proof;
    let messages = drained.messages.into_iter();
    events.extend(messages.map(|message| Event::Message { peer, proof: proof.clone(), message }));
}
