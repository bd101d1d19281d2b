//! What the domain needs from outside, with the promises it relies on.

use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::{ApiError, ClientId, DeviceKey, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};

use crate::audit::{Entry, Position};
use crate::object::{Digest, Kind, NONCE_BYTES, Object, ObjectKey, Sealed};

/// One write of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    pub key: ObjectKey,
    /// The revision that must be there; `None`: there must be no object of this key.
    pub expected: Option<u64>,
    /// What will be there; the store sets its revision. `None`: nothing.
    pub after: Option<Object>,
    /// Of the change, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Who asked for it.
    pub actor: String,
}

impl Mutation {
    /// A write of which nobody has said yet who asked for it.
    pub fn new(key: ObjectKey, expected: Option<u64>, after: Option<Object>, time_ms: u64) -> Self {
        Self { key, expected, after, time_ms, actor: String::new() }
    }
}

/// A change that is not yet in the change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Grows with every write.
    pub sequence: u64,
    pub change: Change,
}

/// What happened to an object: made (no `before`), changed, or deleted (no `after`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: ObjectKey,
    pub before: Option<Object>,
    pub after: Option<Object>,
    pub time_ms: u64,
    /// Who asked for it; empty: not known, of a change by an older version.
    pub actor: String,
    /// Of the write: the object's own, and greater than all before if it was deleted.
    pub revision: u64,
}

/// Some entries of the audit trail, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub entries: Vec<Entry>,
    /// Before which there may be more, also where there are few entries or none; `None`: there are no more.
    pub next: Option<Position>,
}

/// Who takes the outbox to the change feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTurn {
    /// This process, which is the only one that writes.
    Alone,
    /// This process, until it is told otherwise; others write as well.
    Ours,
    /// Another process.
    Others,
}

/// Whose session it is: clients of one device are told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub device: DeviceKey,
    pub client: ClientId,
}

/// The last that was said of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub connected: bool,
    /// Of the last session heard of; lower ones are over.
    pub epoch: u64,
    /// Of the last event, milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// The ingress node that holds or held it.
    pub node: Arc<str>,
    /// Number of the start of that node.
    #[serde(default)]
    pub boot: u64,
}

/// Sessions as of an offset of the event log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceView {
    /// Next event to read; `None`: none was read yet.
    pub next: Option<Offset>,
    pub sessions: Vec<(SessionKey, Session)>,
}

/// What has changed in the view of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    pub partition: Partition,
    /// Next event to read.
    pub next: Offset,
    /// `None`: to be forgotten.
    pub sessions: Vec<(SessionKey, Option<Session>)>,
}

/// Whose a Kafka topic is. Subjects of certificate authorities are claimed as topics are, by names that no topic has, and
/// the authorities stand where the rules do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicClaim {
    /// The first whose rule claimed it.
    pub tenant: TenantId,
    /// Names of that tenant's rules that have claimed it, sorted.
    pub rules: Vec<String>,
    /// When one of them did last, milliseconds since the Unix epoch.
    pub claimed_ms: u64,
}

/// What is to be looked up at once, to know who somebody is and what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    pub objects: Vec<ObjectKey>,
    /// Digests of credentials, of any tenant.
    pub digests: Vec<Digest>,
    /// Devices of which is asked whether a credential of theirs was ever written.
    pub had_credentials: Vec<DeviceKey>,
}

impl Lookups {
    /// Whether there is nothing to look up.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.digests.is_empty() && self.had_credentials.is_empty()
    }
}

/// What was found: as many of each as were asked for, in that order, each by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub objects: Vec<Result<Option<Object>, StoreError>>,
    pub by_digest: Vec<Result<Option<Object>, StoreError>>,
    pub had_credentials: Vec<Result<bool, StoreError>>,
}

/// Why the store did not do it. After any of these but `Conflict` and `Busy` the write may or may not have happened, but
/// never a part of it; a later call works when the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("expected revision {expected:?}, found {found:?}")]
    Conflict { expected: Option<u64>, found: Option<u64> },
    #[error(
        "{bytes} bytes of changes in one minute are too many for one process, limit is {limit}; try again in a minute"
    )]
    Busy { limit: usize, bytes: usize },
    #[error("the registry's store has no space left: {reason}")]
    Full { reason: String },
    #[error("the registry's store is unavailable: {reason}")]
    Unavailable { reason: String },
    #[error("the registry's store is damaged: {reason}")]
    Corrupt { reason: String },
}

