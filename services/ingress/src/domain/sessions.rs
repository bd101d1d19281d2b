//! Which client has which session, and which connection holds it: one live connection for each (tenant, client).
//!
//! Domain layer, no I/O; time is monotonic milliseconds. Every change of who is connected is made here, under one
//! lock, together with its presence report, so that reports of one client alternate and carry growing epochs (P4).

mod rights;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::Version;
use drover_types::{ClientId, TenantId};

use crate::domain::connection::CloseReason;
use crate::domain::identity::Identity;
use crate::domain::link::{Link, Stop};
use crate::domain::message::{Publication, Publisher};
use crate::domain::revocations::Revocations;
use crate::domain::session::{Dropped, Session};

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

/// An authenticated CONNECT.
#[derive(Debug)]
pub struct Attach {
    pub identity: Arc<Identity>,
    pub client: ClientId,
    pub clean_start: bool,
    /// How long the session outlives the connection; 0: not at all.
    pub expiry_s: u32,
    pub will: Option<Will>,
    pub version: Version,
    pub peer: SocketAddr,
    pub link: Arc<Link>,
}

/// Why a CONNECT got no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("identity was revoked while it connected")]
    Revoked,
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
    /// In the order they happened.
    pub reports: Vec<Report>,
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
    Connected { peer: SocketAddr, version: Version },
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
    boot: u64,
    connects: u32,
    sessions: u64,
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
    /// An empty table. Epochs are `boot << 32 | n`, so those of a later boot are higher.
    pub fn new(boot: u32, persistent_max: usize) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            due: BTreeSet::new(),
            persistent: 0,
            boot: u64::from(boot),
            connects: 0,
            sessions: 0,
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
            epoch: inner.next_epoch(),
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
        inner.insert(key, entry);
        std::mem::take(&mut aftermath.reports).into_iter().for_each(report);
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
        std::mem::take(&mut aftermath.reports).into_iter().for_each(report);
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

impl Inner {
    fn next_epoch(&mut self) -> u64 {
        self.connects += 1;
        self.boot << 32 | u64::from(self.connects)
    }

    fn new_session(&mut self, (tenant, client): &Key) -> Session {
        self.sessions += 1;
        Session::new(self.sessions, tenant.clone(), client.clone())
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        self.persistent += usize::from(entry.expiry_s > 0);
        if let State::Away { ends_ms, will_ms } = entry.state {
            let first = if entry.will.is_some() { ends_ms.min(will_ms) } else { ends_ms };
            self.due.insert((first, key.clone()));
        }
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.persistent -= usize::from(entry.expiry_s > 0);
        if let State::Away { ends_ms, will_ms } = entry.state {
            self.due.remove(&(ends_ms, key.clone()));
            self.due.remove(&(will_ms, key.clone()));
        }
        Some(entry)
    }

    /// Ends or hands over what is there under `key`; the session to go on with, if there is one.
    fn take_over(
        &mut self,
        key: &Key,
        clean_start: bool,
        now_ms: u64,
        aftermath: &mut Aftermath,
    ) -> Option<Arc<Session>> {
        let mut entry = self.remove(key)?;
        if let State::Live { link, .. } = &entry.state {
            link.stop(Stop::TakenOver); // [MQTT-3.1.4-3]
            let what = Presence::Disconnected { reason: CloseReason::TakenOver };
            aftermath.reports.push(Report { publisher: entry.publisher.clone(), what });
        }
        let over = matches!(entry.state, State::Away { ends_ms, .. } if ends_ms <= now_ms);
        let ends = if over {
            Some(Dropped::SessionExpired)
        } else if clean_start {
            Some(Dropped::CleanStart) // [MQTT-3.1.2-4]
        } else {
            (entry.expiry_s == 0).then_some(Dropped::SessionClosed)
        };
        if let Some(why) = ends {
            aftermath.end(entry, why);
            return None;
        }
        let waits = entry.will.as_ref().is_some_and(|will| will.delay_s > 0);
        if !waits && matches!(entry.state, State::Live { .. }) {
            aftermath.release_will(&mut entry);
        }
        Some(entry.session) // a will that still waits is gone with its entry [MQTT-3.1.3-9]
    }

