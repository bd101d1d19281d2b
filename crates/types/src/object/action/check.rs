//! What is wrong with an action, found without looking at its templates or at anything outside.

use serde_json::Value;

use super::{Action, CommandAction, DEVICE_TAG, KafkaAction, ShadowAction, StoreAction, Timeout, WebhookAction};
use crate::command::CommandName;
use crate::limits::{
    BATCH_RECORDS_MAX, COMMAND_PAYLOAD_BYTES_MAX, COMMAND_TIMEOUT_MS_MAX, COMMAND_TIMEOUT_MS_MIN,
    HEADERS_PER_ACTION_MAX, PARTITIONS_MAX, SHADOW_DEPTH_MAX, SHADOW_NAME_BYTES_MAX, SHADOW_STATE_BYTES_MAX,
    WEBHOOK_TIMEOUT_MS_MAX, WEBHOOK_TIMEOUT_MS_MIN,
};
use crate::{ApiError, Duration, Qos};

/// Names of the actions, for messages.
const KINDS: &str = "kafka, republish, webhook, shadow, store, function, notify, command";
/// Headers that the platform writes itself.
const OWN_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];
/// Headers of records that the platform writes itself.
const OWN_RECORD_HEADERS: [&str; 4] = ["id", "rule", "time", "traceparent"];
/// Headers that are secrets.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
/// Longest name of a secret, in bytes.
const SECRET_NAME_BYTES_MAX: usize = 128;
/// Longest name of a table, in bytes.
const TABLE_BYTES_MAX: usize = 64;

impl Action {
    /// Checks that it is exactly one action, and sound; `field` is where it stands.
    pub(in crate::object) fn check(&self, field: &str) -> Result<(), ApiError> {
        let given = [
            self.kafka.is_some(),
            self.republish.is_some(),
            self.webhook.is_some(),
            self.shadow.is_some(),
            self.store.is_some(),
            self.function.is_some(),
            self.notify.is_some(),
            self.command.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(ApiError::invalid(field, format!("an action has exactly one of {KINDS}")));
        }
        if let Some(kafka) = &self.kafka {
            kafka.check(&format!("{field}.kafka"))?;
        }
        if self.republish.as_ref().is_some_and(|republish| republish.qos == Qos::ExactlyOnce) {
            return Err(ApiError::invalid(format!("{field}.republish.qos"), "republish has qos 0 or 1"));
        }
        if let Some(webhook) = &self.webhook {
            webhook.check(&format!("{field}.webhook"))?;
        }
        if let Some(shadow) = &self.shadow {
            shadow.check(&format!("{field}.shadow"))?;
        }
        if let Some(store) = &self.store {
            store.check(&format!("{field}.store"))?;
        }
        if let Some(notify) = &self.notify {
            secret_name(&format!("{field}.notify.channel"), &notify.channel)?;
        }
        if let Some(command) = &self.command {
            command.check(&format!("{field}.command"))?;
        }
        for template in self.templates() {
            let (bytes, limit) = (template.text.len(), template.bytes_max());
            // Empty texts mean something as headers, in shadows and in commands.
            let may_be_empty = template.pointer.starts_with("/shadow/") && template.pointer != "/shadow/device"
                || template.pointer.starts_with("/command/payload")
                || template.pointer.starts_with("/webhook/headers/")
                || template.pointer.starts_with("/kafka/headers/");
            if bytes > limit || bytes == 0 && !may_be_empty {
                let message = format!("a template has 1 to {limit} bytes");
                return Err(ApiError::invalid(template.name(field), message).over(limit, bytes));
            }
        }
        Ok(())
    }
}

