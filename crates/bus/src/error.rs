//! What can go wrong at the Bus port; each error says what state it leaves behind.

use crate::{Offset, TopicPartition};

/// Creating, deleting or listing topics failed; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    #[error("topic name {topic:?} is not 1 to 249 of A-Z, a-z, 0-9 and . _ -")]
    Name { topic: String },
    #[error("topic {topic} has {wanted} partitions, allowed are 1 to {limit}")]
    PartitionCount { topic: String, wanted: u32, limit: u32 },
    #[error("topic {topic} exists with {existing} partitions, {wanted} were asked for")]
    Partitions { topic: String, existing: u32, wanted: u32 },
    /// Records would go that are to stay, or the reverse: trying again does not help until somebody changes the topic.
    #[error("topic {topic} exists with {setting} = {found}, {wanted} was asked for")]
    Setting { topic: String, setting: &'static str, found: String, wanted: &'static str },
    #[error("topic {topic} does not exist")]
    Unknown { topic: String },
    /// Trying again does not help until somebody changes the cluster or its rights.
    #[error("topic {topic} is refused: {reason}")]
    Refused { topic: String, reason: String },
    #[error("bus is unavailable: {reason}")]
    Unavailable { reason: String },
}

/// An append was not taken: nothing of the batch will appear.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("topic {topic} does not exist")]
    UnknownTopic { topic: String },
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition { topic: String, partition: u32 },
    #[error("record has {bytes} bytes, limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Trying again does not help until somebody changes the topic or its rights.
    #[error("topic {topic} does not take the record: {reason}")]
    Refused { topic: String, reason: String },
    #[error("bus is unavailable: {reason}")]
    Unavailable { reason: String },
}

/// The fate of an append is unknown: any part of it may be in the log. Send again; readers recognise repeats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("append was not acknowledged: {reason}")]
pub struct Unacknowledged {
    pub reason: String,
}

/// A read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("{}/{} does not exist", at.topic, at.partition)]
    Unknown { at: TopicPartition },
    #[error("offset {from} is outside of {earliest} to {end}")]
    OutOfRange { from: Offset, earliest: Offset, end: Offset },
    #[error("log is damaged: {reason}")]
    Corrupt { reason: String },
    #[error("bus is unavailable: {reason}")]
    Unavailable { reason: String },
}

/// A group operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    #[error("topic {topic} does not exist")]
    UnknownTopic { topic: String },
    #[error("member {member} of group {group} lost its partitions")]
    Fenced { group: String, member: String },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("bus is unavailable: {reason}")]
    Unavailable { reason: String },
}

/// A transaction did not commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactError {
    #[error("transactional id {transactional_id} has a newer holder")]
    Fenced { transactional_id: String },
    #[error("offsets belong to another member of group {group} now")]
    Rebalanced { group: String },
    #[error("transaction was refused: {0}")]
    Refused(#[from] AppendError),
    #[error("transaction was aborted: {reason}")]
    Aborted { reason: String },
    #[error("fate of the transaction is unknown: {reason}")]
    Unknown { reason: String },
}
