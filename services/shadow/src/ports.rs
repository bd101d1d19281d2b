//! What this service needs from outside besides the shared ports.
//!
//! Port layer: promises, no code.

use async_trait::async_trait;
use bytes::Bytes;
use drover_bus::{Offset, Partition};
use drover_proto::shadow::v1::Delivery;
use drover_types::shadow::ShadowName;
use drover_types::{ApiError, DeviceId, DeviceKey, ErrorCode, RecordId, TenantId};

use crate::domain::command::{Body, Change, Head};
use crate::domain::{Shadow, ShadowKey};

/// Why the store did not do it. A write may or may not have happened; a later call works when the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the shadow store has no space left: {reason}")]
    Full { reason: String },
    #[error("the shadow store is unavailable: {reason}")]
    Unavailable { reason: String },
    #[error("the shadow store is damaged: {reason}")]
    Corrupt { reason: String },
    /// Nothing was written.
    #[error(
        "the shadow store has records before offset {kept} of partition {partition}, expected were those before {from}"
    )]
    Behind { partition: Partition, kept: Offset, from: Offset },
}

/// A view of the documents in the log: what is lost of it is found there again.
///
/// Every call may be made concurrently and dropped at any point. Writes need not be durable when they return, but what
/// is lost of them is lost from the end: `next` is never kept without the shadows that were put with it or before it.
#[async_trait]
pub trait ShadowStore: Send + Sync + 'static {
    /// The shadow of this key, deleted or not; what returned writes have put is seen.
    async fn get(&self, key: &ShadowKey) -> Result<Option<Shadow>, StoreError>;
    /// The shadows a device has had, ordered by name, and whether each is there now. At most
    /// [`SHADOWS_PER_DEVICE_MAX`](drover_types::limits::SHADOWS_PER_DEVICE_MAX).
    async fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError>;
    /// Devices of a tenant whose classic shadow is open, that is, wants what is not reported: each once, those after `after`
    /// in an order of the store's own. Fewer than `limit` (at least 1): there are no more. Reads no document.
    async fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError>;
    /// Next document to read of a partition of the log; `None`: none was read yet, or only by a Drover that kept no list
    /// of open deltas, so that all of them have to be put again.
    async fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError>;
    /// Takes over the shadows, each once, of the documents from `from` on, and with them the offset of the next document.
    /// [`StoreError::Behind`] if the store has not got all before `from`: it has lost some. Of each shadow the highest
    /// version stays, whatever the order of the calls, and of a partition the highest offset: who was late does no harm.
    async fn put(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: Vec<(ShadowKey, Shadow)>,
    ) -> Result<(), StoreError>;
}

/// A view of the commands in the log, of which it has the last seven days: what is lost of it is found there again.
///
/// Every call may be made concurrently and dropped at any point. As with shadows, writes need not be durable when they return, but
/// what is lost of them is lost from the end.
#[async_trait]
pub trait CommandStore: Send + Sync + 'static {
    /// What is kept of the commands of a device, in no order: at most [`SLOTS`](crate::domain::command::SLOTS).
    async fn command_heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError>;
    /// The rest of the command that `head` was read of; `None`: another one has its place by now.
    async fn command_body(&self, device: &DeviceKey, head: &Head) -> Result<Option<Body>, StoreError>;
    /// Next record to read of a partition of the log of commands; `None`: none was read yet.
    async fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError>;
    /// Takes over what the records of `partition` from `from` up to `next` change, all of it and in their order, and with it the
    /// offset of the next record. [`StoreError::Behind`] if the store has not got all before `from`. Who folds the same records,
    /// or the first of them, and comes late or at the same time, as a member does that does not know yet that it has lost the
    /// partition, changes nothing: of each place the change of the highest offset stays, and of a partition the highest offset.
    async fn put_commands(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError>;
    /// Remembers that the ingress had taken the command at `sent_ms`. If another one has its place by now, be it one of the same
    /// id that was made behind it, nothing changes.
    async fn command_sent(&self, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError>;
    /// Forgets commands whose deadline was before `before_ms`, of some devices behind `after` in an order of the store's own. The
    /// last one of them: the next call goes on there; `None`: that were all. A store whose rows end by themselves may leave it
    /// to them.
    async fn forget_commands(&self, before_ms: u64, after: Option<&DeviceKey>)
    -> Result<Option<DeviceKey>, StoreError>;
}

/// Both views, in one place.
pub trait Store: ShadowStore + CommandStore {}

impl<S: ShadowStore + CommandStore> Store for S {}

/// Hands commands to the ingress, which hands them to devices.
#[async_trait]
pub trait CommandSender: Send + Sync + 'static {
    /// Has the request of a command published, within 5 s or so. Under the same id it may be handed out again, and is
    /// recognised by whoever reads the log.
    async fn send(&self, request: &CommandRequest) -> Result<(), Unsent>;
}

/// The request of a command.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    pub device: DeviceKey,
    pub id: RecordId,
    /// As the device gets it.
    pub payload: Bytes,
    /// How many rules have handed the message on that it comes of.
    pub hops: u32,
}

/// The ingress did not take a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// It may be tried again.
    #[error("ingress is away: {reason}")]
    Away { reason: String },
    #[error("ingress refuses it: {reason}")]
    Refused { reason: String },
}

/// The live ingress nodes, which hold connections of devices.
#[async_trait]
pub trait IngressNodes: Send + Sync + 'static {
    /// Hands a delivery to whom it is for, on every node. The error says why it is to be tried again.
    async fn deliver(&self, delivery: &Delivery) -> Result<(), Undelivered>;
}

/// A node has not confirmed a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ingress node {node} did not confirm: {reason}")]
pub struct Undelivered {
    pub node: String,
    pub reason: String,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Full { .. } => ErrorCode::ResourceExhausted,
            StoreError::Unavailable { .. } | StoreError::Behind { .. } => ErrorCode::Unavailable,
            StoreError::Corrupt { .. } => ErrorCode::DataLoss,
        };
        ApiError::new(code, error.to_string())
    }
}
