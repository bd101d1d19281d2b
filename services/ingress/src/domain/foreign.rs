//! Messages that a function has made of a foreign body: `[{"device", "topic", "payload", "time"}]`, one of them alone, or
//! none. Each is looked at before the first is published.
//!
//! Domain layer, pure.

use bytes::Bytes;
use drover_types::{ApiError, DeviceId, ErrorCode, TopicName};
use serde::Deserialize;
use serde_json::Value;

use crate::domain::identity::Identity;
use crate::domain::post;

/// Most messages of one body.
pub const MESSAGES_MAX: usize = 100;

/// A message, allowed to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub device: DeviceId,
    pub topic: TopicName,
    pub payload: Bytes,
    /// Of the measurement, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// A message as the function says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Who asks, where absent.
    device: Option<String>,
    topic: String,
    /// A text as it is, all else as JSON.
    payload: Value,
    /// Milliseconds since the Unix epoch, or ISO 8601; now, where absent.
    time: Option<Value>,
}

/// Reads the result of a function that `caller` has called: `invalid_argument` names the message and its field,
/// `permission_denied` what the caller's policies do not allow.
pub fn messages(
    result: Option<&str>,
    caller: &Identity,
    payload_bytes_max: usize,
    now_ms: u64,
) -> Result<Vec<Made>, ApiError> {
    let result = result.map_or(Ok(Value::Null), serde_json::from_str);
    let result = result.map_err(|error| ApiError::invalid("result", error.to_string()))?;
    let rows = match result {
        Value::Null => Vec::new(),
        Value::Array(rows) => rows,
        one => vec![one],
    };
    if rows.len() > MESSAGES_MAX {
        return Err(ApiError::invalid("result", "too many messages").over(MESSAGES_MAX, rows.len()));
    }
    let rows = rows.into_iter().enumerate();
    rows.map(|(i, row)| message(&format!("result[{i}]"), row, caller, payload_bytes_max, now_ms)).collect()
}

fn message(
    place: &str,
    row: Value,
    caller: &Identity,
    payload_bytes_max: usize,
    now_ms: u64,
) -> Result<Made, ApiError> {
    let field = |name: &str| format!("{place}.{name}");
    let row: Row = serde_json::from_value(row).map_err(|error| ApiError::invalid(place, error.to_string()))?;
    let device = match &row.device {
        None => caller.device.clone(),
        Some(name) => DeviceId::new(name).map_err(|error| ApiError::invalid(field("device"), error.to_string()))?,
    };
    if device != caller.device && !caller.may_publish_for(device.as_str()) {
        let message = format!("the policies of {} do not allow it to publish for {device}", caller.device);
        return Err(denied(field("device"), message));
    }
    let topic = TopicName::new(&row.topic).map_err(|error| ApiError::invalid(field("topic"), error.to_string()))?;
    if !caller.may_publish(topic.as_str(), caller.device.as_str()) {
        let message = format!("the policies of {} do not allow it to publish to this topic", caller.device);
        return Err(denied(field("topic"), message));
    }
    let payload = match row.payload {
        Value::String(text) => Bytes::from(text),
        other => Bytes::from(other.to_string()),
    };
    if payload.len() > payload_bytes_max {
        let refused = ApiError::invalid(field("payload"), "payload is too long");
        return Err(refused.over(payload_bytes_max, payload.len()));
    }
    let time_ms = row.time.map_or(Ok(now_ms), |time| time_ms(&field("time"), &time, now_ms))?;
    Ok(Made { device, topic, payload, time_ms })
}

fn denied(field: String, message: String) -> ApiError {
    ApiError { field: Some(field), ..ApiError::new(ErrorCode::PermissionDenied, message) }
}

