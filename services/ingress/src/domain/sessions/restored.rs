//! Sessions that come back from the store: absent, with all that was kept of them.

use std::sync::Arc;

use super::{Aftermath, Entry, Key, Sessions, State};
use crate::domain::message::Publisher;
use crate::domain::session::{Dropped, Session};
use crate::ports::sessions::{Away, Row, Stored};

/// What the store has of a session that this node has taken.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: Key,
    /// Taken for it, higher than that of its last connection.
    pub epoch: u64,
    pub stored: Stored,
    /// Its inbox.
    pub rows: Vec<Row>,
}

impl Sessions {
    /// Takes a session back; `None` if a newer one is here. One that nobody was seen to leave is away since now; one that
    /// is over, or was there for its will alone, ends at once.
    pub fn restore(&self, kept: Kept, now_ms: u64) -> (Option<Arc<Session>>, Aftermath) {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        let Kept { key, epoch, stored, rows } = kept;
        let Some(journal) = inner.journal.clone() else { return (None, aftermath) };
        if inner.newest_epoch(&key) > epoch || inner.entries.contains_key(&key) {
            return (None, aftermath);
        }
        inner.sessions += 1;
        let session = Arc::new(Session::restored(inner.sessions, key.clone(), journal.clone(), epoch, &stored, rows));
        let head = stored.head;
        let unix_ms = journal.unix_ms();
        let after = |seconds: u32| unix_ms.saturating_add(u64::from(seconds) * 1_000);
        let delay_s = head.will.as_ref().map_or(0, |will| will.delay_s);
        let Away { ends_ms, will_ms } =
            head.away.unwrap_or_else(|| Away { ends_ms: after(head.expiry_s), will_ms: after(delay_s) });
        let monotonic = |at_ms: u64| now_ms.saturating_add(at_ms.saturating_sub(unix_ms));
        let publisher = Publisher { tenant: key.0.clone(), device: head.device, client: key.1.clone(), epoch };
        let mut entry = Entry {
            session: session.clone(),
            publisher,
            expiry_s: head.expiry_s,
            will: head.will.map(Box::new),
            state: State::Away { ends_ms: monotonic(ends_ms), will_ms: monotonic(will_ms) },
        };
        if ends_ms <= unix_ms {
            aftermath.end(entry, Dropped::SessionExpired);
            return (None, aftermath);
        }
        if will_ms <= unix_ms {
            aftermath.release_will(&mut entry);
        }
        aftermath.journal = entry.put_head(Some(Away { ends_ms, will_ms }));
        inner.insert(key, entry);
        (Some(session), aftermath)
    }

    /// Whether something is here of this client's session.
    pub fn has(&self, key: &Key) -> bool {
        self.lock().entries.contains_key(key)
    }
}
