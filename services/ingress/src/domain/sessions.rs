//! Which client has which session, and which connection holds it: one live connection for each (tenant, client).
//!
//! Domain layer, no I/O; time is monotonic milliseconds. Every change of who is connected is made here, under one
//! lock, together with its presence report, so that reports of one client alternate and carry growing epochs (P4).
//! Epochs come from outside ([`crate::ports::Owners`]); one that is outdated when it arrives gets nothing.

mod changes;
mod claims;
mod counts;
mod elsewhere;
mod restored;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::Version;
use drover_types::{ClientId, DeviceId, TenantId};

use crate::domain::connection::CloseReason;
use crate::domain::identity::Identity;
use crate::domain::journal::Journal;
use crate::domain::link::Link;
use crate::domain::message::{Publication, Publisher};
use crate::domain::quotas::QuotaOf;
use crate::domain::revocations::Revocations;
use crate::domain::session::{Dropped, Session};
use claims::Claims;
pub use counts::ConnectionQuotas;
use counts::Counts;
pub use elsewhere::Left;
pub use restored::Kept;

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
    #[error("{of} has {limit} connections to this node, which is its quota")]
    TooManyConnections { of: QuotaOf, limit: u32 },
    /// Nobody could say what the session is.
    #[error("session cannot be read: {reason}")]
    NotRead { reason: String },
}

/// What a CONNECT got.
#[derive(Debug)]
pub struct Attached {
    pub session: Arc<Session>,
    pub publisher: Publisher,
    /// Whether the session was there before [MQTT-3.2.2-2].
    pub present: bool,
    /// What has to be so before the client is told.
    pub awaited: Awaited,
}

/// What somebody has to wait for: with [`crate::domain::node::Node::settled`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Version of what is wanted here that other nodes know; 0: none.
    pub interest: u64,
    /// Position of the journal that is durable; 0: none.
    pub journal: u64,
}

impl Awaited {
    /// Whether there is nothing to wait for.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Both of the two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { interest: self.interest.max(other.interest), journal: self.journal.max(other.journal) }
    }
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
    /// Position of the journal as of what was told to the store; 0: nothing was.
    pub journal: u64,
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

/// How often the owner of a live connection is renewed, in milliseconds: it is remembered for 30 days after that, so a
/// store that is away has three more chances.
const RENEWED_MS: u64 = 7 * 24 * 3600 * 1_000;

/// Whose a session is.
pub type Key = (TenantId, ClientId);

/// The sessions of this node.
pub struct Sessions {
    inner: Mutex<Inner>,
    /// Most persistent sessions, present or absent.
    persistent_max: usize,
}

struct Inner {
    /// The way into the store; without, sessions end with this process.
    journal: Option<Arc<Journal>>,
    /// Found by the keys of their sessions. Boxed: a table that has just grown is half empty, and its empty places are as
    /// large as the others.
    entries: HashSet<Box<Entry>>,
    /// What becomes due when: ends of absent sessions and delayed wills.
    due: BTreeSet<(u64, Key)>,
    persistent: usize,
    /// Of connections.
    counts: Counts,
    sessions: u64,
    /// Clients whose connections are about to get their sessions.
    claims: HashMap<Key, Claims>,
    revocations: Revocations,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    /// Of the connection that has the session, or had it last.
    epoch: u64,
    expiry_s: u32,
    /// Its inbox is not read yet, for another node may hold it still.
    arriving: bool,
    /// Most clients have none.
    will: Option<Box<Will>>,
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
        device: DeviceId,
        ends_ms: u64,
        will_ms: u64,
    },
}

impl Sessions {
    /// An empty table.
    pub fn new(persistent_max: usize) -> Self {
        let inner = Inner {
            journal: None,
            entries: HashSet::new(),
            due: BTreeSet::new(),
            persistent: 0,
            counts: Counts::default(),
            sessions: 0,
            claims: HashMap::new(),
            revocations: Revocations::default(),
        };
        Self { inner: Mutex::new(inner), persistent_max }
    }

    /// The same, kept in the store that `journal` leads to.
    #[must_use]
    pub fn kept_by(self, journal: Arc<Journal>) -> Self {
        self.lock().journal = Some(journal);
        self
    }

