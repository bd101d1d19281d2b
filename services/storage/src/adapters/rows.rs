//! Values of rows as bytes, the same in every store: the messages of `drover.storage.v1` without what the key says.

use drover_proto::storage::v1 as wire;
use drover_proto::storage::v1::point;
use drover_types::{Qos, RecordId};
use prost::Message as _;

use crate::ports::StoreError;
use crate::series::{Field, Message, Place, Point, Value};

/// Bytes of a place: 8 of time, 16 of the id.
pub const PLACE_BYTES: usize = 24;

/// A place as bytes whose order is that of places.
pub fn place(place: Place) -> [u8; PLACE_BYTES] {
    let mut bytes = [0; PLACE_BYTES];
    bytes[..8].copy_from_slice(&place.time_ms.to_be_bytes());
    bytes[8..].copy_from_slice(&place.id.0);
    bytes
}

pub fn read_place(bytes: &[u8]) -> Result<Place, StoreError> {
    let (time, id) = bytes.split_at_checked(8).ok_or_else(|| corrupt("short place"))?;
    let time_ms = time.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("short time"))?;
    Ok(Place { time_ms, id: RecordId(id.try_into().map_err(|_| corrupt("an id has 16 bytes"))?) })
}

/// Value of a point's row.
pub fn write_point(topic: &str, value: &Value) -> Vec<u8> {
    let value = match value {
        Value::Number(number) => point::Value::Number(*number),
        Value::Text(text) => point::Value::Text(text.clone()),
        Value::Boolean(truth) => point::Value::Boolean(*truth),
    };
    wire::Point { topic: topic.to_owned(), value: Some(value), ..wire::Point::default() }.encode_to_vec()
}

pub fn read_point(field: Field, at: Place, row: &[u8]) -> Result<Point, StoreError> {
    let wire::Point { topic, value, .. } = wire::Point::decode(row).map_err(corrupt)?;
    let value = match value.ok_or_else(|| corrupt("a point without a value"))? {
        point::Value::Number(number) => Value::Number(number),
        point::Value::Text(text) => Value::Text(text),
        point::Value::Boolean(truth) => Value::Boolean(truth),
    };
    Ok(Point { field, at, topic, value })
}

/// Value of a row of the newest points: its place, then the point.
pub fn write_newest(at: Place, point: &[u8]) -> Vec<u8> {
    [place(at).as_slice(), point].concat()
}

/// Place of a row of the newest points.
pub fn newest_place(row: &[u8]) -> Result<Place, StoreError> {
    read_place(row.get(..PLACE_BYTES).ok_or_else(|| corrupt("short row"))?)
}

pub fn read_newest(field: Field, row: &[u8]) -> Result<Point, StoreError> {
    read_point(field, newest_place(row)?, &row[PLACE_BYTES..])
}

/// The field behind a prefix.
pub fn read_field(bytes: &[u8]) -> Result<Field, StoreError> {
    Field::new(std::str::from_utf8(bytes).map_err(corrupt)?).map_err(corrupt)
}

pub fn write_message(message: &Message) -> Vec<u8> {
    wire::StoredMessage {
        topic: message.topic.clone(),
        qos: u32::from(u8::from(message.qos)),
        payload: message.payload.to_vec(),
        of_rule: message.of_rule,
        ..wire::StoredMessage::default()
    }
    .encode_to_vec()
}

pub fn read_message(at: Place, row: &[u8]) -> Result<Message, StoreError> {
    let wire::StoredMessage { topic, qos, payload, of_rule, .. } = wire::StoredMessage::decode(row).map_err(corrupt)?;
    let qos = u8::try_from(qos).map_err(corrupt).and_then(|qos| Qos::try_from(qos).map_err(corrupt))?;
    Ok(Message { at, topic, qos, payload: payload.into(), of_rule })
}

pub fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}
