//! What the ingress needs from others, besides the shared ports.
//!
//! Port layer: promises, no code. The one adapter that asks the registry is in `adapters/registry.rs`; those of
//! ownership are in `adapters/owners`; what outlives the process is kept by `adapters/embedded` or `adapters/scylla`, in
//! simulations by `adapters/memory`. All adapters of a port pass one suite (`conformance`).

pub mod sessions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_types::{ApiError, ClientId, DeviceId, TenantId, TopicName};
use serde_json::value::RawValue;

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::interest::News;
use crate::domain::message::Message;
use crate::domain::reverify::Affected;
use crate::domain::sessions::Key;
use crate::domain::shares::{Group, Refused, Share};

/// Says who somebody is.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Answers within its own deadline. `generation` is the number of the newest revocation known to the caller when
    /// it asks; an answer is never older than that. [`AuthenticateError::Unavailable`] when nobody could tell.
    async fn authenticate(&self, proof: Proof, generation: u64) -> Result<Arc<Identity>, AuthenticateError>;

    /// Forgets what is known of the identities that a change may concern.
    fn forget(&self, affected: &Affected);
}

/// Says which key a device and the registry share.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// The key in force of the device that an identity names, `TENANT/DEVICE` or `DEVICE`. Answers within its own deadline;
    /// [`AuthenticateError::Unavailable`] when nobody could tell. Asked for each handshake anew: nothing is kept.
    async fn find(&self, identity: &str) -> Result<SharedKey, AuthenticateError>;
}

/// A key and whose it is.
pub struct SharedKey {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub credential: String,
    pub key: Vec<u8>,
}

/// Calls functions that make messages of foreign bodies.
#[async_trait]
pub trait Functions: Send + Sync + 'static {
    /// The result of a tenant's function for one JSON value, as JSON; `None` if it has none. Answers within its own
    /// deadlines: `not_found` if there is no such function, `failed_precondition` if it fails, `unavailable` if nobody
    /// could tell or call it.
    async fn call(&self, tenant: &TenantId, name: &str, input: Box<RawValue>) -> Result<Option<String>, ApiError>;
}

/// Says whose a client's session is, among all ingress nodes that share it.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// Makes this node the owner. The epoch is higher than every one that was given for this client before, by
    /// whichever node and before whichever restart; two calls never get the same. A call that is dropped, or fails, may
    /// have taken the ownership nevertheless: nobody has its epoch then, and the next is higher.
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError>;

    /// Who the owner is, as far as anybody knows.
    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError>;

    /// As [`Owners::take`], if the owner is still `owner`, as [`Owners::owner`] has answered; the epoch, or `None`.
    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError>;

    /// This node is the owner still, with this epoch: that is remembered for at least [`OWNER_REMEMBERED`] from now on.
    /// Without effect if another has taken the session.
    async fn renew(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<(), OwnersError>;
}

/// How long an owner is remembered at least after it took a session, or was renewed.
pub const OWNER_REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The owner of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the node.
    pub node: String,
    pub epoch: u64,
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
    /// For which shared subscriptions the peer is to give each of the messages to one member; as many as messages.
    pub shares: &'a [Vec<Share>],
    pub news: &'a News,
    /// All shared subscriptions with members here; `None`: those it was told of before.
    pub groups: Option<&'a [Group]>,
}

/// What the other one answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub node: String,
    /// The number of its start.
    pub boot: u64,
    /// It has to be told all that this node's subscribers want.
    pub gapped: bool,
    /// Shares of the batch that it could give to nobody.
    pub refused: Vec<Refused>,
    /// The batch up to which its members of shared subscriptions have done with all.
    pub completed: u64,
    /// It takes its sessions of before back, and has not taken the messages.
    pub starting: bool,
}

/// What became of a claim to the sessions of a node that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The heir has its share.
    Done,
    /// The node is there after all, as the heir sees it.
    Returned,
    /// The heir has no part in what others leave: its share is for the others.
    Never,
}

