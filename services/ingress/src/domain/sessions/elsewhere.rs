//! What other nodes, or the lifecycle events, say of clients of this node: a newer epoch elsewhere ends what is here.

use std::sync::Arc;

use super::{Aftermath, Key, Report, Sessions, State};
use crate::domain::link::{Link, Stop};
use crate::domain::session::Dropped;

/// What became of a session here when its client connected elsewhere.
#[derive(Debug)]
pub enum Left {
    /// Nothing was here, or it ends; the link of its connection, to be waited for.
    Older(Option<Arc<Link>>),
    /// What is here is newer, of this epoch.
    Newer(u64),
}

impl Sessions {
    /// The client has connected elsewhere with `epoch`: an older session of it ends here, present or absent. `report`
    /// is called as by [`Sessions::attach`].
    pub fn taken_elsewhere(&self, key: &Key, epoch: u64, report: impl FnMut(Report)) -> (Left, Aftermath) {
        let mut inner = self.lock();
        let mut aftermath = Aftermath::default();
        let newest_epoch = inner.newest_epoch(key);
        if newest_epoch > epoch {
            return (Left::Newer(newest_epoch), aftermath);
        }
        inner.claimed(key, epoch);
        // With this very epoch it is the session that is spoken of.
        if inner.entries.get(key).is_none_or(|entry| entry.epoch == epoch) {
            return (Left::Older(None), aftermath);
        }
        let entry = inner.remove(key).expect("it was just found");
        let left = aftermath.cut_off(&entry);
        let goes_on = entry.expiry_s > 0 && inner.journal.as_ref().is_some_and(|journal| journal.store().is_shared());
        if goes_on {
            aftermath.leave(entry);
        } else {
            aftermath.end(entry, Dropped::Moved);
        }
        aftermath.tell(report);
        (Left::Older(left), aftermath)
    }

    /// The platform has told everybody that the connection of `epoch` is gone, for its node was silent too long. It
    /// closes, so that its client connects anew and is known again.
    pub fn declared_gone(&self, key: &Key, epoch: u64) {
        let inner = self.lock();
        let entry = inner.entries.get(key).filter(|entry| entry.epoch == epoch);
        if let Some(State::Live { link, .. }) = entry.map(|entry| &entry.state) {
            link.stop(Stop::DeclaredGone);
        }
    }
}
