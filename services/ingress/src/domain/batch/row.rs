//! One row: `{"device", "topic", "payload" | "payload_b64", "time"?, "qos"?, "id"?}`.
//!
//! Pure. Nothing of a payload is changed: JSON keeps its digits and its spaces, a text stands for its characters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use drover_types::limits::ID_BYTES_MAX;
use drover_types::{ApiError, DeviceId, Qos};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::post::{self, Post};

/// How far a row's time may be ahead of this node's clock, in milliseconds. Consumers of the log go by the newest time they
/// have seen, and a far one would make them forget what may be sent again.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// A row that has its shape; whether it may be published is not looked at.
#[derive(Debug)]
pub struct Row {
    pub device: DeviceId,
    /// When it was measured, as the row says; milliseconds since the Unix epoch.
    pub time_ms: Option<u64>,
    pub post: Post,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    device: String,
    topic: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_b64: Option<String>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    qos: Option<u8>,
    id: Option<String>,
}

impl Row {
    /// Reads a row that came at `now_ms`.
    pub fn read(text: &[u8], now_ms: u64) -> Result<Self, ApiError> {
        let written: Written<'_> =
            serde_json::from_slice(text).map_err(|error| ApiError::invalid("row", format!("is not a row: {error}")))?;
        let device = DeviceId::new(&written.device).map_err(|error| ApiError::invalid("device", error.to_string()))?;
        let qos = match written.qos {
            None | Some(1) => Qos::AtLeastOnce,
            Some(0) => Qos::AtMostOnce,
            Some(qos) => return Err(ApiError::invalid("qos", "qos is 0 or 1").over(1, qos)),
        };
        if let Some(id) = written.id.as_ref().filter(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
            let message = format!("an id has 1 to {ID_BYTES_MAX} bytes");
            return Err(ApiError::invalid("id", message).over(ID_BYTES_MAX, id.len()));
        }
        let (payload, content_type) = payload(written.payload, written.payload_b64.as_deref())?;
        let time_ms = written.time.map(|time| read_time(time, now_ms)).transpose()?;
        let content_type = content_type.map(str::to_owned);
        let post = Post { topic: written.topic, payload, qos, content_type, traceparent: None, name: written.id };
        Ok(Self { device, time_ms, post })
    }
}

/// The payload, and what it is where that is certain.
fn payload(json: Option<&RawValue>, base64: Option<&str>) -> Result<(Bytes, Option<&'static str>), ApiError> {
    match (json.map(RawValue::get), base64) {
        (Some(text), None) if text.starts_with('"') => Ok((unquoted("payload", text)?.into(), None)),
        (Some(json), None) => Ok((Bytes::copy_from_slice(json.as_bytes()), Some("application/json"))),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64);
            let bytes = bytes.map_err(|error| ApiError::invalid("payload_b64", format!("is not Base64: {error}")))?;
            Ok((bytes.into(), None))
        }
        (None, None) => Err(ApiError::invalid("payload", "a row has payload or payload_b64")),
        (Some(_), Some(_)) => Err(ApiError::invalid("payload_b64", "a row has only one of payload and payload_b64")),
    }
}

/// Milliseconds since the Unix epoch, or a time of RFC 3339.
fn read_time(time: &RawValue, now_ms: u64) -> Result<u64, ApiError> {
    let text = time.get();
    let read = if text.starts_with('"') { post::time_ms(&unquoted("time", text)?) } else { text.parse().ok() };
    let message = "a time is milliseconds since 1970, or a text of RFC 3339";
    let time_ms = read.ok_or_else(|| ApiError::invalid("time", message).over("2026-11-26T05:00:00Z", text))?;
    let latest_ms = now_ms.saturating_add(AHEAD_MS_MAX);
    if time_ms > latest_ms {
        return Err(ApiError::invalid("time", "is ahead of the clock of this node").over(latest_ms, time_ms));
    }
    Ok(time_ms)
}

