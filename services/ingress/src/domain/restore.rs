//! Sessions that nobody holds: those of before this process are taken back from the store before anybody connects, and those
//! of a node that is gone ([`super::inherit`]) while it is.
//!
//! Domain layer over the ports SessionStore and Owners. Each is taken anew, with an epoch of its own, so that what an
//! earlier process of this name, or the other node, might still write is told from what this one does.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};

use crate::domain::node::Node;
use crate::domain::ownership::Claim;
use crate::domain::peers::Ended;
use crate::domain::sessions::{Awaited, Kept, Key};
use crate::ports::sessions::Listed;
use crate::ports::{OwnersError, StoreError};

/// Sessions that are looked up at once.
pub(super) const PAGE: usize = 128;
/// Sessions that are taken and read at the same time: of each a read, a compare-and-set and two or three reads more.
pub(super) const AT_ONCE: usize = 64;
/// Wait before what could not be read is asked for again, unless something else could be: a store that answers for some is
/// asked for the others at once.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Peers wait for a node that takes its sessions back. One that gets no further for this long, in milliseconds, ends instead,
/// and they take what it has left; started again, it is none of the nodes before its stores are there.
pub(super) const STUCK_MS: u64 = 120_000;
/// Sessions of a list that cannot be taken for this long, in milliseconds, after the last of the others was, are left to the return
/// of their clients: no other session is to wait for them.
pub(super) const HELD_UP_MS: u64 = 60_000;
/// How often a session is tried to be taken that others try to take at the same time.
const TRIES_MAX: usize = 8;

/// What became of the sessions of a list.
#[derive(Default)]
pub(super) struct Retaken {
    pub claims: Vec<Claim>,
    /// Those that could not be taken now, and may be later.
    pub failed: Vec<(Key, RestoreError)>,
}

/// Sessions of a list that hold up the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeldUp {
    /// Since when there are such and no other was taken, in milliseconds.
    since_ms: Option<u64>,
    /// Whether others of the list were taken: what is wrong is not the store.
    others: bool,
}

impl HeldUp {
    /// What the store answers to the question for the list; without one it is the store that holds all of them up.
    pub fn listed(&mut self, listed: Result<Vec<Listed>, StoreError>) -> Result<Vec<Listed>, StoreError> {
        if listed.is_err() {
            *self = Self::default();
        }
        listed
    }

    /// So many others were taken at once: as long as there are any, it is a slow store that holds all of them up.
    pub fn taken(&mut self, count: usize) {
        if count > 0 {
            *self = Self { since_ms: None, others: true };
        }
    }

    /// Whether it is too long, as of `now_ms`.
    fn is_late(&mut self, now_ms: u64) -> bool {
        self.others && now_ms.saturating_sub(*self.since_ms.get_or_insert(now_ms)) >= HELD_UP_MS
    }
}

/// Why a session was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Owners(#[from] OwnersError),
}

impl RestoreError {
    /// Whether waiting may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            RestoreError::Store(StoreError::Unavailable { .. })
            | RestoreError::Owners(OwnersError::Unavailable { .. }) => true,
            RestoreError::Store(StoreError::Corrupt { .. } | StoreError::Unwritable { .. })
            | RestoreError::Owners(OwnersError::Corrupt { .. }) => false,
        }
    }
}

