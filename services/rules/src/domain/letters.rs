//! Records the engine writes besides a rule's own output: dead letters, error actions' rows and the outbox.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use drover_bus::{Header, Outgoing, Position, Record, Stored, TopicPartition};
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

/// A header whose value is text.
pub fn text_header(name: &'static str, value: &str) -> Header {
    Header { name: name.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// The full source record under its own key, with `rule` and `action` (if they are to blame), `error` and `source` in
/// headers.
pub fn dead_letter(source: &Stored, rule: Option<&str>, action: Option<u32>, cause: &str) -> Outgoing {
    let at = &source.position.at;
    let place = format!("{}/{}/{}", at.topic, at.partition, source.position.offset);
    let mut record = source.record.clone();
    record.headers.extend(rule.map(|rule| text_header(header::RULE, rule)));
    record.headers.extend(action.map(|action| text_header(ACTION, &action.to_string())));
    record.headers.extend([text_header(ERROR, cause), text_header(SOURCE, &place)]);
    Outgoing::keyed(ERRORS_TOPIC, Record { value: Some(record.value.unwrap_or_default()), ..record })
}

/// What a dead letter is about.
#[derive(Debug)]
pub struct Letter {
    pub rule: String,
    /// The one action that failed; `None`: the row.
    pub action: Option<u32>,
    /// The source record as it was.
    pub source: Stored,
}

/// Reads a dead letter; `None` if no rule is to blame, so that there is nothing to put through again.
pub fn open_letter(letter: Stored) -> Option<Letter> {
    let text = |name: &str| letter.record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let rule = text(header::RULE)?;
    let action = text(ACTION).and_then(|action| action.parse().ok());
    let place = text(SOURCE).and_then(|place| position(&place));
    let mut record = letter.record;
    record.headers.retain(|h| ![header::RULE, ACTION, ERROR, SOURCE].contains(&h.name.as_ref()));
    Some(Letter { rule, action, source: Stored { position: place.unwrap_or(letter.position), record } })
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
        "failures": [{"errorMessage": cause}],
    });
    row.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opened_letter_holds_the_source_as_it_was() {
        let headers = vec![text_header(header::TOPIC, "a/b")];
        let record = Record { key: Some("home/d".into()), value: Some("{}".into()), headers, timestamp_ms: 7 };
        let position = Position { at: TopicPartition::new("drover.telemetry", 3), offset: 12 };
        let source = Stored { position, record };
        let letter = dead_letter(&source, Some("r"), Some(2), "because");
        assert_eq!(letter.record.header(ERROR), Some(&b"because"[..]));
        let place = Position { at: TopicPartition::new(ERRORS_TOPIC, 0), offset: 1 };
        let opened = open_letter(Stored { position: place, record: letter.record }).expect("about a rule");
        assert_eq!((opened.rule.as_str(), opened.action), ("r", Some(2)));
        assert_eq!(opened.source, source);
        assert!(open_letter(source).is_none());
    }
}
