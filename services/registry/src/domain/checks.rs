//! What names, labels, attributes and policies may look like, and how much of them there may be.

use std::collections::BTreeMap;

use drover_types::limits::LABEL_BYTES_MAX;
use drover_types::object::{DEFAULT_POLICY, DeviceSpec, PolicyAction, PolicySpec};
use drover_types::{ApiError, DeviceId, TopicFilter, key, subdomain};

/// Most labels of an object, and most attributes of a device.
const ENTRIES_MAX: usize = 64;
/// Longest value of an attribute, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 1_024;
/// Most policies of a device; each is a read when it connects.
const POLICIES_PER_DEVICE_MAX: usize = 16;
/// Most statements of a policy.
const STATEMENTS_MAX: usize = 64;
/// Most bytes of all resources of a policy: every connection of its devices holds them.
const RESOURCES_BYTES_MAX: usize = 16 * 1024;

/// A device's name is its id.
pub fn device_name(name: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(name).map_err(|e| ApiError::invalid("metadata.name", e.to_string()))
}

/// A name as SQL can call it, with `_` for each `-`, and as a path can say it.
pub fn function_name(name: &str) -> Result<(), ApiError> {
    subdomain("metadata.name", name)?;
    if name.contains('.') || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        let message = "a function's name has no dots and begins with a letter, for SQL calls it";
        return Err(ApiError::invalid("metadata.name", message).over("a-z, 0-9, -", name));
    }
    if drover_rule_sql::is_built_in(&name.replace('-', "_")) {
        let message = "SQL has a function of this name of its own";
        return Err(ApiError::invalid("metadata.name", message).over("not built in", name));
    }
    Ok(())
}

/// Labels of any object.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), ApiError> {
    entries("metadata.labels", labels, LABEL_BYTES_MAX)
}

/// Everything in a device's spec but that its policies exist.
pub fn device(spec: &DeviceSpec) -> Result<(), ApiError> {
    entries("spec.attributes", &spec.attributes, ATTRIBUTE_BYTES_MAX)?;
    if let Some(name) = &spec.device_type {
        key("spec.type", name)?;
    }
    if spec.policies.len() > POLICIES_PER_DEVICE_MAX {
        return Err(
            ApiError::invalid("spec.policies", "too many policies").over(POLICIES_PER_DEVICE_MAX, spec.policies.len())
        );
    }
    spec.policies.iter().try_for_each(|name| subdomain("spec.policies", name))
}

fn entries(field: &str, entries: &BTreeMap<String, String>, value_bytes_max: usize) -> Result<(), ApiError> {
    if entries.len() > ENTRIES_MAX {
        return Err(ApiError::invalid(field, "too many entries").over(ENTRIES_MAX, entries.len()));
    }
    for (name, value) in entries {
        key(field, name)?;
        if value.len() > value_bytes_max {
            return Err(
                ApiError::invalid(format!("{field}.{name}"), "value is too long").over(value_bytes_max, value.len())
            );
        }
        if value.contains(char::is_control) {
            return Err(ApiError::invalid(format!("{field}.{name}"), "value contains a control character"));
        }
    }
    Ok(())
}

/// A policy of a tenant.
pub fn policy(name: &str, spec: &PolicySpec) -> Result<(), ApiError> {
    subdomain("metadata.name", name)?;
    if name == DEFAULT_POLICY {
        return Err(built_in());
    }
    if spec.statements.len() > STATEMENTS_MAX {
        return Err(
            ApiError::invalid("spec.statements", "too many statements").over(STATEMENTS_MAX, spec.statements.len())
        );
    }
    let bytes = spec.statements.iter().flat_map(|s| &s.resources).map(String::len).sum::<usize>();
    if bytes > RESOURCES_BYTES_MAX {
        return Err(ApiError::invalid("spec.statements", "resources are too long").over(RESOURCES_BYTES_MAX, bytes));
    }
    for (i, statement) in spec.statements.iter().enumerate() {
        let field = |part: &str| format!("spec.statements[{i}].{part}");
        if statement.actions.is_empty() {
            return Err(ApiError::invalid(field("actions"), "a statement names at least one action"));
        }
        if statement.resources.is_empty() {
            return Err(ApiError::invalid(field("resources"), "a statement names at least one resource"));
        }
        for text in &statement.resources {
            resource(&field("resources"), &statement.actions, text)?;
        }
    }
    Ok(())
}

