//! Whose a client's session is: this node takes it before it admits the client, and gives it up when another has it.
//!
//! Domain layer over the ports Owners and PeerLink. A CONNECT that cannot be told its epoch in time is refused, never
//! admitted with a wrong one. The former owner is told at once; where that fails, the lifecycle events, which every node
//! reads, end what has an older epoch.

use std::sync::Arc;

use crate::domain::lifecycle::{Event, EventType};
use crate::domain::node::Node;
use crate::domain::sessions::{AttachError, Kept, Key, Left};
use crate::ports::sessions::Row;
use crate::ports::{Former, StoreError, Taken};

/// Messages of an inbox that are read at once.
const INBOX_ROWS: usize = 100;

/// A session that belongs to a connection which has not got it yet.
pub struct Claim {
    pub epoch: u64,
    /// What the store has of it, if nothing is here.
    pub kept: Option<Box<Kept>>,
    key: Key,
    node: Arc<Node>,
}

impl Claim {
    fn begin(node: Arc<Node>, key: Key) -> Self {
        node.sessions.begin_claim(&key);
        Self { epoch: 0, kept: None, key, node }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.sessions.end_claim(&self.key);
    }
}

impl Node {
    /// Takes the session of an admitted client for this node, from wherever it was.
    pub async fn take(self: Arc<Self>, key: Key) -> Result<Claim, AttachError> {
        let patience = self.ownership_patience;
        let mut claim = Claim::begin(self.clone(), key);
        let late = || AttachError::NoOwner { reason: format!("no answer within {patience:?}") };
        claim.epoch = tokio::time::timeout(patience, self.take_session(&claim.key)).await.map_err(|_| late())??;
        if self.journal.store().is_shared() && !self.sessions.has(&claim.key) {
            let read = tokio::time::timeout(patience, self.read_kept(claim.key.clone(), claim.epoch)).await;
            let kept = read.map_err(|_| late())?;
            let unread = |error: StoreError| AttachError::NotRead { reason: error.to_string() };
            claim.kept = kept.map_err(unread)?.map(Box::new);
        }
        Ok(claim)
    }

    /// What the store has of a session that this node has taken with `epoch`.
    pub(super) async fn read_kept(&self, key: Key, epoch: u64) -> Result<Option<Kept>, StoreError> {
        let store = self.journal.store();
        let Some(stored) = store.read(&key).await? else { return Ok(None) };
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map(|row: &Row| row.place);
            let page = store.inbox(&key, after, INBOX_ROWS).await?;
            let last = page.len() < INBOX_ROWS;
            rows.extend(page);
            if last {
                return Ok(Some(Kept { key, epoch, stored, rows }));
            }
        }
    }

    async fn take_session(&self, key: &Key) -> Result<u64, AttachError> {
        let unknown = |error: crate::ports::OwnersError| AttachError::NoOwner { reason: error.to_string() };
        let Taken { epoch, former } = self.owners.take(&key.0, &key.1).await.map_err(unknown)?;
        let newer = match former {
            Former::Here => None,
            Former::Node(name) => self.peers.take_over(Some(&name), key, epoch).await,
            Former::Anyone => self.peers.take_over(None, key, epoch).await,
        };
        if newer.is_some() { Err(AttachError::TakenOver) } else { Ok(epoch) }
    }

    /// The client has connected elsewhere with `epoch`: what is older here ends.
    pub fn taken_elsewhere(self: &Arc<Self>, key: &Key, epoch: u64) -> Left {
        let now = self.now();
        let _together = self.journal.together();
        let (left, aftermath) =
            self.sessions.taken_elsewhere(key, epoch, |report| self.reports.push(now.unix_ms, report));
        self.clean_up(aftermath);
        left
    }

    /// As [`Node::taken_elsewhere`]; returns when its connection is closed and the store has all that there is of it. The
    /// epoch of what is here, if that is higher.
    pub async fn give_up(self: &Arc<Self>, key: &Key, epoch: u64) -> Option<u64> {
        match self.taken_elsewhere(key, epoch) {
            Left::Newer(newer_epoch) => return Some(newer_epoch),
            Left::Older(None) => {}
            Left::Older(Some(link)) => link.closed().await,
        }
        self.journal.durable(self.journal.position()).await;
        None
    }

    /// What the platform tells of a client, as it concerns what this node holds of it.
    pub fn observe(self: &Arc<Self>, event: &Event) {
        let key = (event.tenant.clone(), event.client_id.clone());
        self.taken_elsewhere(&key, event.epoch);
        if event.event_type == EventType::Disconnected {
            self.sessions.declared_gone(&key, event.epoch);
        }
    }
}
