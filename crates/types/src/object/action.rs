//! What a rule does with a row: the shapes of its actions, and which of their texts are templates.

mod check;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{SQL_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::{Duration, InvalidQuantity, Qos};

/// What a rule does with a row: exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<RepublishAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<NotifyAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandAction>,
}

/// Writes the row to a Kafka topic, exactly once unless it is another cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaAction {
    pub topic: String,
    /// Template of the record key; the device where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Template of the partition's number, from 0; by the key where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Templates of header values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_topic: Option<CreateTopic>,
    /// Name of another cluster that the configuration has; then at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// How a missing output topic is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTopic {
    pub partitions: u32,
}

/// Publishes the row to an MQTT topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepublishAction {
    /// Template of the topic.
    pub topic: String,
    #[serde(default = "at_most_once")]
    #[cfg_attr(feature = "openapi", schema(value_type = u8, maximum = 1))]
    pub qos: Qos,
}

fn at_most_once() -> Qos {
    Qos::AtMostOnce
}

/// Posts the row to a URL, at least once, with its id as `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookAction {
    /// Template, but for scheme, host and port.
    pub url: String,
    /// Templates of header values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A secret whose entries are further headers, `authorization` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_from: Option<SecretRef>,
    /// A secret with the entry `hmac`: the key that signs time and body by HMAC-SHA256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SecretRef>,
    /// Template of the body; the row as JSON where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Longest wait for the whole answer, `500ms` or `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Timeout>,
    /// Sends what waits as one JSON array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// The name of a secret that the platform's operator has put into the directory of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    pub secret_ref: String,
}

/// How many rows one request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    pub records: u32,
}

/// Updates a shadow, as `UpdateThingShadow` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShadowAction {
    /// Template of the device.
    pub device: String,
    /// The classic shadow where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Texts in it are templates; one that is a single `${…}` becomes the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Value>,
    /// As `desired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Value>,
}

/// Sends a command to a device, under the id of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandAction {
    /// Template of the device.
    pub device: String,
    pub name: String,
    /// Texts in it are templates; one that is a single `${…}` becomes the value itself. Null where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// How long the device has, `30s` for example; 60s where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Timeout>,
}

/// Keeps the row in the time series of its device, under the name of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreAction {
    pub table: String,
    /// Members of the row by which rows are told apart: `device`, or none, for the device of the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Calls a function with the row, and publishes the messages it returns: `{topic, payload, qos}`, or a list of such.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionAction {
    /// Name of the function.
    #[serde(rename = "ref")]
    pub function: String,
}

/// Tells people, by mail or an incoming webhook of Slack, Teams or what understands `{"text": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotifyAction {
    /// Name of the secret with the entry `email`, addresses, or `url`, that of the webhook.
    pub channel: String,
    /// Template.
    pub text: String,
}

/// A wait in whole milliseconds, written as every duration: `500ms`, `5s`, `10m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timeout {
    pub ms: u32,
}

/// The one member of a row by which rows are told apart.
pub const DEVICE_TAG: &str = "device";

/// A text of an action that is a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateField<'a> {
    /// JSON pointer from the action: `/kafka/key`.
    pub pointer: String,
    pub text: &'a str,
}

impl TemplateField<'_> {
    /// The field as errors name it, in the action at `action`: `spec.actions[0].kafka.key`.
    pub fn name(&self, action: &str) -> String {
        format!("{action}{}", self.pointer.replace('/', "."))
    }

    /// Longest text, in bytes.
    pub fn bytes_max(&self) -> usize {
        if self.pointer == "/webhook/body" { SQL_BYTES_MAX } else { TOPIC_BYTES_MAX }
    }
}

impl Action {
    /// Its templates, in the order of its fields.
    pub fn templates(&self) -> Vec<TemplateField<'_>> {
        let mut found = Vec::new();
        let mut put = |pointer: String, text| found.push(TemplateField { pointer, text });
        if let Some(key) = self.kafka.as_ref().and_then(|kafka| kafka.key.as_ref()) {
            put("/kafka/key".to_owned(), key);
        }
        if let Some(partition) = self.kafka.as_ref().and_then(|kafka| kafka.partition.as_ref()) {
            put("/kafka/partition".to_owned(), partition);
        }
        for (name, value) in self.kafka.iter().flat_map(|kafka| &kafka.headers) {
            put(format!("/kafka/headers/{name}"), value);
        }
        if let Some(republish) = &self.republish {
            put("/republish/topic".to_owned(), &republish.topic);
        }
        if let Some(webhook) = &self.webhook {
            put("/webhook/url".to_owned(), &webhook.url);
            for (name, value) in &webhook.headers {
                put(format!("/webhook/headers/{name}"), value);
            }
            if let Some(body) = &webhook.body {
                put("/webhook/body".to_owned(), body);
            }
        }
        if let Some(notify) = &self.notify {
            put("/notify/text".to_owned(), &notify.text);
        }
        if let Some(shadow) = &self.shadow {
            put("/shadow/device".to_owned(), &shadow.device);
            for (part, state) in [("desired", &shadow.desired), ("reported", &shadow.reported)] {
                if let Some(state) = state {
                    texts(state, format!("/shadow/{part}"), &mut found);
                }
            }
        }
        if let Some(command) = &self.command {
            found.push(TemplateField { pointer: "/command/device".to_owned(), text: &command.device });
            if let Some(payload) = &command.payload {
                texts(payload, "/command/payload".to_owned(), &mut found);
            }
        }
        found
    }
}

