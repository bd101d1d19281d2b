//! Records the engine writes besides a rule's own output: dead letters, error actions' rows and the outbox.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use drover_bus::{Header, Outgoing, Record, Stored};
use drover_types::header;
use serde_json::json;

/// Dead letters: the source record with the rule and the cause in headers.
pub const ERRORS_TOPIC: &str = "drover.rules.errors";
/// Actions that are not Kafka outputs, run by a group of their own.
pub const OUTBOX_TOPIC: &str = "drover.rules.outbox";

/// Header of a dead letter: why it is one.
const ERROR: &str = "error";
/// Header of a dead letter: where its source stands, `topic/partition/offset`.
const SOURCE: &str = "source";

/// A header whose value is text.
pub fn text_header(name: &'static str, value: &str) -> Header {
    Header { name: name.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// The full source record under its own key, with `rule` (if one is to blame), `error` and `source` in headers.
pub fn dead_letter(source: &Stored, rule: Option<&str>, cause: &str) -> Outgoing {
    let at = &source.position.at;
    let place = format!("{}/{}/{}", at.topic, at.partition, source.position.offset);
    let mut record = source.record.clone();
    record.headers.extend(rule.map(|rule| text_header(header::RULE, rule)));
    record.headers.extend([text_header(ERROR, cause), text_header(SOURCE, &place)]);
    Outgoing::keyed(ERRORS_TOPIC, Record { value: Some(record.value.unwrap_or_default()), ..record })
}

/// The row of an error action: what failed, and the message it failed for.
pub fn failure_row(rule: &str, topic: &str, client: &str, payload: &[u8], cause: &str) -> Vec<u8> {
    let row = json!({
        "ruleName": rule,
        "topic": topic,
        "clientId": client,
        "base64OriginalPayload": STANDARD.encode(payload),
        "failures": [{"errorMessage": cause}],
    });
    row.to_string().into_bytes()
}