/// The objects, their outbox, and the view of presence.
///
/// A write of an object is durable when its call returns, together with its outbox row; so is a claim of a topic. Reads
/// see every write that returned before they began. Every call may be made concurrently and dropped at any point; a dropped write happens wholly or not.
#[async_trait]
pub trait RegistryStore: Send + Sync + 'static {
    /// The object of this key.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError>;
    /// Up to `limit` objects of a kind, ordered by the bytes of their names, those after `after`.
    async fn page(&self, kind: Kind, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<Object>, StoreError>;
    /// The credential with this digest, of any tenant.
    async fn credential_by_digest(&self, digest: &Digest) -> Result<Option<Object>, StoreError>;
    /// All credentials of a device, ordered by id.
    async fn credentials_of(&self, device: &DeviceKey) -> Result<Vec<Object>, StoreError>;
    /// Whether a credential of this device was ever written; stays true when it is deleted, and the device with it.
    async fn has_had_credentials(&self, device: &DeviceKey) -> Result<bool, StoreError>;
    /// Many of [`RegistryStore::get`], [`RegistryStore::credential_by_digest`] and
    /// [`RegistryStore::has_had_credentials`] for the price of few: one that fails does not keep the others. They are not
    /// of one moment; each is as if it was asked alone after the call began. The error: none could be looked up.
    async fn look_up(&self, wanted: Arc<Lookups>) -> Result<Found, StoreError>;

    /// Compare-and-set: writes and answers the object as written, with its new revision, which is greater than every
    /// earlier one of this key; [`StoreError::Conflict`] if the expectation does not hold (nothing is written then).
    async fn write(&self, mutation: Mutation) -> Result<Option<Object>, StoreError>;

    /// Makes a rule one of those that write to a Kafka topic, unless the topic is another tenant's; answers whose it is
    /// and who writes to it now. Of many tenants that claim a free topic at once, one gets it, whichever process they
    /// ask: one compare-and-set on the topic's own row. Claiming again only moves its time.
    async fn claim_topic(&self, topic: &str, rule: &ObjectKey, now_ms: u64) -> Result<TopicClaim, StoreError>;
    /// Whose a topic is now; `None`: nobody's.
    async fn topic_claim(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError>;
    /// A rule no longer writes to a topic; with the last one the topic is free. Nothing if it is not among them.
    async fn release_topic(&self, topic: &str, rule: &ObjectKey) -> Result<(), StoreError>;

    /// Who relays the outbox: one process at a time over the same data, but for one that was stopped and does not know
    /// yet; that one must be fenced in the log. To be asked before each [`RegistryStore::outbox`].
    async fn relay_turn(&self) -> Result<RelayTurn, StoreError>;
    /// The oldest rows of the outbox in the order of their writes: of one object, and of writes that one process made
    /// one after the other; between others as well as clocks agree.
    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError>;
    /// Removes rows that are in the change feed.
    async fn forget(&self, sequences: &[u64]) -> Result<(), StoreError>;

    /// Adds entries to the audit trails of their tenants, durable at the latest with the next [`RegistryStore::forget`].
    /// One that is there already stays one. Entries older than [`crate::audit::KEPT_MS`] may go.
    async fn put_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError>;
    /// Up to `limit` entries of a tenant before `before`, newest first, none older than `oldest_ms`. Looks at a bounded part
    /// of the trail.
    async fn audit(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError>;

    /// The sessions of a device in a partition of the event log.
    async fn presence_of(
        &self,
        partition: Partition,
        device: &DeviceKey,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError>;
    /// The whole view of a partition.
    async fn presence(&self, partition: Partition) -> Result<PresenceView, StoreError>;
    /// Writes what has changed in some partitions, of each in one step. Need not be durable: what is lost is found again
    /// in the event log, from the offset that is left.
    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError>;
}

/// The live ingress nodes, which hold connections of devices.
#[async_trait]
pub trait IngressNodes: Send + Sync + 'static {
    /// Tells every node to close those connections of a device and to forget what it knows of them. Answers the names
    /// of the nodes that did not confirm in time.
    async fn revoke(&self, device: &DeviceKey, whose: Whose<'_>) -> Vec<String>;
    /// Names of the nodes that answer in time.
    async fn names(&self) -> Vec<String>;
}

/// Which connections of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    All,
    /// Those that have shown this credential.
    Credential(&'a str),
    /// Those that have shown none.
    Anonymous,
}

/// A certificate made for a device, its key, and who signed it.
#[derive(Clone)]
pub struct IssuedCertificate {
    pub certificate_pem: String,
    pub certificate_der: Vec<u8>,
    pub private_key_pem: String,
    pub ca_pem: String,
}

/// The platform's certificate authority.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Makes a key pair and a client certificate for `device`, valid for the given milliseconds since the Unix epoch.
    fn issue(&self, device: &DeviceKey, from_ms: u64, until_ms: u64) -> Result<IssuedCertificate, ApiError>;
}

/// Seals the secrets that must be known again. The master keys are its own: no store has them.
pub trait Vault: Send + Sync + 'static {
    /// Seals a secret of `device`, which alone opens it again; `nonce` is random, for this secret only.
    /// `failed_precondition` if there is no master key.
    fn seal(&self, secret: &[u8], device: &DeviceKey, nonce: [u8; NONCE_BYTES]) -> Result<Sealed, ApiError>;
    /// The secret. `failed_precondition` if its master key is not there, `data_loss` if it was not sealed for `device`.
    fn open(&self, sealed: &Sealed, device: &DeviceKey) -> Result<Vec<u8>, ApiError>;
    /// Whether it is under the master key that new secrets are sealed with.
    fn is_current(&self, sealed: &Sealed) -> bool;
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Conflict { .. } => ErrorCode::Aborted,
            // Busy: whoever tries again in a minute gets through, and not within the second in which unavailable is repeated.
            StoreError::Full { .. } | StoreError::Busy { .. } => ErrorCode::ResourceExhausted,
            StoreError::Unavailable { .. } => ErrorCode::Unavailable,
            StoreError::Corrupt { .. } => ErrorCode::DataLoss,
        };
        let answer = ApiError::new(code, error.to_string());
        match error {
            StoreError::Busy { limit, bytes } => answer.over(limit, bytes),
            _ => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wrote_too_much_in_a_minute_is_told_the_limit_and_the_value() {
        let error = ApiError::from(StoreError::Busy { limit: 10, bytes: 11 });
        assert_eq!(error.code, ErrorCode::ResourceExhausted);
        assert_eq!((error.limit.as_deref(), error.value.as_deref()), (Some("10"), Some("11")));
    }
}