impl StoreAction {
    /// Whether the row says whose it is.
    pub fn is_of_row(&self) -> bool {
        !self.tags.is_empty()
    }
}

/// The texts in a JSON value, by their pointers.
fn texts<'a>(value: &'a Value, pointer: String, found: &mut Vec<TemplateField<'a>>) {
    match value {
        Value::String(text) => found.push(TemplateField { pointer, text }),
        Value::Array(elements) => {
            for (i, element) in elements.iter().enumerate() {
                texts(element, format!("{pointer}/{i}"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                texts(member, format!("{pointer}/{name}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl TryFrom<String> for Timeout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wait: Duration = text.parse().map_err(|error: InvalidQuantity| error.to_string())?;
        let ms = u32::try_from(wait.as_millis()).map_err(|_| format!("{text:?} is longer than any timeout"))?;
        Ok(Self { ms })
    }
}

impl From<Timeout> for String {
    fn from(timeout: Timeout) -> Self {
        timeout.to_string()
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from_millis(self.ms.into()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(json: Value) -> Action {
        serde_json::from_value(json).expect("shape")
    }

    #[test]
    fn an_action_is_written_as_it_was_read() {
        for json in [
            json!({"webhook": {"url": "https://h/${d}", "headers": {"x-a": "b"}, "headersFrom": {"secretRef": "s"},
                "signature": {"secretRef": "s"}, "body": "${t}", "timeout": "1500ms"}}),
            json!({"webhook": {"url": "https://h", "timeout": "5s", "batch": {"records": 100}}}),
            json!({"shadow": {"device": "${d}", "name": "n", "desired": {"fan": "on"}, "reported": {"t": ["${t}"]}}}),
            json!({"store": {"table": "hot", "tags": ["device"]}}),
            json!({"function": {"ref": "decode-v2"}}),
            json!({"notify": {"channel": "ops", "text": "${d} is at ${t}"}}),
            json!({"command": {"device": "${d}", "name": "fan", "payload": {"on": ["${t > 1}", ""]}, "timeout": "30s"}}),
            json!({"command": {"device": "d", "name": "reboot"}}),
            json!({"command": {"device": "d", "name": "reboot", "timeout": "7d"}}),
            json!({"kafka": {"topic": "t", "key": "${d}", "partition": "${n % 8}", "headers": {"room": "${r}"}, "cluster": "other"}}),
        ] {
            let action = action(json.clone());
            assert_eq!(action.check("a"), Ok(()), "{json}");
            assert_eq!(serde_json::to_value(action).expect("json"), json);
        }
    }

    #[test]
    fn a_timeout_is_written_with_every_unit_that_durations_have() {
        let timeout = |text: &str| Timeout::try_from(text.to_owned());
        for (text, ms, shown) in [
            ("1500ms", 1_500, "1500ms"),
            ("60s", 60_000, "1m"),
            ("10m", 600_000, "10m"),
            ("12h", 43_200_000, "12h"),
            ("7d", 604_800_000, "7d"),
        ] {
            let read = timeout(text).expect(text);
            assert_eq!((read.ms, read.to_string().as_str()), (ms, shown));
        }
        let refused = timeout("5").expect_err("no unit");
        assert!(refused.contains("a duration with its unit, such as 250ms, 30s, 5m"), "{refused}");
        assert_eq!(timeout("50d"), Err("\"50d\" is longer than any timeout".to_owned()));
    }

    #[test]
    fn every_text_of_a_shadow_is_a_template() {
        let action = action(json!({"shadow": {"device": "${d}", "desired": {"a/b": {"c": ["x", 1, "${y}"]}}}}));
        let found: Vec<String> =
            action.templates().iter().map(|template| format!("{}={}", template.pointer, template.text)).collect();
        let texts = ["/shadow/device=${d}", "/shadow/desired/a~1b/c/0=x", "/shadow/desired/a~1b/c/2=${y}"];
        assert_eq!(found, texts);
    }
}
