//! Records the engine writes besides a rule's own output: dead letters, error actions' rows and the outbox.

use std::borrow::Cow;

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
/// Header of a dead letter without its source's value and headers: the bytes of the whole one.
const LEFT_OUT: &str = "left-out";

/// Longest cause that is kept, in bytes: it may quote what a device has sent.
pub const CAUSE_BYTES_MAX: usize = 1_024;
/// Longest key of a dead letter that stands for a source too large, in bytes; those of messages are shorter.
const KEY_BYTES_MAX: usize = 1_024;

/// A header whose value is text.
pub fn text_header(name: &'static str, value: &str) -> Header {
    Header { name: name.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// The cause, or its beginning and an ellipsis: [`CAUSE_BYTES_MAX`] bytes at most.
pub fn clip(cause: &str) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if cause.len() <= CAUSE_BYTES_MAX {
        return Cow::Borrowed(cause);
    }
    let end = cause.floor_char_boundary(CAUSE_BYTES_MAX - ELLIPSIS.len());
    Cow::Owned(format!("{}{ELLIPSIS}", &cause[..end]))
}

/// The full source record under its own key, with `rule` (if one is to blame), `error` and `source` in headers.
pub fn dead_letter(source: &Stored, rule: Option<&str>, cause: &str) -> Outgoing {
    let at = &source.position.at;
    let place = format!("{}/{}/{}", at.topic, at.partition, source.position.offset);
    let mut record = source.record.clone();
    record.headers.extend(rule.map(|rule| text_header(header::RULE, rule)));
    record.headers.extend([text_header(ERROR, &clip(cause)), text_header(SOURCE, &place)]);
    Outgoing::keyed(ERRORS_TOPIC, Record { value: Some(record.value.unwrap_or_default()), ..record })
}

/// A dead letter that the log finds too large, without its source's value and headers: some kilobytes at most. `None`: it
/// is without them already.
pub fn without_source(letter: &Outgoing) -> Option<Outgoing> {
    let record = &letter.record;
    // The source may have a header of this name, but not behind those of the letter.
    if record.headers.last().is_some_and(|last| last.name == LEFT_OUT) {
        return None;
    }
    let mut headers = Vec::new();
    for name in [header::RULE, ERROR, SOURCE] {
        let value = record.header(name).filter(|value| value.len() <= CAUSE_BYTES_MAX);
        headers.extend(value.map(|value| Header { name: name.into(), value: Bytes::copy_from_slice(value) }));
    }
    headers.push(text_header(LEFT_OUT, &record.bytes().to_string()));
    let key = record.key.as_ref().map(|key| key.slice(..key.len().min(KEY_BYTES_MAX)));
    let small = Record { key, value: Some(Bytes::new()), headers, timestamp_ms: record.timestamp_ms };
    Some(Outgoing { topic: letter.topic.clone(), partition: letter.partition, record: small })
}

/// The row of an error action: what failed, and the message it failed for.
pub fn failure_row(rule: &str, topic: &str, client: &str, payload: &[u8], cause: &str) -> Vec<u8> {
    let row = json!({
        "ruleName": rule,
        "topic": topic,
        "clientId": client,
        "base64OriginalPayload": STANDARD.encode(payload),
        "failures": [{"errorMessage": clip(cause)}],
    });
    row.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_clipped_between_two_characters_and_one_at_the_bound_is_whole() {
        let at_bound = "ä".repeat(CAUSE_BYTES_MAX / 2);
        assert_eq!(clip(&at_bound), at_bound);
        let clipped = clip(&format!("{at_bound}x")).into_owned();
        assert!(clipped.len() <= CAUSE_BYTES_MAX && clipped.ends_with("ä…"), "{} bytes", clipped.len());
    }

    #[test]
    fn a_letter_without_its_source_is_small_whatever_the_source_holds_and_says_what_is_missing() {
        let long = Bytes::from(vec![0x7f; 300_000]);
        let headers = [header::RULE, LEFT_OUT, "other"];
        let headers = headers.map(|name| Header { name: name.into(), value: long.clone() }).to_vec();
        let record = Record { key: Some(long.clone()), value: Some(long), headers, timestamp_ms: 7 };
        let position = drover_bus::Position { at: drover_bus::TopicPartition::new("t", 1), offset: 2 };
        let whole = dead_letter(&Stored { position, record }, None, &"why ".repeat(300_000));
        let small = without_source(&whole).expect("has its source");
        assert!(small.record.bytes() < 4 * 1_024, "{} bytes", small.record.bytes());
        assert_eq!(small.record.header(SOURCE), Some(&b"t/1/2"[..]));
        assert_eq!(small.record.header(LEFT_OUT), Some(whole.record.bytes().to_string().as_bytes()));
        assert_eq!((small.record.header(header::RULE), small.record.timestamp_ms), (None, 7));
        assert_eq!(without_source(&small), None);
    }
}
