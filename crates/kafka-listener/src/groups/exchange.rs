//! What goes into the state machine of a group, and what comes out.
//!
//! Domain layer: plain values.

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::member::Protocol;

/// Names a waiting request; the caller keeps it unique.
pub type Ticket = u64;

/// Who speaks: its id, and its name if it is a static member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Empty: not yet known to the group.
    pub member: String,
    pub instance: Option<String>,
}

/// A request to join.
#[derive(Clone, Debug)]
pub struct Join {
    pub ticket: Ticket,
    pub who: Identity,
    /// The id a new member gets; unique for ever.
    pub fresh_id: String,
    /// A new dynamic member must first come back with its id (KIP-394), so that a client that never reads its
    /// answer leaves no member behind.
    pub id_first: bool,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocol_type: String,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
    pub client_id: String,
    pub client_host: String,
}

/// A member is part of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub member: String,
    pub leader: String,
    pub protocol_type: String,
    pub protocol: String,
    /// For the leader: everyone with their metadata. Empty for the others.
    pub members: Vec<(Identity, Bytes)>,
    /// A leader that came back under its static name: the assignment stands.
    pub skip_assignment: bool,
}

/// Why a join was refused, and the id to come back with ([`ResponseError::MemberIdRequired`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ResponseError,
    pub member: String,
}

/// A member's share of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// The answer to the request of a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Join(Ticket, Result<Joined, Refused>),
    Sync(Ticket, Result<Synced, ResponseError>),
}

/// A request for the assignment; the leader brings it.
#[derive(Clone, Debug)]
pub struct Sync {
    pub ticket: Ticket,
    pub who: Identity,
    pub generation: i32,
    /// `None`: an old client that does not say.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}
