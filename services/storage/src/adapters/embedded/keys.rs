//! The rows of the embedded store: their keys, and their values as bytes.
//!
//! Parts of a key are separated by a zero byte, which none of them may hold, and end with the time and the id of fixed
//! length, big-endian, so that the order of bytes is the order of names, times and ids. Values are the messages of
//! `drover.storage.v1` without what the key says.

use drover_proto::storage::v1 as wire;
use drover_proto::storage::v1::point;
use drover_types::{DeviceKey, Qos, RecordId};
use prost::Message as _;

use crate::ports::StoreError;
use crate::series::{Field, Message, Place, Point, Series, Value};

/// Bytes of a place: 8 of time, 16 of the id.
pub const PLACE_BYTES: usize = 24;

/// Prefix of a device's rows: its messages, or the newest points of its fields.
pub fn device(device: &DeviceKey) -> Vec<u8> {
    [device.tenant.as_str().as_bytes(), &[0], device.device.as_str().as_bytes(), &[0]].concat()
}

/// Prefix of the points of a series.
pub fn series(series: &Series) -> Vec<u8> {
    points_of(&series.device, &series.field)
}

/// Prefix of the points of a field of a device.
pub fn points_of(of: &DeviceKey, field: &Field) -> Vec<u8> {
    let mut key = device(of);
    key.extend_from_slice(field.as_str().as_bytes());
    key.push(0);
    key
}

/// `prefix` and a place behind it.
pub fn at(prefix: &[u8], place: Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + PLACE_BYTES);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&place.time_ms.to_be_bytes());
    key.extend_from_slice(&place.id.0);
    key
}

/// Prefix and place of a key that ends with a place.
pub fn split(key: &[u8]) -> Result<(&[u8], Place), StoreError> {
    let (prefix, place) =
        key.split_at_checked(key.len().wrapping_sub(PLACE_BYTES)).ok_or_else(|| corrupt("short key"))?;
    Ok((prefix, read_place(place)?))
}

fn read_place(bytes: &[u8]) -> Result<Place, StoreError> {
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
    self::at(&[], at).into_iter().chain(point.iter().copied()).collect()
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
        ..wire::StoredMessage::default()
    }
    .encode_to_vec()
}

pub fn read_message(at: Place, row: &[u8]) -> Result<Message, StoreError> {
    let wire::StoredMessage { topic, qos, payload, .. } = wire::StoredMessage::decode(row).map_err(corrupt)?;
    let qos = u8::try_from(qos).map_err(corrupt).and_then(|qos| Qos::try_from(qos).map_err(corrupt))?;
    Ok(Message { at, topic, qos, payload: payload.into() })
}

pub fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}
