//! What a change of one entry means: it is handed over, becomes absent, falls due, or ends.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use drover_types::DeviceId;

use super::{Aftermath, Attach, DueWill, Entry, Inner, Key, Presence, Report, State, Will};
use crate::domain::connection::CloseReason;
use crate::domain::link::{Link, Stop};
use crate::domain::message::Publisher;
use crate::domain::session::{Dropped, Session};
use crate::ports::sessions::{Away, Head};

impl Inner {
    pub(super) fn new_session(&mut self, (tenant, client): &Key) -> Session {
        self.sessions += 1;
        Session::new(self.sessions, tenant.clone(), client.clone())
    }

    /// A new session is kept if it outlives its connection; one that has a will is, so that this is published whatever
    /// happens to the node.
    pub(super) fn record(&self, session: &Session, attach: &Attach) {
        let keeps_messages = attach.expiry_s > 0;
        if let Some(journal) = self.journal.as_ref().filter(|_| keeps_messages || attach.will.is_some()) {
            session.record(journal.clone(), attach.epoch, keeps_messages);
        }
    }

    /// When an absent entry ends and its will is due, in milliseconds since the Unix epoch.
    fn away(&self, entry: &Entry, now_ms: u64) -> Option<Away> {
        let (State::Away { ends_ms, will_ms, .. }, Some(journal)) = (&entry.state, &self.journal) else {
            return None;
        };
        let unix_ms = |at_ms: u64| journal.unix_ms().saturating_add(at_ms.saturating_sub(now_ms));
        Some(Away { ends_ms: unix_ms(*ends_ms), will_ms: unix_ms(*will_ms) })
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.persistent += usize::from(entry.expiry_s > 0);
        let key = entry.session.key();
        match &entry.state {
            State::Live { identity, .. } => self.counts.add(&key.0, &identity.device),
            State::Away { ends_ms, will_ms, .. } => {
                let first = if entry.will.is_some() { *ends_ms.min(will_ms) } else { *ends_ms };
                self.due.insert((first, key.clone()));
            }
        }
        self.entries.replace(Box::new(entry));
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = *self.entries.take(key)?;
        self.persistent -= usize::from(entry.expiry_s > 0);
        match &entry.state {
            State::Live { identity, .. } => self.counts.remove(&key.0, &identity.device),
            State::Away { ends_ms, will_ms, .. } => {
                self.due.remove(&(*ends_ms, key.clone()));
                self.due.remove(&(*will_ms, key.clone()));
            }
        }
        Some(entry)
    }

    /// Ends or hands over what is there under `key`; the session to go on with, if there is one.
    pub(super) fn take_over(
        &mut self,
        key: &Key,
        clean_start: bool,
        now_ms: u64,
        aftermath: &mut Aftermath,
    ) -> Option<Arc<Session>> {
        let mut entry = self.remove(key)?;
        aftermath.cut_off(&entry);
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
    pub(super) fn let_go(&mut self, mut entry: Entry, reason: CloseReason, now_ms: u64, aftermath: &mut Aftermath) {
        aftermath.away += entry.session.release(entry.epoch);
        let what = Presence::Disconnected { reason };
        aftermath.reports.push(Report { publisher: entry.publisher(), what });
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
        let device = entry.device().clone();
        entry.state = State::Away { device, ends_ms: after(entry.expiry_s), will_ms: after(delay_s) };
        aftermath.journal = aftermath.journal.max(entry.put_head(self.away(&entry, now_ms)));
        self.insert(entry);
    }

    /// The store cannot take a session: it ends, and so does its connection.
    pub(super) fn end_unwritable(&mut self, key: &Key, aftermath: &mut Aftermath) {
        let Some(entry) = self.remove(key) else { return };
        if let State::Live { link, .. } = &entry.state {
            link.stop(Stop::NotKept);
            let what = Presence::Disconnected { reason: CloseReason::NotKept };
            aftermath.reports.push(Report { publisher: entry.publisher(), what });
        }
        aftermath.end(entry, Dropped::NotKept);
    }

    pub(super) fn fall_due(&mut self, key: &Key, now_ms: u64, aftermath: &mut Aftermath) {
        let Some(mut entry) = self.remove(key) else { return };
        match entry.state {
            State::Away { ends_ms, .. } if ends_ms <= now_ms => aftermath.end(entry, Dropped::SessionExpired),
            State::Away { .. } | State::Live { .. } => {
                aftermath.release_will(&mut entry);
                entry.put_head(self.away(&entry, now_ms));
                self.insert(entry);
            }
        }
    }
}

impl Borrow<Key> for Box<Entry> {
    fn borrow(&self) -> &Key {
        self.session.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.session.key() == other.session.key()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.key().hash(state);
    }
}

impl Entry {
    /// Whose client it is.
    pub(super) fn device(&self) -> &DeviceId {
        match &self.state {
            State::Live { identity, .. } => &identity.device,
            State::Away { device, .. } => device,
        }
    }

    /// What its client publishes as, or did last.
    pub(super) fn publisher(&self) -> Publisher {
        self.session.publisher(self.device().clone(), self.epoch)
    }

    /// Tells the store what the session is now; the position of the journal, 0 if it is not kept.
    pub(super) fn put_head(&self, away: Option<Away>) -> u64 {
        self.session.put_head(Head {
            epoch: self.epoch,
            device: self.device().clone(),
            expiry_s: self.expiry_s,
            away,
            will: self.will.as_deref().cloned(),
            sent: None,
        })
    }
}

impl Aftermath {
    /// Closes the connection that holds the entry, if one does, for its client has connected anew; its link.
    pub(super) fn cut_off(&mut self, entry: &Entry) -> Option<Arc<Link>> {
        let State::Live { link, .. } = &entry.state else { return None };
        link.stop(Stop::TakenOver); // [MQTT-3.1.4-3]
        let what = Presence::Disconnected { reason: CloseReason::TakenOver };
        self.reports.push(Report { publisher: entry.publisher(), what });
        Some(link.clone())
    }

    /// Hands the reports over, in the order in which things happened.
    pub(super) fn tell(&mut self, report: impl FnMut(Report)) {
        std::mem::take(&mut self.reports).into_iter().for_each(report);
    }

    pub(super) fn release_will(&mut self, entry: &mut Entry) {
        let will = entry.will.take();
        let due = |will: Box<Will>| DueWill { publisher: entry.publisher(), publication: will.publication };
        self.wills.extend(will.map(due));
    }

    /// The session ends, and a will that still waits is published.
    pub(super) fn end(&mut self, mut entry: Entry, why: Dropped) {
        self.release_will(&mut entry);
        self.journal = self.journal.max(entry.session.close_record(why, true));
        self.ended.push((entry.session, why));
    }

    /// The session goes on at another node, with all that is kept of it.
    pub(super) fn leave(&mut self, entry: Entry) {
        entry.session.close_record(Dropped::Moved, false);
        self.ended.push((entry.session, Dropped::Moved));
    }
}
