//! What a Rule resource does with a row.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::any_object;

/// One action: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.kafka), has(self.republish), has(self.webhook), has(self.shadow), has(self.store), has(self.function), has(self.notify), has(self.command)].filter(x, x).size() == 1",
    "message": "an action has exactly one of kafka, republish, webhook, shadow, store, function, notify, command",
}]))]
pub struct RuleAction {
    /// Write the row to a Kafka topic, exactly once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaAction>,
    /// Publish the row to an MQTT topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<RepublishAction>,
    /// Post the row to a URL, at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookAction>,
    /// Update a device's shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowAction>,
    /// Keep the row in the time series of its device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreAction>,
    /// Call a function with the row, and publish the messages it returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionAction>,
    /// Tell people, by mail or an incoming webhook of Slack, Teams or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<NotifyAction>,
    /// Send a command to a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandAction>,
}

/// A Kafka topic as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaAction {
    /// Name of the Kafka topic; names under `drover.` are internal.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub topic: String,
    /// Record key, a template such as `${device}`; the device id where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Number of the partition, a template such as `${n % 8}`; by the key where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Record headers, templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Name of another cluster that the configuration of rules has; then at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// How the topic is made when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_topic: Option<CreateTopic>,
}

/// How a missing topic is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateTopic {
    /// Number of partitions, set once.
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: u32,
}

/// An MQTT topic as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepublishAction {
    /// MQTT topic, a template such as `alerts/${device}`.
    #[schemars(length(min = 1, max = 4096))]
    pub topic: String,
    /// Quality of service of the new message.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub qos: u8,
}

/// A URL as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAction {
    /// `https://…`, a template but for scheme, host and port.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^https?://"))]
    pub url: String,
    /// Header values, templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A secret whose entries are further headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_from: Option<SecretRef>,
    /// A secret with the entry `hmac`, the key that signs time and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SecretRef>,
    /// Body, a template; the row as JSON where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Longest wait for the whole answer, `500ms` or `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$"))]
    pub timeout: Option<String>,
    /// Send what waits as one JSON array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// The name of a secret in the platform's directory of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    #[schemars(length(min = 1, max = 128))]
    pub secret_ref: String,
}

/// How many rows one request may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    #[schemars(range(min = 1, max = 500))]
    pub records: u32,
}

/// A shadow as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShadowAction {
    /// Device, a template such as `${device}`.
    #[schemars(length(min = 1, max = 4096))]
    pub device: String,
    /// Name of the shadow; the classic one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Merged into the wanted state; texts in it are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub desired: Option<serde_json::Value>,
    /// Merged into the reported state; texts in it are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub reported: Option<serde_json::Value>,
}

/// A device as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandAction {
    /// Device, a template such as `${device}`.
    #[schemars(length(min = 1, max = 4096))]
    pub device: String,
    /// What the device is to do.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._:-]+$"))]
    pub name: String,
    /// What it needs for that, any JSON; texts in it are templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub payload: Option<serde_json::Value>,
    /// How long the device has, `30s` for example; 60s where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$"))]
    pub timeout: Option<String>,
}

/// JSON of any type, kept as it is.
fn any_value(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A table of the time series as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreAction {
    /// Name of the table.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub table: String,
    /// Members of the row by which rows are told apart: `device`, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1))]
    pub tags: Vec<String>,
}

/// A function as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionAction {
    /// Name of the function.
    #[serde(rename = "ref")]
    #[schemars(length(min = 1, max = 253))]
    pub function: String,
}

/// People as the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotifyAction {
    /// Name of the secret with the entry `email`, addresses, or `url`, that of the webhook.
    #[schemars(length(min = 1, max = 128))]
    pub channel: String,
    /// Text, a template.
    #[schemars(length(min = 1, max = 4096))]
    pub text: String,
}
