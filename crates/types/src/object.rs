//! Declared objects: the one shape that REST, files and custom resources share.

mod action;
mod authority;
mod device_group;
mod device_type;
mod function;
mod selector;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::limits::{ACTIONS_PER_RULE_MAX, SQL_BYTES_MAX};

pub use action::{
    Action, Batch, CommandAction, CreateTopic, DEVICE_TAG, FunctionAction, KafkaAction, NotifyAction, RepublishAction,
    SecretRef, ShadowAction, StoreAction, TemplateField, Timeout, WebhookAction,
};
pub use authority::{AUTHORITY_ATTRIBUTE, CERTIFICATE_ATTRIBUTE, CertificateAuthoritySpec};
pub use device_group::DeviceGroupSpec;
pub use device_type::{DeviceTypeSpec, FieldType, TypeField};
pub use function::{FunctionExample, FunctionSpec};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector};

/// `spec` of a Device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceSpec {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// A disabled device is refused and disconnected.
    pub enabled: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Names of policies; what none allows is denied.
    pub policies: Vec<String>,
}

impl Default for DeviceSpec {
    fn default() -> Self {
        Self {
            device_type: None,
            enabled: true,
            attributes: BTreeMap::new(),
            policies: vec![DEFAULT_POLICY.to_owned()],
        }
    }
}

/// Name of the built-in policy.
pub const DEFAULT_POLICY: &str = "default";

/// `spec` of a Policy: what its devices may do. Deny wins over allow; what no statement allows is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    pub statements: Vec<Statement>,
}

/// One line of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    pub effect: Effect,
    pub actions: Vec<PolicyAction>,
    /// For `connect`: client ids; for `publishFor`: devices; in both `*` stands for any text. For all else: topic
    /// filters. `${device}` and `${client}` stand for the ids of who asks.
    pub resources: Vec<String>,
}

/// Whether a statement allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    Allow,
    Deny,
}

/// What a policy speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum PolicyAction {
    Connect,
    Publish,
    Subscribe,
    /// To hand in messages of other devices, as a gateway does; its resources are devices.
    PublishFor,
}

/// `spec` of a Rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    pub sql: String,
    pub actions: Vec<Action>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_action: Option<Action>,
}

impl RuleSpec {
    /// Checks sizes and that each action is exactly one; the SQL is the language's own to check.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.sql.len() > SQL_BYTES_MAX {
            return Err(ApiError::invalid("spec.sql", "sql is too long").over(SQL_BYTES_MAX, self.sql.len()));
        }
        if self.actions.is_empty() {
            return Err(ApiError::invalid("spec.actions", "a rule has at least one action"));
        }
        if self.actions.len() > ACTIONS_PER_RULE_MAX {
            return Err(
                ApiError::invalid("spec.actions", "too many actions").over(ACTIONS_PER_RULE_MAX, self.actions.len())
            );
        }
        self.all_actions().try_for_each(|(field, action)| action.check(&field))
    }

    /// Every action with its field, the error action last.
    pub fn all_actions(&self) -> impl Iterator<Item = (String, &Action)> {
        let actions = self.actions.iter().enumerate().map(|(i, action)| (format!("spec.actions[{i}]"), action));
        actions.chain(self.error_action.iter().map(|action| ("spec.errorAction".to_owned(), action)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: serde_json::Value) -> Result<(), ApiError> {
        let spec: RuleSpec = serde_json::from_value(json).expect("shape");
        spec.check()
    }

    #[test]
    fn a_rule_has_actions_of_exactly_one_kind() {
        let sql = "SELECT * FROM 'a'";
        let kafka = serde_json::json!({"kafka": {"topic": "t"}});
        assert_eq!(rule(serde_json::json!({"sql": sql, "actions": [kafka]})), Ok(()));
        let both = serde_json::json!({"kafka": {"topic": "t"}, "republish": {"topic": "t"}});
        for (actions, field) in [
            (serde_json::json!([]), "spec.actions"),
            (serde_json::json!([{}]), "spec.actions[0]"),
            (serde_json::json!([kafka, both]), "spec.actions[1]"),
            (serde_json::json!([{"kafka": {"topic": "drover.x"}}]), "spec.actions[0].kafka.topic"),
            (serde_json::json!([{"kafka": {"topic": "a b"}}]), "spec.actions[0].kafka.topic"),
            (serde_json::json!([{"republish": {"topic": "a", "qos": 2}}]), "spec.actions[0].republish.qos"),
        ] {
            let refused = rule(serde_json::json!({"sql": sql, "actions": actions})).expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some(field));
        }
    }
}