    /// A live entry becomes absent, or ends.
    fn let_go(&mut self, key: Key, mut entry: Entry, reason: CloseReason, now_ms: u64, aftermath: &mut Aftermath) {
        aftermath.away += entry.session.release(entry.publisher.epoch);
        let what = Presence::Disconnected { reason };
        aftermath.reports.push(Report { publisher: entry.publisher.clone(), what });
        if entry.expiry_s == 0 {
            aftermath.end(entry, Dropped::SessionClosed);
            return;
        }
        aftermath.left.push(entry.session.clone());
        let after = |seconds: u32| now_ms.saturating_add(u64::from(seconds) * 1_000);
        let delay_s = entry.will.as_ref().map_or(0, |will| will.delay_s);
        if delay_s == 0 {
            aftermath.release_will(&mut entry);
        }
        entry.state = State::Away { ends_ms: after(entry.expiry_s), will_ms: after(delay_s) };
        self.insert(key, entry);
    }

    fn fall_due(&mut self, key: Key, now_ms: u64, aftermath: &mut Aftermath) {
        let Some(mut entry) = self.remove(&key) else { return };
        match entry.state {
            State::Away { ends_ms, .. } if ends_ms <= now_ms => aftermath.end(entry, Dropped::SessionExpired),
            State::Away { .. } | State::Live { .. } => {
                aftermath.release_will(&mut entry);
                self.insert(key, entry);
            }
        }
    }
}

impl Aftermath {
    fn release_will(&mut self, entry: &mut Entry) {
        let publisher = entry.publisher.clone();
        self.wills.extend(entry.will.take().map(|will| DueWill { publisher, publication: will.publication }));
    }

