//! Sessions that come back from the store: absent, with all that was kept of them; or from a node that still holds them.

use std::sync::Arc;

use super::{Aftermath, Entry, Inner, Key, Sessions, State};
use crate::domain::journal::Journal;
use crate::domain::session::{Dropped, Session};
use crate::ports::sessions::{Away, Head, Row, Stored};

/// What the store has of a session that this node has taken.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: Key,
    /// Taken for it, higher than that of its last connection.
    pub epoch: u64,
    pub stored: Stored,
    /// Its inbox.
    pub rows: Vec<Row>,
    /// Whether a former owner may still add to it.
    pub unsettled: bool,
}

impl Sessions {
    /// Takes a session back; `None` if a newer one is here. One that nobody was seen to leave is away since now; one that
    /// is over, or was there for its will alone, ends at once.
    pub fn restore(&self, kept: Kept, now_ms: u64) -> (Option<Arc<Session>>, Aftermath) {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        let (epoch, head) = (kept.epoch, kept.stored.head.clone());
        let Some((session, journal)) = inner.take_back(kept) else { return (None, aftermath) };
        let goes_on = inner.settle(session.clone(), epoch, head, &journal, now_ms, &mut aftermath);
        (goes_on.then_some(session), aftermath)
    }

    /// A session is about to come from the node that holds it: it takes messages here from now on. `None` if one is here.
    pub fn arriving(&self, kept: Kept, now_ms: u64) -> Option<Arc<Session>> {
        let mut inner = self.lock();
        let (epoch, head) = (kept.epoch, kept.stored.head.clone());
        let (session, _) = inner.take_back(kept)?;
        let ends_ms = now_ms.saturating_add(u64::from(head.expiry_s) * 1_000);
        let state = State::Away { device: head.device, ends_ms, will_ms: ends_ms };
        let entry =
            Entry { session: session.clone(), epoch, expiry_s: head.expiry_s, will: None, arriving: true, state };
        inner.insert(entry);
        Some(session)
    }

    /// The session that was arriving with `epoch` is here: `head` is what its former owner has left. `None` if it is not here
    /// any more, or has ended.
    pub fn arrived(&self, key: &Key, epoch: u64, head: Head, now_ms: u64) -> (Option<Arc<Session>>, Aftermath) {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        let entry = inner.entries.get(key);
        if !entry.is_some_and(|entry| entry.arriving && entry.epoch == epoch) {
            return (None, aftermath);
        }
        let (entry, journal) = (inner.remove(key), inner.journal.clone());
        let Some((Entry { session, .. }, journal)) = entry.zip(journal) else { return (None, aftermath) };
        let goes_on = inner.settle(session.clone(), epoch, head, &journal, now_ms, &mut aftermath);
        (goes_on.then_some(session), aftermath)
    }

    /// Whether something is here of this client's session.
    pub fn has(&self, key: &Key) -> bool {
        self.lock().entries.contains(key)
    }

    /// Whether this client's session is arriving.
    pub fn is_arriving(&self, key: &Key) -> bool {
        self.lock().entries.get(key).is_some_and(|entry| entry.arriving)
    }

    /// The session that is arriving with `epoch`.
    pub fn arriving_with(&self, key: &Key, epoch: u64) -> Option<Arc<Session>> {
        let inner = self.lock();
        let entry = inner.entries.get(key).filter(|entry| entry.arriving && entry.epoch == epoch);
        entry.map(|entry| entry.session.clone())
    }

    /// This client's session, if it is here.
    pub fn session(&self, key: &Key) -> Option<Arc<Session>> {
        self.lock().entries.get(key).map(|entry| entry.session.clone())
    }
}

impl Inner {
    /// The session that `kept` is, unless a newer one is here, or nothing is kept.
    fn take_back(&mut self, kept: Kept) -> Option<(Arc<Session>, Arc<Journal>)> {
        let journal = self.journal.clone()?;
        if self.newest_epoch(&kept.key) > kept.epoch || self.entries.contains(&kept.key) {
            return None;
        }
        self.sessions += 1;
        let session = Session::restored(self.sessions, journal.clone(), kept);
        if !journal.store().is_shared() {
            session.drop_former_way();
        }
        Some((Arc::new(session), journal))
    }

    /// Gives an absent session its entry, as `head` says; whether it goes on.
    fn settle(
        &mut self,
        session: Arc<Session>,
        epoch: u64,
        head: Head,
        journal: &Journal,
        now_ms: u64,
        aftermath: &mut Aftermath,
    ) -> bool {
        let unix_ms = journal.unix_ms();
        let after = |seconds: u32| unix_ms.saturating_add(u64::from(seconds) * 1_000);
        let delay_s = head.will.as_ref().map_or(0, |will| will.delay_s);
        let Away { ends_ms, will_ms } =
            head.away.unwrap_or_else(|| Away { ends_ms: after(head.expiry_s), will_ms: after(delay_s) });
        let monotonic = |at_ms: u64| now_ms.saturating_add(at_ms.saturating_sub(unix_ms));
        let mut entry = Entry {
            session,
            epoch,
            expiry_s: head.expiry_s,
            will: head.will.map(Box::new),
            arriving: false,
            state: State::Away { device: head.device, ends_ms: monotonic(ends_ms), will_ms: monotonic(will_ms) },
        };
        if ends_ms <= unix_ms {
            aftermath.end(entry, Dropped::SessionExpired);
            return false;
        }
        if will_ms <= unix_ms {
            aftermath.release_will(&mut entry);
        }
        aftermath.journal = entry.put_head(Some(Away { ends_ms, will_ms }));
        self.insert(entry);
        true
    }
}
