//! The sessions of before this process: taken back from the store before anybody connects.
//!
//! Domain layer over the ports SessionStore and Owners. Each is taken anew, with an epoch of its own, so that what an
//! earlier process of this name might still write is told from what this one does.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::domain::node::Node;
use crate::domain::sessions::{Kept, Key};
use crate::ports::{Former, OwnersError, StoreError, Taken};

/// Sessions that are looked up at once.
const PAGE: usize = 100;
/// Sessions that are read at the same time.
const AT_ONCE: usize = 16;
/// Wait before what could not be read is asked for again.
const RETRY: Duration = Duration::from_secs(1);

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
    fn may_pass(&self) -> bool {
        match self {
            RestoreError::Store(StoreError::Unavailable { .. })
            | RestoreError::Owners(OwnersError::Unavailable { .. }) => true,
            RestoreError::Store(StoreError::Corrupt { .. }) | RestoreError::Owners(OwnersError::Corrupt { .. }) => {
                false
            }
        }
    }
}

impl Node {
    /// Takes back all sessions that this node held last, but for those that cannot be read; how many those are. While the
    /// store is away it waits, and tells why.
    pub async fn restore_all(self: &Arc<Self>, waiting: impl Fn(&RestoreError)) -> Result<usize, RestoreError> {
        let (mut after, mut count) = (None, 0);
        loop {
            match self.restore_page(after.as_ref()).await {
                Ok(None) => return Ok(count),
                Ok(Some((last, restored))) => {
                    after = Some(last);
                    count += restored;
                }
                Err(error) if error.may_pass() => {
                    waiting(&error);
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes back some sessions behind `after`: the last of them, and how many; `None`: there is none.
    async fn restore_page(self: &Arc<Self>, after: Option<&Key>) -> Result<Option<(Key, usize)>, RestoreError> {
        let page = self.journal.store().own(after, PAGE).await?;
        let Some(last) = page.last().map(|(key, _)| key.clone()) else { return Ok(None) };
        let reads: Vec<_> = page.into_iter().map(|(key, stored)| self.retake_readable(key, stored.err())).collect();
        let kept: Vec<Option<Kept>> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let mut count = 0;
        for kept in kept.into_iter().flatten() {
            self.restore(kept);
            count += 1;
        }
        Ok(Some((last, count)))
    }

    /// As [`Node::retake`]; one that is `corrupt` is left as it is, and keeps no other from being taken back.
    async fn retake_readable(&self, key: Key, corrupt: Option<StoreError>) -> Result<Option<Kept>, RestoreError> {
        let retaken = match corrupt {
            Some(error) => Err(error.into()),
            None => self.retake(key.clone()).await,
        };
        match retaken {
            Err(error) if !error.may_pass() => {
                self.telemetry.session_unreadable(&key.1, &error);
                Ok(None)
            }
            retaken => retaken,
        }
    }

    /// `None`: its client has gone to another node meanwhile.
    async fn retake(&self, key: Key) -> Result<Option<Kept>, RestoreError> {
        if self.sessions.has(&key) {
            return Ok(None); // of a page that was cut short before
        }
        let Taken { epoch, former } = self.owners.take(&key.0, &key.1).await?;
        let moved = match former {
            Former::Node(node) => node != self.peers.node(),
            Former::Here | Former::Anyone => false,
        };
        if moved { Ok(None) } else { Ok(self.read_kept(key, epoch).await?) }
    }
}
