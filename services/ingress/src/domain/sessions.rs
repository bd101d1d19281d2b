//! Which client has which session, and which connection holds it: one live connection for each (tenant, client).
//!
//! Domain layer, no I/O; time is monotonic milliseconds. Every change of who is connected is made here, under one
//! lock, together with its presence report, so that reports of one client alternate and carry growing epochs (P4).
//! Epochs come from outside ([`crate::ports::Owners`]); one that is outdated when it arrives gets nothing.

mod changes;
mod claims;
mod elsewhere;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::Version;
use drover_types::{ClientId, TenantId};

use crate::domain::connection::CloseReason;
use crate::domain::identity::Identity;
use crate::domain::link::Link;
use crate::domain::message::{Publication, Publisher};
use crate::domain::revocations::Revocations;
use crate::domain::session::{Dropped, Session};
use claims::Claims;
pub use elsewhere::Left;

/// A message to publish when its client is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    pub publication: Publication,
    /// How long it waits for the client's return (MQTT 5 section 3.1.3.2.2).
    pub delay_s: u32,
}

/// A will whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct DueWill {
    pub publisher: Publisher,
    pub publication: Publication,
}

/// Whether a will is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFate {
    /// After its delay, or when the session ends [MQTT-3.1.2-8].
    Publish,
    /// Never [MQTT-3.1.2-10].
    Discard,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Mqtt(Version),
    Coap,
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        Self::Mqtt(version)
    }
}

/// An authenticated CONNECT, or what is one for another protocol.
#[derive(Debug)]
pub struct Attach {
    pub identity: Arc<Identity>,
    pub client: ClientId,
    /// Of this connection, taken for it.
    pub epoch: u64,
    pub clean_start: bool,
    /// How long the session outlives the connection; 0: not at all.
    pub expiry_s: u32,
    pub will: Option<Will>,
    pub version: Protocol,
    pub peer: SocketAddr,
    pub link: Arc<Link>,
}

/// Why a CONNECT got no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("identity was revoked while it connected")]
    Revoked,
    #[error("a newer connection has its client id")]
    TakenOver,
    /// Nobody could say whose the session is; never admitted then.
    #[error("session cannot be taken: {reason}")]
    NoOwner { reason: String },
    #[error("node keeps {limit} persistent sessions, which is the limit")]
    TooManySessions { limit: usize },
}

/// What a CONNECT got.
#[derive(Debug)]
pub struct Attached {
    pub session: Arc<Session>,
    pub publisher: Publisher,
    /// Whether the session was there before [MQTT-3.2.2-2].
    pub present: bool,
}

/// What other parts of the node have to do after a change.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// Sessions that ended, and why: their subscriptions go, and what waits in them is dropped.
    pub ended: Vec<(Arc<Session>, Dropped)>,
    /// Sessions whose client is away now: others may have what waits in them of shared subscriptions.
    pub left: Vec<Arc<Session>>,
    /// Messages of QoS 0 that waited for a client that is away now.
    pub away: usize,
    pub wills: Vec<DueWill>,
    /// In the order they happened; told before others get to see this.
    reports: Vec<Report>,
}

/// A change of presence.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub publisher: Publisher,
    pub what: Presence,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    Connected { peer: SocketAddr, version: Protocol },
    Disconnected { reason: CloseReason },
}

/// Whose a session is.
pub type Key = (TenantId, ClientId);

/// The sessions of this node.
#[derive(Debug)]
pub struct Sessions {
    inner: Mutex<Inner>,
    /// Most persistent sessions, present or absent.
    persistent_max: usize,
}

#[derive(Debug)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// What becomes due when: ends of absent sessions and delayed wills.
    due: BTreeSet<(u64, Key)>,
    persistent: usize,
    sessions: u64,
    /// Clients whose connections are about to get their sessions.
    claims: HashMap<Key, Claims>,
    revocations: Revocations,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    publisher: Publisher,
    expiry_s: u32,
    will: Option<Will>,
    state: State,
}

#[derive(Debug)]
enum State {
    Live {
        link: Arc<Link>,
        identity: Arc<Identity>,
    },
    /// Times in monotonic milliseconds.
    Away {
        ends_ms: u64,
        will_ms: u64,
    },
}

