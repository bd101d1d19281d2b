//! Whose a client's session is: this node takes it before it admits the client, and gives it up when another has it.
//!
//! Domain layer over the ports Owners and PeerLink. A CONNECT that cannot be told its epoch in time is refused, never
//! admitted with a wrong one. The former owner is told at once; where that fails, it is when it can be asked, and the lifecycle
//! events, which every node reads, end what has an older epoch. While a session moves it takes messages at both ends.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::lifecycle::{Event, EventType};
use crate::domain::node::Node;
use crate::domain::peers::{Ended, LOOK_AGAIN};
use crate::domain::sessions::{AttachError, Kept, Key, Left};
use crate::ports::sessions::{Away, Head, Stored};
use crate::ports::{Former, StoreError, Taken};

/// How long a session that moves is held at its former owner until all nodes know that it is here as well: one that does not
/// answer may be gone, and its client is not to wait for that.
const AHEAD: Duration = Duration::from_millis(500);
/// Wait before an inbox that could not be read is read again.
const RETRY: Duration = Duration::from_millis(500);
/// How long another node that asks for a session waits for what is arriving of it here: longer than it waits for an answer, so
/// that it asks again.
const ARRIVAL: Duration = Duration::from_secs(2);

/// A session that belongs to a connection which has not got it yet.
pub struct Claim {
    pub epoch: u64,
    /// What the store has of it, if nothing is here.
    pub kept: Option<Box<Kept>>,
    /// Whether it may come from another node: other nodes have to know what it wants before its client relies on that.
    pub moves: bool,
    key: Key,
    node: Arc<Node>,
}

impl Claim {
    pub(super) fn begin(node: Arc<Node>, key: Key) -> Self {
        node.sessions.begin_claim(&key);
        Self { epoch: 0, kept: None, moves: false, key, node }
    }

    /// Whose session it is.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.sessions.end_claim(&self.key);
    }
}

fn unread(error: StoreError) -> AttachError {
    AttachError::NotRead { reason: error.to_string() }
}

impl Node {
    /// Takes the session of an admitted client for this node, from wherever it was.
    pub async fn take(self: Arc<Self>, key: Key) -> Result<Claim, AttachError> {
        let patience = self.ownership_patience;
        let mut claim = Claim::begin(self.clone(), key);
        let late = |_| AttachError::NoOwner { reason: format!("no answer within {patience:?}") };
        let unknown = |error: crate::ports::OwnersError| AttachError::NoOwner { reason: error.to_string() };
        let taken = tokio::time::timeout(patience, self.owners.take(&claim.key.0, &claim.key.1)).await.map_err(late)?;
        let Taken { epoch, former } = taken.map_err(unknown)?;
        let elsewhere = former != Former::Here || !self.sessions.has(&claim.key);
        (claim.epoch, claim.moves) = (epoch, elsewhere && self.journal.store().is_shared());
        let kept = tokio::time::timeout(patience * 2, self.clone().bring_here(claim.key.clone(), epoch, former)).await;
        claim.kept = kept.map_err(late)??;
        Ok(claim)
    }

    /// Ends what others hold of a session that this node has taken with `epoch`; what the store has of it then, if nothing
    /// is here.
    async fn bring_here(
        self: Arc<Self>,
        key: Key,
        epoch: u64,
        former: Former,
    ) -> Result<Option<Box<Kept>>, AttachError> {
        let shared = self.journal.store().is_shared();
        if shared && former != Former::Here && !self.sessions.has(&key) {
            return self.move_to_its_end(key, epoch, former).await;
        }
        if let Ended::Newer(_) = self.end_elsewhere(&key, epoch, &former).await {
            return Err(AttachError::TakenOver);
        }
        self.arrived_here(&key).await; // for an earlier connection
        if !shared || self.sessions.has(&key) {
            return Ok(None);
        }
        let kept = self.read_kept(key.clone(), epoch).await.map_err(unread)?;
        let holder = kept.as_ref().map(|kept| &*kept.stored.node).filter(|node| *node != self.peers.node());
        if let Some(holder) = holder.map(str::to_owned) {
            // An earlier CONNECT has taken the ownership here, and gave up before it had the session.
            return self.move_to_its_end(key, epoch, Former::Node(holder)).await;
        }
        Ok(kept.map(Box::new))
    }

    /// As [`Node::move_here`], to its end, whoever waits: a session that takes messages here has to get its inbox.
    async fn move_to_its_end(
        self: Arc<Self>,
        key: Key,
        epoch: u64,
        former: Former,
    ) -> Result<Option<Box<Kept>>, AttachError> {
        let moving = self.spawn(self.clone().move_here(key, epoch, former));
        let failed = |error: tokio::task::JoinError| AttachError::NotRead { reason: error.to_string() };
        moving.await.map_err(failed)?
    }

