//! The handshakes and associations of a socket, by address, within bounds: at them those give way that have shown least.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dimpl::Config;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::asking::Shown;
use super::engine::{Engine, Scratch};
use crate::domain::coap::records::Hello;

/// Handshakes whose peer has not returned the cookie, which may be anybody at any address; at it the oldest gives way.
pub const UNPROVEN_MAX: usize = 1_024;
/// Those whose peer has, likewise.
pub const PROVEN_MAX: usize = 1_024;

/// How far a handshake is.
pub enum Stage {
    /// It was answered with a HelloVerifyRequest.
    Unproven,
    /// Its peer is where it says.
    Proven,
    /// The registry is asked for its key; what has come since then waits. The question ends with this.
    Asking { held: Vec<Vec<u8>>, _question: DropGuard },
    /// With the key of its identity; without, if there is none: it fails at its end, as with a wrong key.
    Keyed(Option<Arc<Shown>>),
}

/// A handshake under way.
pub struct Handshake {
    pub id: u64,
    pub engine: Engine,
    pub began: Instant,
    /// Of its ClientHello.
    pub random: [u8; 32],
    pub stage: Stage,
}

impl Handshake {
    pub fn is_unproven(&self) -> bool {
        matches!(self.stage, Stage::Unproven)
    }
}

/// A handshake that was completed.
pub struct Association {
    pub id: u64,
    pub engine: Engine,
    pub shown: Arc<Shown>,
    /// When its peer was heard last.
    pub heard: Instant,
    /// Up to which revocation was looked whether it is still good.
    pub checked: u64,
}

/// All of them.
#[derive(Default)]
pub struct Table {
    pub handshakes: HashMap<SocketAddr, Handshake>,
    pub associations: HashMap<SocketAddr, Association>,
    pub scratch: Scratch,
    /// Number of the newest revocation that was looked at.
    pub generation: u64,
    last_id: u64,
}

impl Table {
    /// A handshake that `hello` begins, with a number that no other has had.
    pub fn begin(&mut self, config: &Arc<Config>, hello: &Hello, now: Instant) -> Handshake {
        self.last_id += 1;
        let engine = Engine::new(config, now);
        Handshake { id: self.last_id, engine, began: now, random: hello.random, stage: Stage::Unproven }
    }

    /// Makes room for one more handshake that is proven or not; whether another one had to go for it.
    pub fn make_room(&mut self, unproven: bool) -> bool {
        let limit = if unproven { UNPROVEN_MAX } else { PROVEN_MAX };
        if self.handshakes.len() < limit {
            return false;
        }
        let alike = self.handshakes.iter().filter(|(_, handshake)| handshake.is_unproven() == unproven);
        if alike.clone().count() < limit {
            return false;
        }
        let oldest = alike.min_by_key(|(_, handshake)| handshake.began).map(|(address, _)| *address);
        oldest.and_then(|address| self.handshakes.remove(&address)).is_some()
    }

    /// Makes room for one more association among `max`; the one that had to go for it, the longest silent.
    pub fn make_associations_room(&mut self, max: usize) -> Option<(SocketAddr, Association)> {
        if self.associations.len() < max {
            return None;
        }
        let silent = self.associations.iter().min_by_key(|(_, association)| association.heard);
        let address = *silent?.0;
        self.associations.remove(&address).map(|association| (address, association))
    }
}

impl Association {
    /// Whether it was silent for `idle`.
    pub fn is_idle(&self, idle: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= idle
    }
}
