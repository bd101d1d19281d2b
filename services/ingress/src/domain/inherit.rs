//! The sessions of a node that is gone: the live nodes take them, each its share, publish the wills that are due, and hand
//! them what was published meanwhile.
//!
//! Domain layer over the ports SessionStore, Owners and Heir. Which session falls to whom follows from the names of the live
//! nodes alone (rendezvous hashing), as whoever asks sees them; where two see others, the owner's compare-and-set decides. The
//! node may only have been slow: as soon as it can be asked it ends what it still holds, and what it has written to an inbox
//! since that was read is taken up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use sha2::{Digest, Sha256};

use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::peers::{Ended, LOOK_AGAIN};
use crate::domain::restore::{AT_ONCE, HeldUp, PAGE, RETRY, RestoreError, Retaken};
use crate::domain::sessions::{Awaited, Key};
use crate::ports::sessions::Row;
use crate::ports::{Claimed, Heir, OwnHeir, StoreError};

/// Messages of an inbox that are read at once.
const INBOX_ROWS: usize = 100;
/// Pause between two tries to ask a former owner.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// When inboxes are looked at first though their former owner cannot be asked, in milliseconds, and how much later each time.
const LOOK_FIRST_MS: u64 = 15_000;
const LOOK_LATER: u64 = 4;
/// A former owner that cannot be asked for this long, in milliseconds, writes nothing more: far longer than a request to the
/// store may be on its way.
const FORMER_MS: u64 = 600_000;

/// What this node has taken of a node that is gone.
#[derive(Default)]
struct Inheritance {
    /// Sessions, with the epochs they were taken with.
    sessions: Vec<(Key, u64)>,
    /// What has to be settled before others can rely on that.
    awaited: Awaited,
}

#[async_trait]
impl Heir for Arc<Node> {
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String> {
        // To its end, whoever waits: a session that is taken has to be routed by.
        let claiming = self.spawn(self.clone().claim_share(gone.to_owned(), live.to_vec()));
        let returned = claiming.await.map_err(|error| error.to_string())?;
        Ok(if returned { Claimed::Returned } else { Claimed::Done })
    }

    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        self.takers_done().await;
        let position = self.hand_to_moved(messages);
        self.peers.announced(self.peers.version()).await;
        self.journal.durable(position).await;
        Ok(())
    }
}

