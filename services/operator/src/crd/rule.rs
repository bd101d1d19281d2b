//! The Rule resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, RuleAction};

/// A rule: SQL over every message of the tenant, and what is done with each row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "Rule",
    namespaced,
    doc = "A rule: SQL over every message of the tenant, and what is done with each row.",
    status = "RuleStatus",
    shortname = "drule",
    category = "drover",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.status==\"False\")].reason"}"#,
    printcolumn = r#"{"name":"Matched","type":"string","jsonPath":".status.matched"}"#,
    printcolumn = r#"{"name":"Failed","type":"string","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"Lag","type":"string","jsonPath":".status.lag"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct RuleSpec {
    /// `SELECT … FROM 'topic/filter' WHERE …`; bare names are fields of the payload.
    #[schemars(length(min = 1, max = 65536))]
    pub sql: String,
    /// What is done with each row, in this order.
    #[schemars(length(min = 1, max = 10))]
    pub actions: Vec<RuleAction>,
    /// What is done with a message whose row or action failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_action: Option<RuleAction>,
}

/// How the rule is doing; its numbers are brought up to date at most once in ten minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// `Accepted`: it compiles, and the registry has it. `Ready`: the rules service runs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Messages for which the condition was true since the rules service started, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
    /// Records handed to outputs, one for each action of a row, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted: Option<String>,
    /// Messages whose row or action failed, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Messages left out because their window had been closed, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// Messages not yet evaluated, a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Age of the oldest message not yet evaluated, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<RuleLastError>,
}

/// The last message that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleLastError {
    /// RFC 3339 time.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
    pub message: String,
    /// MQTT topic of the message.
    pub topic: String,
    /// The beginning of its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// Where it stands in the log, `topic/partition/offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One shape for files, REST and kubectl: what a CRD holds, the platform's own type reads, and back.
    #[test]
    fn the_resource_has_the_shape_of_the_declared_object() {
        let json = serde_json::json!({
            "sql": "SELECT * FROM 'a'",
            "actions": [
                {"kafka": {"topic": "t", "key": "${device}", "partition": "1", "createTopic": {"partitions": 2}}},
                {"republish": {"topic": "b", "qos": 1}},
                {"webhook": {"url": "https://h", "headers": {"a": "b"}, "headersFrom": {"secretRef": "s"},
                    "signature": {"secretRef": "s"}, "body": "b", "timeout": "5s", "batch": {"records": 2}}},
                {"shadow": {"device": "${d}", "name": "n", "desired": {"fan": "on"}, "reported": {"t": 1}}},
                {"store": {"table": "hot", "tags": ["device"]}},
                {"function": {"ref": "f"}},
                {"notify": {"channel": "ops", "text": "t"}},
                {"command": {"device": "${d}", "name": "fan", "payload": [1, "${t}"], "timeout": "30s"}},
            ],
            "errorAction": {"kafka": {"topic": "e"}},
        });
        let resource: RuleSpec = serde_json::from_value(json.clone()).expect("resource");
        let object: drover_types::object::RuleSpec = serde_json::from_value(json.clone()).expect("object");
        assert_eq!(serde_json::to_value(resource).expect("json"), json);
        assert_eq!(serde_json::to_value(object).expect("json"), json);
    }
}
