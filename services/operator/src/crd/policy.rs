//! The Policy resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// A policy: what the devices that name it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    namespaced,
    doc = "A policy: what the devices that name it may do. Deny wins over allow; what no statement allows is denied.",
    status = "PolicyStatus",
    shortname = "dpol",
    category = "drover",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name != 'default'").message("the policy default is built in: choose another name"),
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.status==\"False\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct PolicySpec {
    /// What is allowed and what is denied.
    #[schemars(length(max = 64))]
    pub statements: Vec<PolicyStatement>,
}

/// One line of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatement {
    /// Whether it allows or denies.
    pub effect: PolicyEffect,
    /// What it speaks about.
    #[schemars(length(min = 1, max = 4))]
    pub actions: Vec<PolicyAction>,
    /// For `connect`: client ids; for `publishFor`: devices; in both `*` stands for any text. For `publish` and
    /// `subscribe`: topic filters. `${device}` and `${client}` stand for the ids of who asks.
    #[schemars(length(min = 1, max = 256))]
    pub resources: Vec<String>,
}

/// Whether a statement allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyEffect {
    Allow,
    Deny,
}

/// What a policy speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyAction {
    Connect,
    Publish,
    Subscribe,
    PublishFor,
}

/// Whether the policy is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// `Accepted`: the registry has the policy as it is declared. `Ready`: it is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_has_the_shape_of_the_declared_object() {
        let json = serde_json::json!({"statements": [
            {"effect": "deny", "actions": ["connect", "publish", "subscribe"], "resources": ["a/${device}/#"]},
            {"effect": "allow", "actions": ["publishFor"], "resources": ["lora-*"]},
        ]});
        let resource: PolicySpec = serde_json::from_value(json.clone()).expect("resource");
        let object: drover_types::object::PolicySpec = serde_json::from_value(json.clone()).expect("object");
        assert_eq!(serde_json::to_value(resource).expect("json"), json);
        assert_eq!(serde_json::to_value(object).expect("json"), json);
    }
}