impl Node {
    /// Takes back all sessions that this node held last, but for those that cannot be read; how many those are. While the
    /// store is away it waits, and tells why; not for ever where others wait for it.
    pub async fn restore_all(self: &Arc<Self>, waiting: impl Fn(&RestoreError)) -> Result<usize, RestoreError> {
        let (mut after, mut count, mut since_ms) = (None, 0, self.now().monotonic_ms);
        let mut held_up = HeldUp::default();
        loop {
            let before = count;
            let page = self.restore_page(after.as_ref(), &mut held_up, &mut count).await;
            if count > before {
                since_ms = self.now().monotonic_ms;
            }
            match page {
                Ok(None) => return Ok(count),
                Ok(Some(last)) => {
                    (after, since_ms, held_up) = (Some(last), self.now().monotonic_ms, HeldUp::default());
                }
                Err(error) if error.may_pass() && !self.is_stuck(since_ms) => {
                    if count == before {
                        waiting(&error);
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether others have waited for this node since then, and long enough.
    fn is_stuck(&self, since_ms: u64) -> bool {
        self.peers.any_is_there() && self.now().monotonic_ms.saturating_sub(since_ms) >= STUCK_MS
    }

    /// Takes back some sessions behind `after`: the last of them; `None`: there is none. Adds to `count` how many those are, also
    /// where it fails.
    async fn restore_page(
        self: &Arc<Self>,
        after: Option<&Key>,
        held_up: &mut HeldUp,
        count: &mut usize,
    ) -> Result<Option<Key>, RestoreError> {
        let page = held_up.listed(self.journal.store().own(after, PAGE).await)?;
        let Some(last) = page.last().map(|(key, _)| key.clone()) else { return Ok(None) };
        let own = self.peers.node().to_owned();
        let Retaken { claims, failed } = self.retake_all(page, &own).await;
        *count += claims.len();
        held_up.taken(claims.len());
        claims.into_iter().for_each(|claim| {
            self.bring_back(claim);
        });
        self.leave_late(failed, held_up)?;
        Ok(Some(last))
    }

    /// Takes those sessions of a list that nobody has taken from `from`. One that is corrupt is left as it is; none keeps
    /// another from being taken.
    pub(super) async fn retake_all(self: &Arc<Self>, page: Vec<Listed>, from: &str) -> Retaken {
        let reads: Vec<_> =
            page.into_iter().map(|(key, stored)| self.retake_readable(key, stored.err(), from)).collect();
        let each: Vec<Result<Option<Claim>, (Key, RestoreError)>> =
            stream::iter(reads).buffered(AT_ONCE).collect().await;
        let mut retaken = Retaken::default();
        for one in each {
            match one {
                Ok(claim) => retaken.claims.extend(claim),
                Err(failed) => retaken.failed.push(failed),
            }
        }
        retaken
    }

    /// The sessions of a list that could not be taken are to be tried again, for this reason; those for which that has been
    /// so for too long are left as they are.
    pub(super) fn leave_late(
        &self,
        failed: Vec<(Key, RestoreError)>,
        held_up: &mut HeldUp,
    ) -> Result<(), RestoreError> {
        for (key, error) in failed {
            if !held_up.is_late(self.now().monotonic_ms) {
                return Err(error);
            }
            self.telemetry.session_unreadable(&key.1, &error);
        }
        Ok(())
    }

    /// A session that was taken is here, absent, from now on; what has to be settled before others can rely on that.
    pub(super) fn bring_back(self: &Arc<Self>, mut claim: Claim) -> Awaited {
        claim.kept.take().map(|kept| self.restore(*kept)).unwrap_or_default()
    }

    async fn retake_readable(
        self: &Arc<Self>,
        key: Key,
        corrupt: Option<StoreError>,
        from: &str,
    ) -> Result<Option<Claim>, (Key, RestoreError)> {
        let retaken = match corrupt {
            Some(error) => Err(error.into()),
            None => self.retake(key.clone(), from).await,
        };
        match retaken {
            Ok(claim) => Ok(claim),
            Err(error) if error.may_pass() => Err((key, error)),
            Err(error) => {
                self.telemetry.session_unreadable(&key.1, &error);
                Ok(None)
            }
        }
    }

    /// Takes a session that was last at the node `from`, which may be this one. `None`: it has gone elsewhere meanwhile, or
    /// `from` is there again, which takes it back itself.
    async fn retake(self: &Arc<Self>, key: Key, from: &str) -> Result<Option<Claim>, RestoreError> {
        let own = self.peers.node();
        for _ in 0..TRIES_MAX {
            if self.sessions.has(&key) || self.sessions.is_under_way(&key) {
                return Ok(None); // of a page that was cut short before, or a CONNECT takes it
            }
            let owner = self.owners.owner(&key.0, &key.1).await?;
            let is_free = owner.as_ref().is_none_or(|owner| owner.node == from || owner.node == own);
            // After the owner was read: a node that is back greets before it takes anything, so that it is known here
            // before the owner is its again.
            if !is_free || from != own && self.peers.is_back(from) {
                return Ok(None);
            }
            let mut claim = Claim::begin(self.clone(), key.clone());
            let unknown = owner.is_none();
            let Some(epoch) = self.owners.take_if(&key.0, &key.1, owner).await? else { continue };
            claim.epoch = epoch;
            if unknown && from != own && self.peers.take_over(None, &key, epoch).await != Ended::Done {
                return Ok(None); // another heir has it
            }
            let kept = self.read_kept(key, epoch).await?;
            claim.kept = kept.map(|kept| Box::new(Kept { unsettled: from != own, ..kept }));
            return Ok(claim.kept.is_some().then_some(claim));
        }
        let reason = format!("{} is taken by too many at once", key.1);
        Err(OwnersError::Unavailable { reason }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_given_up_a_while_after_the_last_of_the_others_was_taken() {
        let mut held_up = HeldUp::default();
        assert!(!held_up.is_late(0) && !held_up.is_late(HELD_UP_MS), "it may be the store");
        for pass in 0..4 {
            held_up.taken(1);
            assert!(!held_up.is_late(pass * HELD_UP_MS), "the store is slow");
        }
        held_up.taken(0);
        assert!(!held_up.is_late(4 * HELD_UP_MS - 1) && held_up.is_late(4 * HELD_UP_MS));
        assert!(held_up.listed(Err(StoreError::Unavailable { reason: "away".to_owned() })).is_err());
        assert!(!held_up.is_late(9 * HELD_UP_MS), "the store is away");
    }
}
