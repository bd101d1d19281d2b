//! What is written when an action of the outbox has failed for good: a dead letter, and the rule's error action.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{Header, Outgoing, Position, Record, Stored, TopicPartition, repeats};
use drover_proto::rules::v1::OutboxEntry;
use drover_rule_sql::{LookupError, Row, UserFunctions};

use super::batch;
use super::definition::Definition;
use super::letters::{dead_letter, failure_row};
use super::output::{self, ERROR_ACTION, Emitted, Inbound};
use super::status::LastError;

/// Templates do not call functions.
struct NoFunctions;

impl UserFunctions for NoFunctions {
    fn call(&self, _: &str, _: &[String]) -> Result<Option<String>, LookupError> {
        Err(LookupError { reason: "cannot be called here".to_owned() })
    }
}

/// The message that an entry came of, as it stood in the log; of an entry without one, the entry's own record.
pub fn source_of(entry: &OutboxEntry, stored: &Stored) -> Stored {
    let Some(source) = &entry.source else { return stored.clone() };
    let at = TopicPartition::new(source.topic.as_str(), source.partition);
    let header = |h: &drover_proto::rules::v1::Header| Header {
        name: Cow::Owned(h.name.clone()),
        value: Bytes::copy_from_slice(&h.value),
    };
    let record = Record {
        key: Some(Bytes::copy_from_slice(&source.key)),
        value: Some(Bytes::copy_from_slice(&source.payload)),
        headers: source.headers.iter().map(header).collect(),
        timestamp_ms: entry.time_ms as i64,
    };
    Stored { position: Position { at, offset: source.offset }, record }
}

/// The records to write, and what the rule's status says. `rule`: as it is now, if it is there.
pub fn records(
    rule: Option<&Arc<Definition>>,
    name: &str,
    action: u32,
    source: &Stored,
    cause: &str,
) -> (Vec<Outgoing>, LastError) {
    let what = if action == ERROR_ACTION { "error action".to_owned() } else { format!("action {action}") };
    let cause = format!("{what}: {cause}");
    let mut records = vec![dead_letter(source, Some(name), Some(action), &cause)];
    let Ok(telemetry) = repeats::telemetry(source) else { return (records, LastError::of_record(source, &cause)) };
    let error = LastError::of(source, &telemetry, &cause);
    let Some((rule, then)) = rule.and_then(|rule| Some((rule, rule.error_action.as_ref()?))) else {
        return (records, error);
    };
    // An error action that fails is not followed by itself.
    if action == ERROR_ACTION {
        return (records, error);
    }
    let (topic, client) = (telemetry.topic.as_str(), telemetry.client.as_str());
    let value = Bytes::from(failure_row(name, topic, client, &telemetry.payload, &cause));
    let message = batch::message(&telemetry, &NoFunctions);
    let inbound = Inbound { source: Arc::new(source.clone()), telemetry: &telemetry, message };
    let (row, trace) = (Row::default(), telemetry.traceparent.as_ref());
    let emitted = Emitted { row: &row, value: &value, trace };
    records.push(match output::output(&inbound, rule, ERROR_ACTION, then, &emitted) {
        Ok(outgoing) => outgoing,
        Err(cause) => dead_letter(source, Some(name), Some(ERROR_ACTION), &format!("error action: {cause}")),
    });
    (records, error)
}