/// Who takes the sessions of a node that is gone: this node for itself, and each other. Every call may be dropped, and made
/// again with the effect of once.
#[async_trait]
pub trait Heir: Send + Sync + 'static {
    /// Takes those of the sessions of `gone` that fall to this heir among the nodes `live`; returns when every other node
    /// knows what these sessions want.
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String>;

    /// Hands messages that were for a node that is gone to the sessions that have come here lately, those of CONNECTs under
    /// way among them; returns when their inboxes have them. What such a session has by another way already, it does not get
    /// again.
    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String>;
}

/// This node as an heir.
#[async_trait]
pub trait OwnHeir: Heir {
    /// Names of all nodes that may have left sessions, also of those that this one has never heard; returns when they are
    /// known.
    async fn nodes(&self) -> Vec<String>;
}

/// The way to one other ingress node. Every call may be dropped, and made again with the effect of once.
#[async_trait]
pub trait PeerLink: Heir {
    /// Hands over a batch and what this node's subscribers want, in order; returns when the peer's sessions have the
    /// one and it knows the other.
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String>;

    /// Ends what the peer holds of a client with a lower epoch; returns when its connection is closed. The answer: the
    /// epoch of what the peer holds, if that is higher.
    async fn take_over(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<Option<u64>, String>;

    /// Returns when the nodes that the peer speaks to have what it had for them when it was asked.
    async fn flush(&self) -> Result<(), String>;
}

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store cannot be used now: {reason}")]
    Unavailable { reason: String },
    #[error("store holds what this version cannot read: {reason}")]
    Corrupt { reason: String },
    /// Of a session: asked again it would say the same.
    #[error("store cannot take what is to be kept of {:?}: {reason}", .whose.1.as_str())]
    Unwritable { whose: Arc<Key>, reason: String },
}

/// What one tenant may have retained.
#[derive(Clone, Copy, Debug)]
pub struct RetainedBounds {
    pub messages: usize,
    /// Topics, payloads and properties.
    pub bytes: usize,
}

/// Which retained messages are asked for.
#[derive(Clone, Debug)]
pub struct RetainedQuery {
    pub tenant: TenantId,
    /// A valid filter that is not shared.
    pub filter: Box<str>,
    /// Only topics behind this one.
    pub after: Option<TopicName>,
    /// What has expired by now is left out; milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Most messages of a page.
    pub messages_max: usize,
    /// Payload bytes after which a page ends; it has at least one message if there is one.
    pub bytes_max: usize,
}

/// Some of the retained messages asked for, in an order of topics that is always the same.
#[derive(Debug, Default)]
pub struct RetainedPage {
    pub messages: Vec<Message>,
    /// Ask again after this topic; `None`: there is no more.
    pub next: Option<TopicName>,
}

/// The retained messages: one of each topic, those of a tenant bounded in number and bytes.
#[async_trait]
pub trait RetainedStore: Send + Sync + 'static {
    /// Makes each message the retained one of its topic; one without payload removes what is there. Of several for one
    /// topic the last by (time, id) stays, in whatever order they come: a removal is remembered for at least as long as a
    /// message may be on its way. Durable on return, and then seen by every later query. Answers how many
    /// were not kept because their tenant has no room; after an error some may be kept.
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError>;

    /// The messages whose topics match.
    async fn matching(&self, query: RetainedQuery) -> Result<RetainedPage, StoreError>;

    /// Gives back the room of what has expired by `now_ms`, and forgets old removals; how many rows that were, as far as
    /// they did not go by themselves.
    async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError>;
}

/// A method of extended authentication (MQTT 5 section 4.12), such as SCRAM-SHA-256.
pub trait AuthMethod: Send + Sync + 'static {
    /// Its name, as clients say it.
    fn name(&self) -> &str;

    /// A new exchange with one client.
    fn begin(&self) -> Box<dyn AuthExchange>;
}

/// One exchange. It only computes: what has to be looked up is looked up with the proof it ends in.
pub trait AuthExchange: Send {
    /// Goes on with what the client has sent; first with what its CONNECT has, which may be nothing.
    fn answer(&mut self, data: &[u8]) -> AuthStep;
}

/// How an exchange goes on.
#[derive(Debug)]
pub enum AuthStep {
    /// The client is to answer this.
    Challenge(Vec<u8>),
    /// The client has shown this; `data` is for its CONNACK.
    Done { proof: Proof, data: Vec<u8> },
    /// It has not shown who it is.
    Refused,
}
