//! What the writer can be asked to do, each with the channel for its answer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::kept::GroupOffset;
use super::producers::Verdict;
use super::section::Section;
use super::topic::TopicLog;
use crate::{AdminError, Membership, Offset, Position, TopicConfig};

/// Sections for one topic; `slots` are their numbers in the append they came from.
#[derive(Clone, Debug)]
pub(super) struct TopicSections {
    pub topic: Arc<TopicLog>,
    pub slots: Vec<usize>,
    pub sections: Vec<Section>,
}

/// The offsets of all sections of an append by number, or why it was not acknowledged.
pub(super) type Acknowledged = Result<Vec<Offset>, String>;

/// An append.
pub(super) struct Append {
    pub topics: Vec<TopicSections>,
    pub answer: oneshot::Sender<Acknowledged>,
}

/// Why a sequenced append was not taken or not acknowledged.
pub(super) enum Sequenced {
    /// The offset of its first record.
    Written(Offset),
    Refused(Verdict),
    Unacknowledged(String),
}

/// An append of an idempotent producer: one section.
pub(super) struct AppendSequenced {
    pub topic: Arc<TopicLog>,
    pub section: Section,
    pub answer: oneshot::Sender<Sequenced>,
}

/// Why a transaction or commit of offsets failed.
#[derive(Debug)]
pub(super) enum CommitError {
    /// The transactional id has a newer holder.
    Superseded,
    /// The member does not hold the partitions.
    Rebalanced,
    /// A topic was deleted meanwhile.
    TopicGone(String),
    /// Nothing of it is or will be there.
    Undone(String),
    Unknown(String),
}

/// Whose offsets are committed.
pub(super) enum Committer {
    /// A member of a group, fenced by its membership.
    Member(Membership, Vec<Position>),
    /// A consumer of another group protocol, which does its own fencing.
    Outside(String, Vec<GroupOffset>),
}

/// Records and offsets that become durable as one step.
pub(super) struct Commit {
    /// Transactional id and its holder's number.
    pub transactor: Option<(String, u64)>,
    pub topics: Vec<TopicSections>,
    pub offsets: Option<Committer>,
    pub answer: oneshot::Sender<Result<Vec<Offset>, CommitError>>,
}

/// A request to the writer.
pub(super) enum Command {
    Append(Append),
    AppendSequenced(AppendSequenced),
    Commit(Commit),
    CreateTopic(TopicConfig, oneshot::Sender<Result<bool, AdminError>>),
    DeleteTopic(String, oneshot::Sender<Result<(), AdminError>>),
    DeleteGroup(String, oneshot::Sender<Result<(), String>>),
    AllocateProducer(oneshot::Sender<Result<i64, String>>),
    /// Takes over a transactional id; answers with the holder's number once earlier commits are decided.
    Hold(String, oneshot::Sender<u64>),
}