#[async_trait]
impl OwnHeir for Arc<Node> {
    async fn nodes(&self) -> Vec<String> {
        loop {
            match self.journal.store().nodes().await {
                Ok(nodes) => return nodes,
                Err(error) if self.is_stopping() => {
                    tracing::debug!(%error, "the nodes are not known");
                    return Vec::new();
                }
                Err(error) => {
                    self.telemetry.sessions_not_claimed("not heard of yet", &error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Node {
    /// Takes the share of this node; whether `gone` is there after all.
    async fn claim_share(self: Arc<Self>, gone: String, live: Vec<String>) -> bool {
        if !self.peers.is_gone(&gone).await {
            return true;
        }
        let _alone = self.claiming.lock().await;
        let (mut after, mut held_up, mut inheritance) = (None, HeldUp::default(), Inheritance::default());
        let returned = loop {
            if self.peers.is_back(&gone) || self.is_stopping() {
                break true;
            }
            let before = inheritance.sessions.len();
            match self.claim_page(&gone, &live, after.as_ref(), &mut held_up, &mut inheritance).await {
                Ok(None) => break false,
                Ok(Some(last)) => (after, held_up) = (Some(last), HeldUp::default()),
                Err(error) if error.may_pass() => {
                    self.telemetry.sessions_not_claimed(&gone, &error);
                    if inheritance.sessions.len() == before {
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Err(error) => {
                    self.telemetry.sessions_not_claimed(&gone, &error);
                    break false;
                }
            }
        };
        while self.peers.is_starting() && !self.is_stopping() {
            tokio::time::sleep(LOOK_AGAIN).await; // until then others are told of no shared subscription
        }
        self.settled(inheritance.awaited).await;
        self.telemetry.sessions_claimed(&gone, inheritance.sessions.len());
        self.follow_up(gone, inheritance.sessions);
        returned
    }

    /// Takes this node's share of some sessions of `gone` behind `after`: the last of them; `None`: there is none. What is taken
    /// comes into `inheritance`, also where it fails.
    async fn claim_page(
        self: &Arc<Self>,
        gone: &str,
        live: &[String],
        after: Option<&Key>,
        held_up: &mut HeldUp,
        inheritance: &mut Inheritance,
    ) -> Result<Option<Key>, RestoreError> {
        let mut page = held_up.listed(self.journal.store().left_by(gone, after, PAGE).await)?;
        let Some(last) = page.last().map(|(key, _)| key.clone()) else { return Ok(None) };
        page.retain(|(key, _)| heir(key, live) == Some(self.peers.node()));
        let Retaken { claims, failed } = self.retake_all(page, gone).await;
        held_up.taken(claims.len());
        for claim in claims {
            inheritance.sessions.push((claim.key().clone(), claim.epoch));
            inheritance.awaited = inheritance.awaited.and(self.bring_back(claim));
        }
        self.leave_late(failed, held_up)?;
        Ok(Some(last))
    }

    /// Returns when the connections that are about to take a session now have it, or have given up.
    async fn takers_done(&self) {
        let patience_ms = u64::try_from(self.ownership_patience.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.now().monotonic_ms.saturating_add(patience_ms.saturating_mul(2));
        for key in self.sessions.under_way() {
            while self.sessions.is_under_way(&key) && self.now().monotonic_ms < until_ms {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Sessions were taken with these epochs from `former`, which has not given them up yet: it is asked to as soon as it
    /// can be, and what it has added to their inboxes since they were read is taken up.
    pub(super) fn follow_up(self: &Arc<Self>, former: String, sessions: Vec<(Key, u64)>) {
        if sessions.is_empty() {
            return;
        }
        let node = self.clone();
        self.spawn(async move { node.settle_inboxes(&former, sessions).await });
    }

    async fn settle_inboxes(&self, former: &str, mut sessions: Vec<(Key, u64)>) {
        let (began_ms, mut look_ms) = (self.now().monotonic_ms, LOOK_FIRST_MS);
        while !sessions.is_empty() && !self.is_stopping() {
            let elapsed_ms = self.now().monotonic_ms.saturating_sub(began_ms);
            // It may be about to stop, and answer nobody.
            let look = elapsed_ms >= look_ms;
            if look {
                look_ms = look_ms.saturating_mul(LOOK_LATER);
            }
            if look || elapsed_ms >= FORMER_MS || self.peers.is_live(former) {
                sessions = self.settle_each(former, sessions, elapsed_ms >= FORMER_MS).await;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Those of the sessions that are not settled yet.
    async fn settle_each(&self, former: &str, sessions: Vec<(Key, u64)>, late: bool) -> Vec<(Key, u64)> {
        let mut left = Vec::new();
        for part in sessions.chunks(AT_ONCE) {
            let each: Vec<_> = part.iter().map(|(key, epoch)| self.settle_inbox(former, key, *epoch, late)).collect();
            let settled = join_all(each).await;
            left.extend(part.iter().zip(settled).filter(|(_, settled)| !settled).map(|(session, _)| session.clone()));
        }
        left
    }

    /// Whether nothing more of this session is to be expected from its former owner; it is `late` for that.
    async fn settle_inbox(&self, former: &str, key: &Key, epoch: u64, late: bool) -> bool {
        if self.sessions.is_under_way(key) {
            return false; // its connection is about to have it
        }
        let session = self.sessions.session(key).filter(|session| session.unsettled(epoch).is_some());
        let Some(session) = session else { return true };
        let settled = late || self.has_given_up(former, key, epoch).await;
        let Some(known) = session.unsettled(epoch) else { return true };
        // What is removed already is not taken for late.
        self.journal.durable(self.journal.position()).await;
        match self.read_inbox(key).await {
            Ok(rows) => {
                let dropped = session.take_up(epoch, rows, &known, settled);
                dropped.into_iter().for_each(|why| self.telemetry.dropped(why, 1));
                settled
            }
            Err(error) => {
                self.telemetry.inbox_unread(&key.1, &error);
                false
            }
        }
    }

    async fn has_given_up(&self, former: &str, key: &Key, epoch: u64) -> bool {
        self.peers.is_live(former) && self.peers.take_over(Some(former), key, epoch).await != Ended::Unanswered
    }

    /// The whole inbox of a session in the store.
    pub(super) async fn read_inbox(&self, key: &Key) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map(|row: &Row| row.place);
            let page = self.journal.store().inbox(key, after, INBOX_ROWS).await?;
            let last = page.len() < INBOX_ROWS;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }
}

/// Which of the nodes `live` a session falls to: where one more or less is there, no other sessions than its own change hands.
fn heir<'n>((tenant, client): &Key, live: &'n [String]) -> Option<&'n str> {
    let weight = |node: &&String| {
        let hash = Sha256::new().chain_update(node.as_str()).chain_update([0]).chain_update(tenant.as_str());
        hash.chain_update([0]).chain_update(client.as_str()).finalize()
    };
    live.iter().max_by_key(weight).map(String::as_str)
}

#[cfg(test)]
pub(crate) mod tests;