    /// Takes a session from another node, while messages are published to it: it is routed by here before it ends there.
    async fn move_here(
        self: Arc<Self>,
        key: Key,
        epoch: u64,
        former: Former,
    ) -> Result<Option<Box<Kept>>, AttachError> {
        let _claim = Claim::begin(self.clone(), key.clone());
        let stored = self.journal.store().read(&key).await.map_err(unread)?;
        let ahead = stored.filter(|stored| stored.head.expiry_s > 0 && !stored.subscriptions.is_empty());
        let arriving = match ahead {
            Some(stored) => self.route_ahead(&key, epoch, stored).await,
            None => None,
        };
        let ended = self.end_elsewhere(&key, epoch, &former).await;
        if let Ended::Newer(newer) = ended {
            self.taken_elsewhere(&key, newer); // what is arriving
            return Err(AttachError::TakenOver);
        }
        let unsettled = ended == Ended::Unanswered;
        let kept = match arriving {
            Some(head) => self.arrive(&key, epoch, head, unsettled).await.map(|()| None),
            None => self.read_kept(key.clone(), epoch).await.map_err(unread),
        };
        if let (true, Former::Node(name)) = (unsettled, former) {
            self.follow_up(name, vec![(key, epoch)]);
        }
        Ok(kept?.map(|kept| Box::new(Kept { unsettled, ..kept })))
    }

    /// Routes by what the store has of a session that another node holds still; its head, if it is on its way then.
    async fn route_ahead(self: &Arc<Self>, key: &Key, epoch: u64, stored: Stored) -> Option<Head> {
        let (head, subscriptions) = (stored.head.clone(), stored.subscriptions.clone());
        let kept = Kept { key: key.clone(), epoch, stored, rows: Vec::new(), unsettled: true };
        let session = self.sessions.arriving(kept, self.now().monotonic_ms)?;
        let version = self.route_kept(&session, subscriptions);
        let known = async {
            self.peers.announced(version).await;
            // What was for the other node before its peers knew has to reach it before the session leaves it.
            self.peers.flush_all().await;
        };
        // What is for a node that is gone is inherited, whenever the others know.
        tokio::time::timeout(AHEAD, known).await.ok();
        Some(head)
    }

    /// Reads what the former owner has left of a session that is arriving; `head` is what it was before. While the store is
    /// away it goes on trying, and its client is refused.
    async fn arrive(self: &Arc<Self>, key: &Key, epoch: u64, head: Head, unsettled: bool) -> Result<(), AttachError> {
        while self.sessions.arriving_with(key, epoch).is_some() {
            match self.read_kept(key.clone(), epoch).await {
                Ok(Some(mut kept)) => {
                    kept.rows.retain(|row| row.place.epoch < epoch); // the others have come here
                    self.arrived(Kept { unsettled, ..kept });
                }
                Ok(None) => self.arrived_ended(key, epoch, &head),
                Err(error @ StoreError::Unavailable { .. }) if !self.is_stopping() => {
                    tracing::debug!(%error, "a session that moves cannot be read");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    self.taken_elsewhere(key, epoch + 1); // it stays as it is in the store
                    return Err(unread(error));
                }
            }
        }
        Ok(())
    }

    /// Returns when nothing of the session is arriving here.
    async fn arrived_here(&self, key: &Key) {
        while self.sessions.is_arriving(key) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn arrived(self: &Arc<Self>, kept: Kept) {
        let Kept { key, epoch, stored, rows, unsettled } = kept;
        let _together = self.journal.together();
        let Some(session) = self.sessions.arriving_with(&key, epoch) else { return };
        let gone = session.arrived(&stored, rows, unsettled);
        self.unsubscribe(&session, &gone);
        let Stored { head, subscriptions, node, .. } = stored;
        let (session, aftermath) = self.sessions.arrived(&key, epoch, head, self.now().monotonic_ms);
        self.clean_up(aftermath);
        if let Some(session) = session {
            self.route_kept(&session, subscriptions);
            self.leave_list(&session, &node);
        }
    }

    /// It has ended at its former owner.
    fn arrived_ended(self: &Arc<Self>, key: &Key, epoch: u64, head: &Head) {
        let over = Some(Away { ends_ms: 0, will_ms: 0 });
        let head = Head { expiry_s: 0, away: over, will: None, sent: None, ..head.clone() };
        let _together = self.journal.together();
        let (_, aftermath) = self.sessions.arrived(key, epoch, head, self.now().monotonic_ms);
        self.clean_up(aftermath);
    }

    /// What the store has of a session that this node has taken with `epoch`.
    pub(super) async fn read_kept(&self, key: Key, epoch: u64) -> Result<Option<Kept>, StoreError> {
        let Some(stored) = self.journal.store().read(&key).await? else { return Ok(None) };
        let rows = self.read_inbox(&key).await?;
        Ok(Some(Kept { key, epoch, stored, rows, unsettled: false }))
    }

    async fn end_elsewhere(&self, key: &Key, epoch: u64, former: &Former) -> Ended {
        match former {
            Former::Here => Ended::Done,
            Former::Node(name) => self.peers.take_over(Some(name), key, epoch).await,
            Former::Anyone => self.peers.take_over(None, key, epoch).await,
        }
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
        tokio::time::timeout(ARRIVAL, self.arrived_here(key)).await.ok();
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