    /// The session ends, and a will that still waits is published.
    fn end(&mut self, mut entry: Entry, why: Dropped) {
        self.release_will(&mut entry);
        self.ended.push((entry.session, why));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drover_types::{DeviceId, Qos, TopicName};

    use super::*;
    use crate::domain::authorize::Policy;
    use crate::domain::revocations::{REVOCATIONS_MAX, Revocation, Whose};

    fn attach(generation: u64, expiry_s: u32, will_delay_s: Option<u32>) -> Attach {
        let identity = Identity {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("d").expect("valid"),
            credential: "k".into(),
            policies: Box::default(),
            policy: Policy::default(),
            expires_ms: 0,
            generation,
        };
        let publication = Publication {
            topic: TopicName::new("w").expect("valid"),
            payload: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            dup: false,
            packet_id: 0,
            properties: None,
        };
        Attach {
            identity: Arc::new(identity),
            client: ClientId::new("c").expect("valid"),
            clean_start: false,
            expiry_s,
            will: will_delay_s.map(|delay_s| Will { publication, delay_s }),
            version: Version::V5,
            peer: ([127, 0, 0, 1], 1).into(),
            link: Arc::default(),
        }
    }

    fn detach(sessions: &Sessions, attached: &Attached, expiry_s: u32, now_ms: u64) -> Aftermath {
        let lost = CloseReason::ConnectionLost;
        sessions.detach(&attached.publisher, expiry_s, WillFate::Publish, lost, now_ms, |_| ())
    }

    #[test]
    fn reports_of_a_client_alternate_and_their_epochs_grow() {
        let sessions = Sessions::new(7, 10);
        let mut reports = Vec::new();
        let (first, _) = sessions.attach(attach(0, 0, None), 0, |r| reports.push(r)).expect("attached");
        let (second, _) = sessions.attach(attach(0, 0, None), 0, |r| reports.push(r)).expect("attached");
        for attached in [&first, &second] {
            let lost = CloseReason::ConnectionLost;
            sessions.detach(&attached.publisher, 0, WillFate::Publish, lost, 0, |r| reports.push(r));
        }
        let seen: Vec<(u64, bool)> = reports
            .iter()
            .map(|r| (r.publisher.epoch - (7 << 32), matches!(r.what, Presence::Connected { .. })))
            .collect();
        assert_eq!(seen, [(1, true), (1, false), (2, true), (2, false)]);
        assert_eq!(sessions.counts(), (0, 0));
    }

    #[test]
    fn a_session_is_present_until_it_expires() {
        let sessions = Sessions::new(1, 10);
        let (first, _) = sessions.attach(attach(0, 10, None), 0, |_| ()).expect("attached");
        assert!(!first.present);
        detach(&sessions, &first, 10, 0);
        let (second, _) = sessions.attach(attach(0, 10, None), 9_999, |_| ()).expect("attached");
        assert!(second.present && second.session.number == first.session.number);
        detach(&sessions, &second, 10, 10_000);
        assert!(sessions.tick(19_999).ended.is_empty());
        assert_eq!(sessions.tick(20_000).ended.len(), 1);
        let (third, _) = sessions.attach(attach(0, 10, None), 20_000, |_| ()).expect("attached");
        assert!(!third.present);
    }

    #[test]
    fn a_delayed_will_waits_for_its_client_and_no_longer_than_its_session() {
        let sessions = Sessions::new(1, 10);
        let (first, _) = sessions.attach(attach(0, 10, Some(5)), 0, |_| ()).expect("attached");
        assert!(detach(&sessions, &first, 10, 0).wills.is_empty());
        let (second, aftermath) = sessions.attach(attach(0, 10, Some(5)), 4_999, |_| ()).expect("attached");
        assert!(aftermath.wills.is_empty() && sessions.tick(9_000).wills.is_empty(), "[MQTT-3.1.3-9]");
        detach(&sessions, &second, 10, 10_000);
        assert!(sessions.tick(14_999).wills.is_empty());
        assert_eq!(sessions.tick(15_000).wills.len(), 1);
        assert!(sessions.tick(20_000).wills.is_empty(), "once");

        let (third, _) = sessions.attach(attach(0, 2, Some(5)), 30_000, |_| ()).expect("attached");
        detach(&sessions, &third, 2, 30_000);
        assert_eq!(sessions.tick(32_000).wills.len(), 1, "the session has ended");
        let (fourth, _) = sessions.attach(attach(0, 0, Some(5)), 40_000, |_| ()).expect("attached");
        assert_eq!(detach(&sessions, &fourth, 0, 40_000).wills.len(), 1);
    }

    #[test]
    fn an_identity_verified_before_its_revocation_is_refused_after_it() {
        let sessions = Sessions::new(1, 10);
        let before = sessions.generation();
        sessions.attach(attach(before, 0, None), 0, |_| ()).expect("attached");
        let revocation =
            |device: &str, whose| Revocation { tenant: TenantId::default_tenant(), device: device.to_owned(), whose };
        assert!(sessions.revoke(revocation("d", Whose::Anonymous)).is_empty(), "it has shown a credential");
        let links = sessions.revoke(revocation("d", Whose::Credential("k".into())));
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].stopped(), Some(Stop::Revoked));
        assert_eq!(sessions.attach(attach(before, 0, None), 0, |_| ()).err(), Some(AttachError::Revoked));
        let after = sessions.generation();
        assert!(sessions.attach(attach(after, 0, None), 0, |_| ()).is_ok(), "verified anew");
        for n in 0..=REVOCATIONS_MAX {
            sessions.revoke(revocation(&format!("new-{n}"), Whose::Anonymous));
        }
        assert!(sessions.attach(attach(after, 0, None), 0, |_| ()).is_ok(), "it is none of those");
        for n in 0..=REVOCATIONS_MAX {
            sessions.revoke(revocation(&format!("other-{n}"), Whose::All));
        }
        let forgotten = sessions.attach(attach(after, 0, None), 0, |_| ()).err();
        assert_eq!(forgotten, Some(AttachError::Revoked), "in doubt");
    }

    #[test]
    fn persistent_sessions_are_bounded() {
        let sessions = Sessions::new(1, 1);
        let other = |expiry_s| Attach { client: ClientId::new("e").expect("valid"), ..attach(0, expiry_s, None) };
        let (first, _) = sessions.attach(attach(0, 10, None), 0, |_| ()).expect("at the limit");
        let refused = sessions.attach(other(10), 0, |_| ()).err();
        assert_eq!(refused, Some(AttachError::TooManySessions { limit: 1 }));
        assert!(sessions.attach(other(0), 0, |_| ()).is_ok(), "it is not persistent");
        detach(&sessions, &first, 10, 0);
        assert!(sessions.attach(attach(0, 10, None), 0, |_| ()).is_ok(), "it has its place already");
    }
}
