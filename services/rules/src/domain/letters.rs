//! Records the engine writes besides a rule's own output: dead letters, error actions' rows and the outbox.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use drover_bus::{Headers, Outgoing, Position, Record, Stored, TopicPartition};
use drover_types::header;
use serde_json::json;

/// Dead letters: the source record with the rule and the cause in headers.
pub const ERRORS_TOPIC: &str = "drover.rules.errors";
/// Actions that are not Kafka outputs, run by a group of their own.
pub const OUTBOX_TOPIC: &str = "drover.rules.outbox";

/// What actions that are behind have done.
pub const RETRY_TOPIC: &str = "drover.rules.retry";

/// Header of a dead letter: number of the action that failed.
const ACTION: &str = "action";
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

/// The cause, or its beginning and an ellipsis: [`CAUSE_BYTES_MAX`] bytes at most.
pub fn clip(cause: &str) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if cause.len() <= CAUSE_BYTES_MAX {
        return Cow::Borrowed(cause);
    }
    let end = cause.floor_char_boundary(CAUSE_BYTES_MAX - ELLIPSIS.len());
    Cow::Owned(format!("{}{ELLIPSIS}", &cause[..end]))
}

/// The full source record under its own key, with `rule` and `action` (if they are to blame), `error` and `source` in
/// headers.
pub fn dead_letter(source: &Stored, rule: Option<&str>, action: Option<u32>, cause: &str) -> Outgoing {
    let at = &source.position.at;
    let place = format!("{}/{}/{}", at.topic, at.partition, source.position.offset);
    let mut record = source.record.clone();
    record.headers.extend(rule.map(|rule| (header::RULE, rule)));
    record.headers.extend(action.map(|action| (ACTION, action.to_string())));
    record.headers.extend([(ERROR, &*clip(cause)), (SOURCE, &*place)]);
    Outgoing::keyed(ERRORS_TOPIC, Record { value: Some(record.value.unwrap_or_default()), ..record })
}

/// A dead letter that the log finds too large, without its source's value and headers: some kilobytes at most. `None`: it
/// is without them already.
pub fn without_source(letter: &Outgoing) -> Option<Outgoing> {
    let record = &letter.record;
    if is_without_source(record) {
        return None;
    }
    let mut headers = Headers::default();
    for name in [header::TENANT, header::RULE, ACTION, ERROR, SOURCE] {
        let value = record.header(name).filter(|value| value.len() <= CAUSE_BYTES_MAX);
        headers.extend(value.map(|value| (name, value)));
    }
    headers.push(LEFT_OUT, record.bytes().to_string().as_bytes());
    let key = record.key.as_ref().map(|key| key.slice(..key.len().min(KEY_BYTES_MAX)));
    let small = Record { key, value: Some(Bytes::new()), headers, timestamp_ms: record.timestamp_ms };
    Some(Outgoing { topic: letter.topic.clone(), partition: letter.partition, record: small })
}

/// Whether a dead letter has lost its source. That may have a header of this name, but not behind those of the letter.
fn is_without_source(letter: &Record) -> bool {
    letter.headers.iter().last().is_some_and(|(name, _)| name == LEFT_OUT)
}

/// What a dead letter is about.
#[derive(Debug)]
pub struct Letter {
    pub rule: String,
    /// The one action that failed; `None`: the row.
    pub action: Option<u32>,
    /// The source record as it was; `None`: the letter has lost it, being too large for the log.
    pub source: Option<Stored>,
}

/// Reads a dead letter; `None` if no rule is to blame, so that there is nothing to put through again.
pub fn open_letter(letter: Stored) -> Option<Letter> {
    let text = |name: &str| letter.record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let rule = text(header::RULE)?;
    let action = text(ACTION).and_then(|action| action.parse().ok());
    if is_without_source(&letter.record) {
        return Some(Letter { rule, action, source: None });
    }
    let place = text(SOURCE).and_then(|place| position(&place));
    let mut record = letter.record;
    record.headers.retain(|name| ![header::RULE, ACTION, ERROR, SOURCE].contains(&name));
    let source = Stored { position: place.unwrap_or(letter.position), record };
    Some(Letter { rule, action, source: Some(source) })
}

/// `topic/partition/offset`.
fn position(place: &str) -> Option<Position> {
    let (rest, offset) = place.rsplit_once('/')?;
    let (topic, partition) = rest.rsplit_once('/')?;
    Some(Position { at: TopicPartition::new(topic, partition.parse().ok()?), offset: offset.parse().ok()? })
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
    fn an_opened_letter_holds_the_source_as_it_was() {
        let headers = [(header::TOPIC, "a/b")].into();
        let record = Record { key: Some("home/d".into()), value: Some("{}".into()), headers, timestamp_ms: 7 };
        let position = Position { at: TopicPartition::new("drover.telemetry", 3), offset: 12 };
        let source = Stored { position, record };
        let letter = dead_letter(&source, Some("r"), Some(2), "because");
        assert_eq!(letter.record.header(ERROR), Some(&b"because"[..]));
        let opened = open_letter(in_log(letter.record)).expect("about a rule");
        assert_eq!((opened.rule.as_str(), opened.action), ("r", Some(2)));
        assert_eq!(opened.source.as_ref(), Some(&source));
        assert!(open_letter(source).is_none());
    }

    /// As it is read.
    fn in_log(record: Record) -> Stored {
        Stored { position: Position { at: TopicPartition::new(ERRORS_TOPIC, 0), offset: 1 }, record }
    }

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
        let headers = headers.map(|name| (name, &long)).into();
        let record = Record { key: Some(long.clone()), value: Some(long), headers, timestamp_ms: 7 };
        let source = Stored { position: Position { at: TopicPartition::new("t", 1), offset: 2 }, record };
        let whole = dead_letter(&source, None, None, &"why ".repeat(300_000));
        let small = without_source(&whole).expect("has its source");
        assert!(small.record.bytes() < 4 * 1_024, "{} bytes", small.record.bytes());
        assert_eq!(small.record.header(SOURCE), Some(&b"t/1/2"[..]));
        assert_eq!(small.record.header(LEFT_OUT), Some(whole.record.bytes().to_string().as_bytes()));
        assert_eq!((small.record.header(header::RULE), small.record.timestamp_ms), (None, 7));
        assert_eq!(without_source(&small), None);
    }

    #[test]
    fn a_letter_without_its_source_says_whose_it_is_and_that_there_is_no_message() {
        let headers = [(header::TENANT, "home")].into();
        let record = Record { value: Some("{}".into()), headers, ..Record::default() };
        let source = Stored { position: Position { at: TopicPartition::new("t", 1), offset: 2 }, record };
        let small = without_source(&dead_letter(&source, Some("r"), Some(2), "because")).expect("has its source");
        assert_eq!(small.record.header(header::TENANT), Some(&b"home"[..]));
        let opened = open_letter(in_log(small.record)).expect("about a rule");
        assert_eq!((opened.rule.as_str(), opened.action, opened.source), ("r", Some(2), None));
    }
}
