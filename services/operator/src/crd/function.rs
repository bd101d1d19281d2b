//! The Function resource.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// A function in JavaScript: rules call it in their SQL, and other systems as an adapter by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "Function",
    namespaced,
    doc = "A function in JavaScript: rules call it in their SQL, and other systems as an adapter by HTTP.",
    status = "FunctionStatus",
    shortname = "dfn",
    category = "drover",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.matches('^[a-z][a-z0-9-]*$')").message("a function's name has no dots and begins with a letter, for SQL calls it"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.status==\"False\")].reason"}"#,
    printcolumn = r#"{"name":"Routine","type":"string","jsonPath":".spec.routine"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct FunctionSpec {
    /// A classic script in JavaScript, as The Things Network has them: no modules, no I/O.
    #[schemars(length(min = 1, max = 262144))]
    pub source: String,
    /// The function of the script that is called.
    #[serde(default = "main")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_$][A-Za-z0-9_$]*$"))]
    pub routine: String,
    /// What it answers; a function that answers otherwise is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub examples: Vec<FunctionExample>,
}

fn main() -> String {
    "main".to_owned()
}

/// One call and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionExample {
    /// What it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Another function of the script than that of the spec: `encodeDownlink`, for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_$][A-Za-z0-9_$]*$"))]
    pub routine: Option<String>,
    /// The one argument, any JSON; null where absent, as some clients leave nulls out.
    #[serde(default)]
    #[schemars(schema_with = "any")]
    pub input: serde_json::Value,
    /// What it returns, any JSON; null where absent.
    #[serde(default)]
    #[schemars(schema_with = "any")]
    pub output: serde_json::Value,
}

fn any(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// Whether the function can be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// `Accepted`: its script runs and answers as its examples say, and the registry has it. `Ready`: it can be called.
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
        let json = serde_json::json!({
            "source": "function decodeUplink(input) { return null; }", "routine": "decodeUplink",
            "examples": [
                {"description": "a reading", "input": {"bytes": [1], "fPort": 1}, "output": null},
                {"routine": "encodeDownlink", "input": [1, "a"], "output": 2.5},
            ],
        });
        let resource: FunctionSpec = serde_json::from_value(json.clone()).expect("resource");
        let object: drover_types::object::FunctionSpec = serde_json::from_value(json.clone()).expect("object");
        assert_eq!(serde_json::to_value(resource).expect("json"), json);
        assert_eq!(serde_json::to_value(object).expect("json"), json);
        // A patch by merge takes nulls away.
        let bare: FunctionExample = serde_json::from_value(serde_json::json!({})).expect("nulls");
        assert_eq!(serde_json::to_value(bare).expect("json"), serde_json::json!({"input": null, "output": null}));
        let short = serde_json::json!({"source": "function main() {}"});
        let resource: FunctionSpec = serde_json::from_value(short.clone()).expect("resource");
        let object: drover_types::object::FunctionSpec = serde_json::from_value(short).expect("object");
        assert_eq!(resource.routine, object.routine);
    }
}
