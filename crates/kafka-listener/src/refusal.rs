//! What the bus's errors are in Kafka's words, and what this listener refuses on principle.
//!
//! Adapter layer: the only place that maps errors; every match is exhaustive.

use drover_bus::{AdminError, AppendError, ReadError};
use kafka_protocol::ResponseError;

use crate::batch::BatchError;
use crate::view::View;

/// Names of topics and groups that belong to the platform: read by everyone, written by nobody else.
const RESERVED_PREFIX: &str = "drover.";

/// Is this the name of a topic or group of the platform itself?
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// Refuses to write to, make or delete a topic of the platform, and whatever there is by a client that may only read.
pub fn check_writable(view: &View, topic: &str) -> Result<(), (ResponseError, String)> {
    if is_reserved(topic) {
        return Err((ResponseError::TopicAuthorizationFailed, format!("topic {topic} belongs to the platform")));
    }
    if !view.may_write() {
        let reason = "an API token of the role viewer may read, and change nothing".to_owned();
        return Err((ResponseError::TopicAuthorizationFailed, reason));
    }
    Ok(())
}

/// Kafka's code: 0 for success.
pub fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

/// Storage errors are retriable in Kafka, as they are here.
pub fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::Unknown { .. } => ResponseError::UnknownTopicOrPartition,
        ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReadError::Corrupt { .. } | ReadError::Unavailable { .. } => ResponseError::KafkaStorageError,
    }
}

/// Nothing of the batch was taken.
pub fn of_append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::UnknownTopic { .. } | AppendError::UnknownPartition { .. } => {
            ResponseError::UnknownTopicOrPartition
        }
        AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
        AppendError::Refused { .. } => ResponseError::InvalidRecord,
        AppendError::Unavailable { .. } => ResponseError::KafkaStorageError,
    }
}

/// Nothing was changed.
pub fn of_admin(error: &AdminError) -> ResponseError {
    match error {
        AdminError::Name { .. } => ResponseError::InvalidTopicException,
        AdminError::PartitionCount { .. } => ResponseError::InvalidPartitions,
        AdminError::Partitions { .. } | AdminError::Setting { .. } => ResponseError::TopicAlreadyExists,
        AdminError::Unknown { .. } => ResponseError::UnknownTopicOrPartition,
        AdminError::Refused { .. } => ResponseError::PolicyViolation,
        AdminError::Unavailable { .. } => ResponseError::KafkaStorageError,
    }
}

/// Damage in transit is retriable; what would be damaged again is not.
pub fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        BatchError::Truncated { .. } | BatchError::Checksum { .. } => ResponseError::CorruptMessage,
        BatchError::Format { .. } => ResponseError::UnsupportedForMessageFormat,
        BatchError::Several { .. }
        | BatchError::Control
        | BatchError::Count { .. }
        | BatchError::Record { .. }
        | BatchError::Compression(_) => ResponseError::InvalidRecord,
    }
}
