//! How points, steps and stored messages are shown.
//!
//! Domain layer, no I/O.

use drover_proto::storage::v1 as wire;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::declared::iso;
use super::live::base64;

/// What a device said, or what its numbers come to in a step of time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Sample {
    Point(Point),
    Step(Step),
}

/// A scalar of a message.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// ISO 8601, at the ingress.
    pub time: String,
    /// Nested members are joined by dots: `battery.voltage`.
    pub field: String,
    /// The topic it was published to.
    pub topic: String,
    /// A number, a text or a boolean.
    pub value: Value,
}

/// Numbers of a field from `time` on, for the width of a step.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// ISO 8601; when the step begins.
    pub time: String,
    pub count: u64,
    pub average: f64,
    pub minimum: f64,
    pub maximum: f64,
}

/// A message as its device sent it; what is no UTF-8 is in `payloadBase64` instead of `payload`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptMessage {
    /// Hexadecimal.
    pub id: String,
    /// ISO 8601, at the ingress.
    pub time: String,
    pub topic: String,
    pub qos: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

impl From<wire::Point> for Point {
    fn from(point: wire::Point) -> Self {
        let value = match point.value {
            Some(wire::point::Value::Number(number)) => number.into(),
            Some(wire::point::Value::Text(text)) => text.into(),
            Some(wire::point::Value::Boolean(boolean)) => boolean.into(),
            None => Value::Null,
        };
        Self { time: iso(point.time_ms), field: point.field, topic: point.topic, value }
    }
}

impl From<wire::Step> for Step {
    fn from(step: wire::Step) -> Self {
        let wire::Step { time_ms, count, average, minimum, maximum } = step;
        Self { time: iso(time_ms), count, average, minimum, maximum }
    }
}

impl From<wire::StoredMessage> for KeptMessage {
    fn from(message: wire::StoredMessage) -> Self {
        let (payload, payload_base64) = match String::from_utf8(message.payload) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(base64(error.as_bytes()))),
        };
        Self {
            id: drover_types::hex(&message.id),
            time: iso(message.time_ms),
            topic: message.topic,
            qos: message.qos,
            payload,
            payload_base64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_point_keeps_the_type_of_its_value() {
        let point = |value| {
            let wire = wire::Point { field: "f".into(), topic: "t".into(), time_ms: 1_000, value };
            serde_json::to_value(Sample::Point(wire.into())).expect("JSON")
        };
        let text = point(Some(wire::point::Value::Text("on".into())));
        assert_eq!(text, json!({"time": "1970-01-01T00:00:01Z", "field": "f", "topic": "t", "value": "on"}));
        assert_eq!(point(Some(wire::point::Value::Number(21.5)))["value"], json!(21.5));
        assert_eq!(point(Some(wire::point::Value::Boolean(true)))["value"], json!(true));
    }

    #[test]
    fn a_message_that_is_no_text_is_shown_in_base64() {
        let kept = |payload: &[u8]| {
            let wire = wire::StoredMessage { id: vec![0xab; 16], payload: payload.to_vec(), ..Default::default() };
            KeptMessage::from(wire)
        };
        assert_eq!((kept(b"1").payload.as_deref(), kept(b"1").payload_base64), (Some("1"), None));
        assert_eq!((kept(b"\xff\0").payload, kept(b"\xff\0").payload_base64.as_deref()), (None, Some("/wA=")));
        assert_eq!(kept(b"").id.len(), 32);
    }
}
