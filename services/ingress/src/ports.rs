//! What the ingress needs from others, besides the shared ports.
//!
//! Port layer: promises, no code. The one adapter that asks the registry is in `adapters/registry.rs`; those of
//! ownership are in `adapters/owners`, and pass one suite (`conformance.rs`).

use std::sync::Arc;

use async_trait::async_trait;
use drover_types::{ClientId, TenantId};

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::interest::News;
use crate::domain::message::Message;
use crate::domain::reverify::Affected;

/// Says who somebody is.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Answers within its own deadline. `generation` is the number of the newest revocation known to the caller when
    /// it asks; an answer is never older than that. [`AuthenticateError::Unavailable`] when nobody could tell.
    async fn authenticate(&self, proof: Proof, generation: u64) -> Result<Arc<Identity>, AuthenticateError>;

    /// Forgets what is known of the identities that a change may concern.
    fn forget(&self, affected: &Affected);
}

/// Says whose a client's session is, among all ingress nodes that share it.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// Makes this node the owner. The epoch is higher than every one that was given for this client before, by
    /// whichever node and before whichever restart; two calls never get the same. A call that is dropped, or fails, may
    /// have taken the ownership nevertheless: nobody has its epoch then, and the next is higher.
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError>;
}

/// The ownership of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub epoch: u64,
    pub former: Former,
}

/// Who may still hold what the session was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Former {
    /// Nobody but this node.
    Here,
    /// The node of this name.
    Node(String),
    /// It is not known: any.
    Anyone,
}

/// Why the ownership is not known to be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    /// Nobody could tell; asked again later it may be.
    #[error("owners of sessions cannot be asked: {reason}")]
    Unavailable { reason: String },
    /// What is stored makes no sense.
    #[error("owners of sessions are damaged: {reason}")]
    Corrupt { reason: String },
}

/// What one node tells another.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Grows with each batch that has messages; 0: this one has none.
    pub sequence: u64,
    /// The peer shall answer when it knows this node, if that is soon.
    pub hello: bool,
    pub messages: &'a [Arc<Message>],
    pub news: &'a News,
}

/// What the other one answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub node: String,
    /// It has to be told all that this node's subscribers want.
    pub gapped: bool,
}

/// The way to one other ingress node. Every call may be dropped, and made again with the effect of once.
#[async_trait]
pub trait PeerLink: Send + Sync + 'static {
    /// Hands over a batch and what this node's subscribers want, in order; returns when the peer's sessions have the
    /// one and it knows the other.
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String>;

    /// Ends what the peer holds of a client with a lower epoch; returns when its connection is closed. The answer: the
    /// epoch of what the peer holds, if that is higher.
    async fn take_over(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<Option<u64>, String>;
}
