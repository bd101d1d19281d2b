//! Connections that have taken, or are about to take, the ownership of a session and do not hold it yet.
//!
//! While one is under way, the newest epoch of its client is remembered here, also when nothing is left of the session
//! that had it: an older epoch that arrives late gets nothing. What is kept is bounded by the connections of the node.

use super::{Inner, Key, Sessions};

/// Of one client.
#[derive(Debug, Default)]
pub(super) struct Claims {
    under_way: usize,
    /// Newest epoch seen since the first of them began.
    newest_epoch: u64,
}

impl Sessions {
    /// A connection begins to take this client's session; [`Sessions::end_claim`] follows, whatever comes of it.
    pub fn begin_claim(&self, key: &Key) {
        let mut inner = self.lock();
        let newest_epoch = inner.entries.get(key).map_or(0, |entry| entry.epoch);
        let claims = inner.claims.entry(key.clone()).or_default();
        claims.under_way += 1;
        claims.newest_epoch = claims.newest_epoch.max(newest_epoch);
    }

    /// Clients whose sessions are about to be taken.
    pub fn under_way(&self) -> Vec<Key> {
        self.lock().claims.keys().cloned().collect()
    }

    /// Whether this client's session is.
    pub fn is_under_way(&self, key: &Key) -> bool {
        self.lock().claims.contains_key(key)
    }

    /// It has its session, or gave up.
    pub fn end_claim(&self, key: &Key) {
        let mut inner = self.lock();
        let Some(claims) = inner.claims.get_mut(key) else { return };
        claims.under_way -= 1;
        if claims.under_way == 0 {
            inner.claims.remove(key);
        }
    }
}

impl Inner {
    /// Newest epoch of a client, as far as it matters to those that connect.
    pub(super) fn newest_epoch(&self, key: &Key) -> u64 {
        let held = self.entries.get(key).map_or(0, |entry| entry.epoch);
        self.claims.get(key).map_or(0, |claims| claims.newest_epoch).max(held)
    }

    /// A connection, here or elsewhere, has this epoch.
    pub(super) fn claimed(&mut self, key: &Key, epoch: u64) {
        if let Some(claims) = self.claims.get_mut(key) {
            claims.newest_epoch = claims.newest_epoch.max(epoch);
        }
    }
}