impl Sessions {
    /// An empty table.
    pub fn new(persistent_max: usize) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            persistent: 0,
            sessions: 0,
            claims: HashMap::new(),
            revocations: Revocations::default(),
        };
        Self { inner: Mutex::new(inner), persistent_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the newest revocation; an identity is verified as of the number read before it was asked for.
    pub fn generation(&self) -> u64 {
        self.lock().revocations.generation()
    }

    /// Gives the client its session, and takes it from the connection that has it. `report` is called for each
    /// presence report, in order, while nobody else can report.
    pub fn attach(
        &self,
        attach: Attach,
        now_ms: u64,
        report: impl FnMut(Report),
    ) -> Result<(Attached, Aftermath), AttachError> {
        let mut inner = self.lock();
        if inner.revocations.concern(&attach.identity) {
            return Err(AttachError::Revoked);
        }
        let key = (attach.identity.tenant.clone(), attach.client.clone());
        if attach.epoch < inner.newest_epoch(&key) {
            return Err(AttachError::TakenOver);
        }
        let known = inner.entries.get(&key).is_some_and(|entry| entry.expiry_s > 0);
        if attach.expiry_s > 0 && !known && inner.persistent >= self.persistent_max {
            return Err(AttachError::TooManySessions { limit: self.persistent_max });
        }
        let mut aftermath = Aftermath::default();
        let session = inner.take_over(&key, attach.clean_start, now_ms, &mut aftermath);
        let present = session.is_some();
        let session = session.unwrap_or_else(|| Arc::new(inner.new_session(&key)));
        let publisher = Publisher {
            tenant: key.0.clone(),
            device: attach.identity.device.clone(),
            client: key.1.clone(),
            epoch: attach.epoch,
        };
        session.hold(publisher.epoch, attach.link.clone());
        let what = Presence::Connected { peer: attach.peer, version: attach.version };
        aftermath.reports.push(Report { publisher: publisher.clone(), what });
        let entry = Entry {
            session: session.clone(),
            publisher: publisher.clone(),
            expiry_s: attach.expiry_s,
            will: attach.will,
            state: State::Live { link: attach.link, identity: attach.identity },
        };
        inner.claimed(&key, attach.epoch);
        inner.insert(key, entry);
        aftermath.tell(report);
        Ok((Attached { session, publisher, present }, aftermath))
    }

    /// The connection that `publisher` was is closed. Does nothing if another one has taken over.
    pub fn detach(
        &self,
        publisher: &Publisher,
        expiry_s: u32,
        will: WillFate,
        reason: CloseReason,
        now_ms: u64,
        report: impl FnMut(Report),
    ) -> Aftermath {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        let key = (publisher.tenant.clone(), publisher.client.clone());
        if inner.entries.get(&key).is_none_or(|entry| entry.publisher.epoch != publisher.epoch) {
            return aftermath;
        }
        let mut entry = inner.remove(&key).expect("it was just found");
        if will == WillFate::Discard {
            entry.will = None;
        }
        entry.expiry_s = expiry_s;
        inner.let_go(key, entry, reason, now_ms, &mut aftermath);
        aftermath.tell(report);
        aftermath
    }

    /// Ends sessions whose time is over and releases wills whose delay has passed.
    pub fn tick(&self, now_ms: u64) -> Aftermath {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        while let Some((due_ms, key)) = inner.due.first().filter(|(due_ms, _)| *due_ms <= now_ms).cloned() {
            inner.due.remove(&(due_ms, key.clone()));
            inner.fall_due(key, now_ms, &mut aftermath);
        }
        aftermath
    }

    /// Releases the wills that wait for their time: a will comes when its delay passes or its session ends, whichever is
    /// first (MQTT 5 section 3.1.3.2.2), and the sessions are about to end with this process.
    pub fn release_wills(&self) -> Vec<DueWill> {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        inner.release_wills(&mut aftermath);
        aftermath.wills
    }

    /// Every session ends with this process.
    pub fn stop(&self) -> Aftermath {
        let mut inner = self.lock();
        inner.due.clear();
        inner.persistent = 0;
        let ended = inner.entries.drain().map(|(_, entry)| (entry.session, Dropped::NodeStopped)).collect();
        Aftermath { ended, ..Aftermath::default() }
    }

    /// Live connections and absent sessions.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let live = inner.entries.values().filter(|entry| matches!(entry.state, State::Live { .. })).count();
        (live, inner.entries.len() - live)
    }
}
