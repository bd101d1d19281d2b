//! An action of the outbox that has failed for good: a dead letter, and the rule's error action.

use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{Position, Record, Stored, TopicPartition, repeats};
use drover_proto::rules::v1::OutboxEntry;
use drover_rule_sql::{LookupError, Lookups, UserFunctions};
use drover_types::TenantId;

use super::super::message::message;
use super::super::output::{ERROR_ACTION, Inbound};
use super::super::rule_set::RuleSet;
use super::super::status::LastError;
use super::super::view::{Lookup, Views};
use super::super::window;
use super::Batch;

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
    let record = Record {
        key: Some(Bytes::copy_from_slice(&source.key)),
        value: Some(Bytes::copy_from_slice(&source.payload)),
        headers: source.headers.iter().map(|header| (&header.name, &header.value)).collect(),
        timestamp_ms: came_ms(entry, stored),
    };
    Stored { position: Position { at, offset: source.offset }, record }
}

/// When the message of an entry came, in milliseconds since the Unix epoch: what comes of the entry is as old. The entry's
/// own record has the time when it was written.
pub fn came_ms(entry: &OutboxEntry, stored: &Stored) -> i64 {
    let came_ms = entry.source.as_ref().map_or(0, |source| source.timestamp_ms);
    if came_ms == 0 { stored.record.timestamp_ms } else { came_ms }
}

impl Batch {
    /// An entry that has failed. `rules`: those of now, of which its rule may have gone.
    pub fn fail_entry(&mut self, entry: &OutboxEntry, stored: &Stored, cause: &str, rules: &RuleSet, views: &Views) {
        let (source, action) = (Arc::new(source_of(entry, stored)), entry.action);
        let what = if action == ERROR_ACTION { "error action".to_owned() } else { format!("action {action}") };
        let cause = format!("{what}: {cause}");
        let key = TenantId::new(&entry.tenant).ok().map(|tenant| (tenant, entry.rule.clone()));
        let telemetry = repeats::telemetry(&source);
        if let (Some(rule), Ok(telemetry)) = (key.as_ref().and_then(|key| rules.get(key)), &telemetry) {
            let lookup = Lookup { views, tenant: &telemetry.tenant, device: telemetry.device.as_str() };
            let of_window = telemetry.topic.as_str() == window::TOPIC;
            let lookups: Option<&dyn Lookups> = if of_window { None } else { Some(&lookup) };
            let message = message(telemetry, &NoFunctions, lookups);
            return self.fail(&Inbound { source, telemetry, message }, rule, Some(action), &cause);
        }
        if let Some(key) = &key {
            let error = match &telemetry {
                Ok(telemetry) => LastError::of(&source, telemetry, &cause),
                Err(_) => LastError::of_record(&source, &cause),
            };
            self.failed(key, Some(action), error);
        }
        self.bury(source, Some(&entry.rule), Some(action), &cause);
    }
}
