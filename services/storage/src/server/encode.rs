//! From what the domain answers to responses.

use drover_proto::storage::v1 as wire;

use crate::domain::{Step, Token};
use crate::series::{Message, Place, Point, Value};

pub fn point(point: Point) -> wire::Point {
    let value = match point.value {
        Value::Number(number) => wire::point::Value::Number(number),
        Value::Text(text) => wire::point::Value::Text(text),
        Value::Boolean(truth) => wire::point::Value::Boolean(truth),
    };
    wire::Point { field: point.field.to_string(), topic: point.topic, time_ms: point.at.time_ms, value: Some(value) }
}

pub fn step(step: Step) -> wire::Step {
    let Step { time_ms, count, average, minimum, maximum } = step;
    wire::Step { time_ms, count, average, minimum, maximum }
}

pub fn message(message: Message) -> wire::StoredMessage {
    wire::StoredMessage {
        id: message.at.id.0.to_vec(),
        time_ms: message.at.time_ms,
        topic: message.topic,
        qos: u32::from(u8::from(message.qos)),
        payload: message.payload.to_vec(),
        of_rule: message.of_rule,
    }
}

/// Empty: this was all.
pub fn token(next: Option<Place>) -> String {
    next.map(|place| Token(place).to_string()).unwrap_or_default()
}