/// What the JSON string of a field says. That it was read as JSON before is not enough: it may escape half a character.
fn unquoted(field: &str, json: &str) -> Result<String, ApiError> {
    serde_json::from_str(json).map_err(|error| ApiError::invalid(field, format!("is not a text: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;

    fn read(text: &str) -> Result<Row, ApiError> {
        Row::read(text.as_bytes(), NOW_MS)
    }

    fn payload_of(rest: &str) -> Vec<u8> {
        read(&format!(r#"{{"device":"d","topic":"t",{rest}}}"#)).expect(rest).post.payload.to_vec()
    }

    #[test]
    fn a_payload_is_what_was_written_digit_by_digit() {
        assert_eq!(
            payload_of(r#""payload": {"t": 1.50, "n":1700000000000000001}"#),
            br#"{"t": 1.50, "n":1700000000000000001}"#
        );
        assert_eq!(payload_of(r#""payload":-0.10"#), b"-0.10");
        assert_eq!(payload_of(r#""payload":"21.5 \u00b0C""#), "21.5 °C".as_bytes());
        assert_eq!(payload_of(r#""payload_b64":"AP8=""#), [0, 0xff]);
        assert_eq!(payload_of(r#""payload_b64":"""#), b"");
    }

    #[test]
    fn a_time_is_a_number_or_a_text_and_not_far_ahead() {
        let time = |text: &str| {
            read(&format!(r#"{{"device":"d","topic":"t","payload":1,"time":{text}}}"#)).map(|row| row.time_ms)
        };
        assert_eq!(time("1700000000123"), Ok(Some(1_700_000_000_123)));
        assert_eq!(time(r#""2026-11-01T06:00:00.5+01:00""#), Ok(Some(1_793_509_200_500)));
        assert_eq!(time(r#""1970-01-01T00:00:00Z""#), Ok(Some(0)));
        assert_eq!(time(&(NOW_MS + AHEAD_MS_MAX).to_string()), Ok(Some(NOW_MS + AHEAD_MS_MAX)));
        let ahead = time(&(NOW_MS + AHEAD_MS_MAX + 1).to_string()).expect_err("ahead");
        assert_eq!(ahead.limit, Some((NOW_MS + AHEAD_MS_MAX).to_string()));
        for wrong in ["-1", "1.5", "1e3", r#""yesterday""#, r#""1969-12-31T23:59:59Z""#, "true", "{}"] {
            assert_eq!(time(wrong).expect_err(wrong).field.as_deref(), Some("time"), "{wrong}");
        }
    }

    #[test]
    fn a_row_that_is_none_names_what_is_wrong() {
        let long = "x".repeat(129);
        for (row, field) in [
            ("", "row"),
            ("[]", "row"),
            (r#"{"device":"d","topic":"t","payload":1} {}"#, "row"),
            (r#"{"topic":"t","payload":1}"#, "row"),
            (r#"{"device":"d","payload":1}"#, "row"),
            (r#"{"device":"d","topic":"t","payload":1,"ts":1}"#, "row"),
            (r#"{"device":"a/b","topic":"t","payload":1}"#, "device"),
            (r#"{"device":"d","topic":"t"}"#, "payload"),
            (r#"{"device":"d","topic":"t","payload":null}"#, "payload"),
            (r#"{"device":"d","topic":"t","payload":"\ud800"}"#, "payload"),
            (r#"{"device":"d","topic":"t","payload":1,"time":"\ud800"}"#, "time"),
            (r#"{"device":"d","topic":"t","payload":1,"payload_b64":"AA=="}"#, "payload_b64"),
            (r#"{"device":"d","topic":"t","payload_b64":"?"}"#, "payload_b64"),
            (r#"{"device":"d","topic":"t","payload":1,"qos":2}"#, "qos"),
            (r#"{"device":"d","topic":"t","payload":1,"id":""}"#, "id"),
            (&format!(r#"{{"device":"d","topic":"t","payload":1,"id":"{long}"}}"#), "id"),
        ] {
            assert_eq!(read(row).expect_err(row).field.as_deref(), Some(field), "{row}");
        }
    }
}