    /// The same, with at most so many connections of one device and of one tenant.
    #[must_use]
    pub fn within(self, quotas: ConnectionQuotas) -> Self {
        self.lock().counts.quotas = quotas;
        self
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
        inner.check_connections(&key, &attach.identity.device)?;
        let known = inner.entries.get(&key).is_some_and(|entry| entry.expiry_s > 0);
        if attach.expiry_s > 0 && !known && inner.persistent >= self.persistent_max {
            return Err(AttachError::TooManySessions { limit: self.persistent_max });
        }
        let mut aftermath = Aftermath::default();
        let session = inner.take_over(&key, attach.clean_start, now_ms, &mut aftermath);
        let present = session.is_some();
        let session = session.unwrap_or_else(|| Arc::new(inner.new_session(&key)));
        if !present {
            inner.record(&session, &attach);
        }
        let publisher = session.publisher(attach.identity.device.clone(), attach.epoch);
        session.hold(publisher.epoch, attach.link.clone());
        let what = Presence::Connected { peer: attach.peer, version: attach.version };
        aftermath.reports.push(Report { publisher: publisher.clone(), what });
        let entry = Entry {
            session: session.clone(),
            epoch: publisher.epoch,
            expiry_s: attach.expiry_s,
            will: attach.will.map(Box::new),
            arriving: false,
            state: State::Live { link: attach.link, identity: attach.identity },
        };
        aftermath.journal = aftermath.journal.max(entry.put_head(None));
        let awaited = Awaited { journal: aftermath.journal, ..Awaited::default() };
        inner.claimed(&key, attach.epoch);
        inner.insert(entry);
        aftermath.tell(report);
        Ok((Attached { session, publisher, present, awaited }, aftermath))
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
        let key = publisher.key();
        if inner.entries.get(&key).is_none_or(|entry| entry.epoch != publisher.epoch) {
            return aftermath;
        }
        let mut entry = inner.remove(&key).expect("it was just found");
        if will == WillFate::Discard {
            entry.will = None;
        }
        entry.expiry_s = expiry_s;
        inner.let_go(entry, reason, now_ms, &mut aftermath);
        aftermath.tell(report);
        aftermath
    }

    /// Ends sessions whose time is over and releases wills whose delay has passed.
    pub fn tick(&self, now_ms: u64) -> Aftermath {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        while let Some((due_ms, key)) = inner.due.first().filter(|(due_ms, _)| *due_ms <= now_ms).cloned() {
            inner.due.remove(&(due_ms, key.clone()));
            inner.fall_due(&key, now_ms, &mut aftermath);
        }
        aftermath
    }

    /// Ends sessions that the store cannot take. `report` is called as by [`Sessions::attach`].
    pub fn end_unwritable(&self, keys: &HashSet<Arc<Key>>, report: impl FnMut(Report)) -> Aftermath {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        keys.iter().for_each(|key| inner.end_unwritable(key, &mut aftermath));
        aftermath.tell(report);
        aftermath
    }

    /// Live connections whose owner was to be renewed since `from_ms`, by `now_ms`: whose they are, and their epochs. They are
    /// renewed every [`RENEWED_MS`] after the time that their epochs begin with, both in milliseconds since the Unix epoch.
    pub fn to_renew(&self, from_ms: u64, now_ms: u64) -> Vec<(Key, u64)> {
        let inner = self.lock();
        let due = inner.entries.iter().filter(|entry| {
            let began_ms = entry.epoch / 1_000;
            let times = |at_ms: u64| at_ms.saturating_sub(began_ms) / RENEWED_MS;
            matches!(entry.state, State::Live { .. }) && times(now_ms) > times(from_ms)
        });
        due.map(|entry| (entry.session.key().clone(), entry.epoch)).collect()
    }

    /// Has the sessions of long connections written anew, before what was written of them is too old; and forgets what sessions
    /// have had elsewhere that came here a while ago.
    pub fn refresh(&self) {
        let inner = self.lock();
        if inner.journal.as_ref().is_some_and(|journal| journal.store().is_shared()) {
            inner.entries.iter().for_each(|entry| entry.session.forget_former_way());
        }
        let live = inner.entries.iter().filter(|entry| matches!(entry.state, State::Live { .. }));
        live.filter(|entry| entry.session.is_stale()).for_each(|entry| {
            entry.put_head(None);
        });
    }

    /// Every session ends with this process; those that are kept go on in the next.
    pub fn stop(&self) -> Aftermath {
        let mut inner = self.lock();
        inner.due.clear();
        inner.persistent = 0;
        inner.counts.clear();
        let stopped = |entry: Box<Entry>| {
            entry.session.close_record(Dropped::NodeStopped, false);
            (entry.session, Dropped::NodeStopped)
        };
        let ended = inner.entries.drain().map(stopped).collect();
        Aftermath { ended, ..Aftermath::default() }
    }

    /// Live connections and absent sessions.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let live = inner.entries.iter().filter(|entry| matches!(entry.state, State::Live { .. })).count();
        (live, inner.entries.len() - live)
    }
}