/// The built-in policy is everybody's, so nobody may change it.
pub fn built_in() -> ApiError {
    let message = "the policy default is built in: it can be neither changed nor deleted";
    ApiError {
        field: Some("metadata.name".into()),
        ..ApiError::new(drover_types::ErrorCode::FailedPrecondition, message)
    }
}

fn resource(field: &str, actions: &[PolicyAction], text: &str) -> Result<(), ApiError> {
    let filled = text.replace("${device}", "x").replace("${client}", "x");
    if filled.contains("${") {
        return Err(ApiError::invalid(field, "only ${device} and ${client} can be filled in")
            .over("${device}, ${client}", text));
    }
    for action in actions {
        match action {
            PolicyAction::Connect | PolicyAction::PublishFor if text.is_empty() => {
                return Err(ApiError::invalid(field, "the id of a client or device is not empty"));
            }
            PolicyAction::Connect | PolicyAction::PublishFor => {}
            PolicyAction::Publish | PolicyAction::Subscribe => {
                TopicFilter::new(&filled)
                    .map_err(|e| ApiError::invalid(field, e.to_string()).over("topic filter", text))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::object::{Effect, Statement};

    #[test]
    fn labels_and_attributes_are_bounded_in_number_and_size() {
        let many = |n: usize| (0..n).map(|i| (format!("k{i}"), "v".to_owned())).collect::<BTreeMap<_, _>>();
        assert_eq!(labels(&many(64)), Ok(()));
        assert_eq!(labels(&many(65)), Err(ApiError::invalid("metadata.labels", "too many entries").over(64, 65)));
        let one = |value: &str| BTreeMap::from([("k".to_owned(), value.to_owned())]);
        assert_eq!(labels(&one(&"v".repeat(256))), Ok(()));
        let refused = labels(&one(&"v".repeat(257))).expect_err("too long");
        assert_eq!((refused.field.as_deref(), refused.value.as_deref()), (Some("metadata.labels.k"), Some("257")));
        assert!(labels(&one("a\nb")).is_err());
        assert!(labels(&BTreeMap::from([("a b".to_owned(), String::new())])).is_err());
    }

    #[test]
    fn a_policy_statement_is_checked_for_what_it_speaks_about() {
        let statement = |action, resource: &str| PolicySpec {
            statements: vec![Statement {
                effect: Effect::Allow,
                actions: vec![action],
                resources: vec![resource.into()],
            }],
        };
        for (action, good) in [
            (PolicyAction::Connect, "fleet-*"),
            (PolicyAction::Publish, "a/${device}/+/#"),
            (PolicyAction::Subscribe, "$share/g/a"),
            (PolicyAction::PublishFor, "${device}-*"),
        ] {
            assert_eq!(policy("p", &statement(action, good)), Ok(()), "{good}");
        }
        for (action, bad) in [
            (PolicyAction::Connect, ""),
            (PolicyAction::Publish, "a#"),
            (PolicyAction::Publish, "a/${tenant}"),
            (PolicyAction::Subscribe, ""),
            (PolicyAction::PublishFor, ""),
        ] {
            let refused = policy("p", &statement(action, bad)).expect_err(bad);
            assert_eq!(refused.field.as_deref(), Some("spec.statements[0].resources"), "{bad}");
        }
        let builtin = policy("default", &statement(PolicyAction::Connect, "x")).expect_err("built in");
        assert_eq!(builtin.code, drover_types::ErrorCode::FailedPrecondition);
    }
}
