//! What is kept: messages as they were sent, and the points their payloads hold.

use std::fmt;

use bytes::Bytes;
use drover_types::command::COMMAND_TOPICS;
use drover_types::{DeviceKey, Qos, RecordId};

/// Longest name of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 256;

/// Name of a field of a device: 1 to [`FIELD_BYTES_MAX`] bytes without U+0000.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(Box<str>);

/// Why a text is no name of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidField {
    #[error("field is empty")]
    Empty,
    #[error("field has {bytes} bytes, limit is {FIELD_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("field contains U+0000")]
    Null,
}

impl Field {
    /// Checks `name`.
    pub fn new(name: impl Into<Box<str>>) -> Result<Self, InvalidField> {
        let name = name.into();
        match name.len() {
            0 => Err(InvalidField::Empty),
            bytes if bytes > FIELD_BYTES_MAX => Err(InvalidField::TooLong { bytes }),
            _ if name.contains('\0') => Err(InvalidField::Null),
            _ => Ok(Self(name)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a field may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Finite.
    Number(f64),
    Text(String),
    Boolean(bool),
}

/// Where something stands among what a device sent: by time, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Milliseconds since the Unix epoch, at the ingress.
    pub time_ms: u64,
    pub id: RecordId,
}

impl Place {
    /// The first place of a millisecond.
    pub const fn first_of(time_ms: u64) -> Self {
        Self { time_ms, id: RecordId([0; 16]) }
    }

    /// The last place of a millisecond.
    pub const fn last_of(time_ms: u64) -> Self {
        Self { time_ms, id: RecordId([0xff; 16]) }
    }
}

/// One value of one field at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub field: Field,
    pub at: Place,
    pub topic: String,
    pub value: Value,
}

impl Point {
    /// Bytes it takes in an answer, about.
    pub fn bytes(&self) -> usize {
        let value = match &self.value {
            Value::Number(_) | Value::Boolean(_) => 8,
            Value::Text(text) => text.len(),
        };
        ROW_BYTES + self.field.as_str().len() + self.topic.len() + value
    }
}

/// In front of a table's name in the topic of the rows that rules keep, which no device can publish to.
pub const TABLES_TOPIC: &str = "$tables/";

/// One message of a device, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub at: Place,
    pub topic: String,
    pub qos: Qos,
    pub payload: Bytes,
    /// A rule has published or kept it, not the device itself; of old rows it is not known.
    pub of_rule: bool,
}

impl Message {
    /// Whether the device itself has sent it: neither a rule, nor who commands it.
    pub fn is_own(&self) -> bool {
        !self.of_rule && !self.topic.starts_with(TABLES_TOPIC) && !self.topic.starts_with(COMMAND_TOPICS)
    }

    /// Bytes it takes in an answer, about.
    pub fn bytes(&self) -> usize {
        ROW_BYTES + self.topic.len() + self.payload.len()
    }
}

/// A message to be kept, with the values found in it. A field occurs once.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub device: DeviceKey,
    pub message: Message,
    pub values: Vec<(Field, Value)>,
}

/// One field of one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    pub device: DeviceKey,
    pub field: Field,
}

/// Place, and what else surrounds a row in an answer, in bytes.
const ROW_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_checked_at_their_limit() {
        assert!(Field::new("a".repeat(FIELD_BYTES_MAX)).is_ok());
        let bytes = FIELD_BYTES_MAX + 1;
        assert_eq!(Field::new("a".repeat(bytes)), Err(InvalidField::TooLong { bytes }));
        assert_eq!(Field::new(""), Err(InvalidField::Empty));
        assert_eq!(Field::new("a\0b"), Err(InvalidField::Null));
    }

    #[test]
    fn places_are_ordered_by_time_and_then_by_id() {
        let at = |time_ms, id| Place { time_ms, id: RecordId([id; 16]) };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1));
        assert!(Place::first_of(2) <= at(2, 0) && at(2, 0xff) <= Place::last_of(2));
    }
}