impl KafkaAction {
    fn check(&self, field: &str) -> Result<(), ApiError> {
        let topic = &self.topic;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = format!("{field}.topic");
        if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(legal) {
            return Err(ApiError::invalid(name, "a topic has 1 to 249 of A-Z, a-z, 0-9 and . _ -").over(249, topic));
        }
        if topic.starts_with("drover.") {
            return Err(ApiError::invalid(name, "topics under drover. are internal").over("not drover.*", topic));
        }
        let partition = self.partition.as_deref().filter(|partition| !partition.contains("${"));
        if let Some(partition) = partition.filter(|partition| !is_partition(partition)) {
            let refused =
                ApiError::invalid(format!("{field}.partition"), "a partition is a number, or a template of one");
            return Err(refused.over(PARTITIONS_MAX - 1, partition));
        }
        if self.headers.len() > HEADERS_PER_ACTION_MAX {
            let refused = ApiError::invalid(format!("{field}.headers"), "too many headers");
            return Err(refused.over(HEADERS_PER_ACTION_MAX, self.headers.len()));
        }
        for name in self.headers.keys() {
            check_header_name(&format!("{field}.headers.{name}"), name)?;
            if OWN_RECORD_HEADERS.contains(&name.as_str()) {
                return Err(ApiError::invalid(
                    format!("{field}.headers.{name}"),
                    "the platform writes this header itself",
                ));
            }
        }
        if let Some(cluster) = &self.cluster {
            secret_name(&format!("{field}.cluster"), cluster)?;
            if self.create_topic.is_some() {
                return Err(ApiError::invalid(
                    format!("{field}.createTopic"),
                    "topics of another cluster are not made",
                ));
            }
        }
        match &self.create_topic {
            Some(create) if create.partitions == 0 || create.partitions > PARTITIONS_MAX => {
                Err(ApiError::invalid("createTopic.partitions", "partitions out of range")
                    .over(PARTITIONS_MAX, create.partitions))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a text is the number of a partition that some topic may have.
fn is_partition(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|partition| partition < PARTITIONS_MAX)
}

impl WebhookAction {
    fn check(&self, field: &str) -> Result<(), ApiError> {
        check_address(&format!("{field}.url"), &self.url)?;
        if self.headers.len() > HEADERS_PER_ACTION_MAX {
            let refused = ApiError::invalid(format!("{field}.headers"), "too many headers");
            return Err(refused.over(HEADERS_PER_ACTION_MAX, self.headers.len()));
        }
        for name in self.headers.keys() {
            check_header(&format!("{field}.headers.{name}"), name)?;
        }
        for (part, secret) in [("headersFrom", &self.headers_from), ("signature", &self.signature)] {
            if let Some(secret) = secret {
                secret_name(&format!("{field}.{part}.secretRef"), &secret.secret_ref)?;
            }
        }
        let (shortest, longest) = (WEBHOOK_TIMEOUT_MS_MIN.into(), WEBHOOK_TIMEOUT_MS_MAX.into());
        check_timeout(&format!("{field}.timeout"), self.timeout, shortest, longest)?;
        let records = self.batch.map_or(1, |batch| batch.records);
        if !(1..=BATCH_RECORDS_MAX).contains(&records) {
            let message = format!("a batch has 1 to {BATCH_RECORDS_MAX} records");
            return Err(ApiError::invalid(format!("{field}.batch.records"), message).over(BATCH_RECORDS_MAX, records));
        }
        if self.batch.is_some() && (self.url.contains("${") || self.headers.values().any(|v| v.contains("${"))) {
            return Err(ApiError::invalid(
                format!("{field}.batch"),
                "a batch goes to one address with one set of headers: no ${…} in them",
            ));
        }
        Ok(())
    }
}

/// Scheme, host and port must not come from a message, and a password has no place in a rule.
fn check_address(field: &str, url: &str) -> Result<(), ApiError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(ApiError::invalid(
            field,
            "a webhook's url begins with https:// (or http://, where that is allowed)",
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains(['$', '{', '}', '@', ' ']) {
        return Err(ApiError::invalid(field, "scheme, host and port are fixed, without user, password or ${…}"));
    }
    Ok(())
}

fn check_header(field: &str, name: &str) -> Result<(), ApiError> {
    check_header_name(field, name)?;
    let is_one_of = |names: &[&str]| names.iter().any(|own| own.eq_ignore_ascii_case(name));
    if is_one_of(&OWN_HEADERS) {
        return Err(ApiError::invalid(field, "the platform writes this header itself"));
    }
    if is_one_of(&SECRET_HEADERS) {
        return Err(ApiError::invalid(field, "a secret does not stand in a rule: use headersFrom"));
    }
    Ok(())
}

fn check_header_name(field: &str, name: &str) -> Result<(), ApiError> {
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 128 || !name.chars().all(token) {
        return Err(ApiError::invalid(field, "a header's name has 1 to 128 of A-Z, a-z, 0-9 and - _").over(128, name));
    }
    Ok(())
}

/// Names of secrets are names of directories: none leads out of its parent.
fn secret_name(field: &str, name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > SECRET_NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(legal) {
        let message =
            format!("a secret's name has 1 to {SECRET_NAME_BYTES_MAX} of A-Z, a-z, 0-9 and . _ -, no dot in front");
        return Err(ApiError::invalid(field, message).over(SECRET_NAME_BYTES_MAX, name));
    }
    Ok(())
}

impl ShadowAction {
    fn check(&self, field: &str) -> Result<(), ApiError> {
        if self.desired.is_none() && self.reported.is_none() {
            return Err(ApiError::invalid(field, "a shadow action has desired, reported or both"));
        }
        let name = self.name.as_deref().unwrap_or_default();
        if name.len() > SHADOW_NAME_BYTES_MAX {
            let message = format!("a shadow's name has at most {SHADOW_NAME_BYTES_MAX} bytes");
            return Err(ApiError::invalid(format!("{field}.name"), message).over(SHADOW_NAME_BYTES_MAX, name.len()));
        }
        for (part, state) in [("desired", &self.desired), ("reported", &self.reported)] {
            let Some(state) = state else { continue };
            let field = format!("{field}.{part}");
            if !state.is_object() {
                return Err(ApiError::invalid(field, "is an object"));
            }
            if depth(state) > SHADOW_DEPTH_MAX {
                return Err(ApiError::invalid(field, "is nested too deep").over(SHADOW_DEPTH_MAX, depth(state)));
            }
            let bytes = state.to_string().len();
            if bytes > SHADOW_STATE_BYTES_MAX {
                return Err(ApiError::invalid(field, "is too large").over(SHADOW_STATE_BYTES_MAX, bytes));
            }
        }
        Ok(())
    }
}

impl CommandAction {
    fn check(&self, field: &str) -> Result<(), ApiError> {
        CommandName::new(&self.name).map_err(|error| ApiError::invalid(format!("{field}.name"), error.to_string()))?;
        let bytes = self.payload.as_ref().map_or(0, |payload| payload.to_string().len());
        if bytes > COMMAND_PAYLOAD_BYTES_MAX {
            let refused = ApiError::invalid(format!("{field}.payload"), "is too large");
            return Err(refused.over(COMMAND_PAYLOAD_BYTES_MAX, bytes));
        }
        check_timeout(&format!("{field}.timeout"), self.timeout, COMMAND_TIMEOUT_MS_MIN, COMMAND_TIMEOUT_MS_MAX)
    }
}

/// Refuses a timeout outside of these bounds, in milliseconds; the error names the nearer one.
fn check_timeout(field: &str, timeout: Option<Timeout>, shortest_ms: u64, longest_ms: u64) -> Result<(), ApiError> {
    let Some(given) = timeout.map(|timeout| Duration::from_millis(timeout.ms.into())) else { return Ok(()) };
    let (shortest, longest) = (Duration::from_millis(shortest_ms), Duration::from_millis(longest_ms));
    if (shortest..=longest).contains(&given) {
        return Ok(());
    }
    let refused = ApiError::invalid(field, format!("a timeout is {shortest} to {longest}"));
    Err(refused.over(if given < shortest { shortest } else { longest }, given))
}

impl StoreAction {
    fn check(&self, field: &str) -> Result<(), ApiError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if self.table.is_empty() || self.table.len() > TABLE_BYTES_MAX || !self.table.chars().all(legal) {
            let message = format!("a table's name has 1 to {TABLE_BYTES_MAX} of A-Z, a-z, 0-9 and _ -");
            return Err(ApiError::invalid(format!("{field}.table"), message).over(TABLE_BYTES_MAX, &self.table));
        }
        match self.tags.as_slice() {
            [] => Ok(()),
            [tag] if tag == DEVICE_TAG => Ok(()),
            other => Err(ApiError::invalid(format!("{field}.tags"), "rows are told apart by device only")
                .over(DEVICE_TAG, other.join(", "))),
        }
    }
}

/// Levels of objects and arrays; 0 for a scalar.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(json: Value) -> Action {
        serde_json::from_value(json).expect("shape")
    }

    fn refused(json: Value) -> String {
        action(json).check("a").expect_err("refused").field.expect("a field")
    }

    #[test]
    fn what_is_wrong_with_an_action_is_named() {
        let webhook = |key: &str, value: Value| {
            let mut webhook = json!({"url": "https://h"});
            webhook[key] = value;
            json!({"webhook": webhook})
        };
        for (json, field) in [
            (json!({}), "a"),
            (json!({"function": {"ref": "f"}, "notify": {"channel": "c", "text": "t"}}), "a"),
            (webhook("url", json!("ftp://h")), "a.webhook.url"),
            (webhook("url", json!("https://${h}/x")), "a.webhook.url"),
            (webhook("url", json!("https://me:secret@h/x")), "a.webhook.url"),
            (webhook("headers", json!({"Authorization": "Bearer x"})), "a.webhook.headers.Authorization"),
            (webhook("headers", json!({"Host": "x"})), "a.webhook.headers.Host"),
            (webhook("headers", json!({"a b": "x"})), "a.webhook.headers.a b"),
            (webhook("headersFrom", json!({"secretRef": "../x"})), "a.webhook.headersFrom.secretRef"),
            (webhook("signature", json!({"secretRef": "..x"})), "a.webhook.signature.secretRef"),
            (webhook("timeout", json!("31s")), "a.webhook.timeout"),
            (webhook("batch", json!({"records": 0})), "a.webhook.batch.records"),
            (webhook("batch", json!({"records": 501})), "a.webhook.batch.records"),
            (webhook("body", json!("")), "a.webhook.body"),
            (json!({"webhook": {"url": "https://h/${x}", "batch": {"records": 2}}}), "a.webhook.batch"),
            (json!({"kafka": {"topic": "t", "headers": {"id": "x"}}}), "a.kafka.headers.id"),
            (json!({"kafka": {"topic": "t", "partition": "-1"}}), "a.kafka.partition"),
            (json!({"kafka": {"topic": "t", "partition": "1024"}}), "a.kafka.partition"),
            (json!({"kafka": {"topic": "t", "cluster": ".."}}), "a.kafka.cluster"),
            (json!({"kafka": {"topic": "t", "cluster": "o", "createTopic": {"partitions": 1}}}), "a.kafka.createTopic"),
            (json!({"store": {"table": "a b"}}), "a.store.table"),
            (json!({"store": {"table": "a", "tags": ["device", "room"]}}), "a.store.tags"),
            (json!({"shadow": {"device": "d"}}), "a.shadow"),
            (json!({"shadow": {"device": "d", "desired": 1}}), "a.shadow.desired"),
            (json!({"shadow": {"device": "", "desired": {}}}), "a.shadow.device"),
            (json!({"command": {"device": "d", "name": "a b"}}), "a.command.name"),
            (json!({"command": {"device": "", "name": "fan"}}), "a.command.device"),
            (json!({"command": {"device": "d", "name": "fan", "timeout": "999ms"}}), "a.command.timeout"),
            (json!({"command": {"device": "d", "name": "fan", "timeout": "604801s"}}), "a.command.timeout"),
            (json!({"command": {"device": "d", "name": "fan", "timeout": "8d"}}), "a.command.timeout"),
            (webhook("timeout", json!("1m")), "a.webhook.timeout"),
            (json!({"command": {"device": "d", "name": "fan", "payload": "x".repeat(65_536)}}), "a.command.payload"),
            (json!({"notify": {"channel": "a/b", "text": "t"}}), "a.notify.channel"),
            (json!({"notify": {"channel": "c", "text": "t".repeat(4_097)}}), "a.notify.text"),
        ] {
            assert_eq!(refused(json.clone()), field, "{json}");
        }
        assert!(serde_json::from_value::<Action>(webhook("timeout", json!("5"))).is_err());
        let short = json!({"command": {"device": "d", "name": "fan", "timeout": "999ms"}});
        let short = action(short).check("a").expect_err("refused");
        assert_eq!((short.limit.as_deref(), short.value.as_deref()), (Some("1s"), Some("999ms")));
    }
}
