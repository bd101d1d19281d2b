//! The port of sessions that outlive their connections: what the ingress keeps of them, and what it asks for again.

use std::sync::Arc;

use async_trait::async_trait;
use drover_mqtt::PacketId;
use drover_types::DeviceId;

use super::StoreError;
use crate::domain::router::Options;
use crate::domain::session::Delivery;
use crate::domain::sessions::{Key, Will};

/// Where a message is in its inbox: in the order of places it came, and is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of the connection that held the session, or held it last, when the message came.
    pub epoch: u64,
    /// Counts from 0 in each epoch.
    pub number: u32,
}

/// A session as a whole, but for what has rows of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Of the connection that holds it, or held it last.
    pub epoch: u64,
    pub device: DeviceId,
    /// How long it outlives its connection, in seconds; 0: not at all, it is here for its will.
    pub expiry_s: u32,
    /// Absent: a connection holds it.
    pub away: Option<Away>,
    pub will: Option<Will>,
    /// Messages up to here may have been sent to the client.
    pub sent: Option<Place>,
}

/// Since nobody holds a session; milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    pub ends_ms: u64,
    /// When its will is due, if there is one.
    pub will_ms: u64,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub filter: Box<str>,
    pub options: Options,
}

/// One message of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub place: Place,
    pub packet_id: PacketId,
    /// Absent: of QoS 2, the client has it, and its PUBCOMP is awaited.
    pub delivery: Option<Delivery>,
}

/// A change of what is kept.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: Arc<Key>,
    /// Grows with each change of a session: of two that say the same of something the greater counts. Microseconds since
    /// the Unix epoch or less, where the store is shared.
    pub stamp: u64,
    pub what: What,
}

impl Change {
    /// Why this change cannot be made, given why not: what will never be otherwise concerns its session alone.
    pub fn failed(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Corrupt { reason } => StoreError::Unwritable { whose: self.key.clone(), reason },
            error @ (StoreError::Unavailable { .. } | StoreError::Unwritable { .. }) => error,
        }
    }
}

/// What changes.
#[derive(Clone, Debug)]
pub enum What {
    Head(Box<Head>),
    /// All there are.
    Subscriptions(Vec<Subscription>),
    /// All messages of QoS 2 from the client that it has been told are stored, and has not let go of.
    Received(Vec<PacketId>),
    /// A message more, or the other state of one.
    Put(Row),
    /// One message less.
    Remove(Place),
    /// None is left before `before`; none was before `from` already.
    Passed {
        from: Place,
        before: Place,
    },
    /// The session is over. What another of this key has written since stays.
    End,
    /// It is no longer in the list of the node of this name, which had it before.
    Left(Box<str>),
}

/// What is kept of a session, but for its inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub head: Head,
    pub subscriptions: Vec<Subscription>,
    pub received: Vec<PacketId>,
    /// The greatest that is known to have been used; later changes have greater ones.
    pub stamp: u64,
    /// Name of the node that has written the head last; empty where the store is not shared.
    pub node: Box<str>,
}

/// A session of a list, or why this one cannot be read.
pub type Listed = (Key, Result<Stored, StoreError>);

/// Sessions that outlive their connections.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Makes the changes, with the effect of their order. All of them are durable on return, and then seen by every later
    /// question. After an error some may be: made again, in the same order, they have the effect of once. After
    /// [`StoreError::Unwritable`] they have to be made again without those of the session it names.
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError>;

    /// A session, whoever wrote it; without head there is none.
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError>;

    /// The oldest `rows_max` messages of a session's inbox behind `after`, in their order; fewer: there are no more.
    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError>;

    /// Some of the sessions whose head this node has written last, in an order that stays: at least one behind `after`
    /// if there is one, at most `sessions_max`. One that is corrupt may be another node's.
    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError>;

    /// As [`SessionStore::own`], for the node of this name; nothing where the store is not shared.
    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError>;

    /// Names of the nodes that have ever opened the store; nothing where it is not shared.
    async fn nodes(&self) -> Result<Vec<String>, StoreError>;

    /// Whether other nodes write to and read from it as well.
    fn is_shared(&self) -> bool;
}