/// A time in the future would end the windows in which repeats are recognised, so there is none.
fn time_ms(field: &str, time: &Value, now_ms: u64) -> Result<u64, ApiError> {
    let read = match time {
        Value::Number(ms) => ms.as_u64(),
        Value::String(text) => post::time_ms(text),
        Value::Null => Some(now_ms),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match read {
        Some(ms) if ms <= now_ms => Ok(ms),
        Some(ms) => Err(ApiError::invalid(field, "is in the future").over(now_ms, ms)),
        None => {
            let message = "is neither milliseconds since the Unix epoch nor ISO 8601 with a zone, 1970 or later";
            Err(ApiError::invalid(field, message).over("a time", time))
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_types::TenantId;
    use drover_types::object::{Effect, PolicyAction, Statement};

    use super::*;
    use crate::domain::authorize::Policy;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn made(result: &str) -> Result<Vec<Made>, ApiError> {
        let allow = |action, resource: &str| Statement {
            effect: Effect::Allow,
            actions: vec![action],
            resources: vec![resource.into()],
        };
        let statements = [allow(PolicyAction::Publish, "up/#"), allow(PolicyAction::PublishFor, "lora-*")];
        let caller = Identity {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("hook").expect("valid"),
            credential: "c".into(),
            policy: Policy::compile(Box::default(), &statements),
            expires_ms: 0,
            generation: 0,
        };
        messages(Some(result), &caller, 20, NOW_MS)
    }

    #[test]
    fn one_message_several_and_none_are_read() {
        let several = made(
            r#"[{"device": "lora-1", "topic": "up/a", "payload": {"t": 1.5}, "time": "2023-11-14T22:13:19+00:00"},
                {"topic": "up/b", "payload": "text", "time": 7}]"#,
        );
        let of = |device: &str, topic: &str, payload: &'static str, time_ms| Made {
            device: DeviceId::new(device).expect("valid"),
            topic: TopicName::new(topic).expect("valid"),
            payload: Bytes::from_static(payload.as_bytes()),
            time_ms,
        };
        let expected = vec![of("lora-1", "up/a", r#"{"t":1.5}"#, NOW_MS - 1_000), of("hook", "up/b", "text", 7)];
        assert_eq!(several, Ok(expected));
        let one = made(r#"{"device": "hook", "topic": "up", "payload": null}"#);
        assert_eq!(one, Ok(vec![of("hook", "up", "null", NOW_MS)]));
        assert_eq!((made("null"), made("[]")), (Ok(Vec::new()), Ok(Vec::new())));
    }

    #[test]
    fn what_cannot_be_published_is_named_by_its_place() {
        for (row, field) in [
            (r#"{"topic": "up", "payload": 1}, {"topic": "down", "payload": 1}"#, "result[1].topic"),
            (r#"{"device": "other", "topic": "up", "payload": 1}"#, "result[0].device"),
            (r#"{"device": "a b", "topic": "up", "payload": 1}"#, "result[0].device"),
            (r#"{"topic": "up/#", "payload": 1}"#, "result[0].topic"),
            (r#"{"topic": "up", "payload": "123456789012345678901"}"#, "result[0].payload"),
            (r#"{"topic": "up", "payload": 1, "time": 1700000000001}"#, "result[0].time"),
            (r#"{"topic": "up", "payload": 1, "time": "yesterday"}"#, "result[0].time"),
            (r#"{"topic": "up", "payload": 1, "time": -1}"#, "result[0].time"),
            (r#"{"topic": "up"}"#, "result[0]"),
            (r#"{"topic": "up", "payload": 1, "qos": 1}"#, "result[0]"),
            (r#""text""#, "result[0]"),
        ] {
            let refused = made(&format!("[{row}]")).expect_err(row);
            assert_eq!(refused.field.as_deref(), Some(field), "{row}");
        }
        let many = vec![r#"{"topic": "up", "payload": 1}"#; MESSAGES_MAX + 1].join(",");
        assert_eq!(made(&format!("[{many}]")).expect_err("too many").limit.as_deref(), Some("100"));
        assert_eq!(made("{").expect_err("no JSON").field.as_deref(), Some("result"));
    }
}
