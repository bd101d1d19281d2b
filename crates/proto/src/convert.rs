//! Conversions between wire messages and the types of the domain.

mod action;
mod device_group;
mod device_type;

use drover_types::ApiError;
use drover_types::object::{
    Action, CertificateAuthoritySpec, DeviceSpec, Effect, FunctionExample, FunctionSpec, PolicyAction, PolicySpec,
    RuleSpec, Statement,
};

use crate::types::v1 as wire;

/// A field that a message must have.
pub trait Field<T> {
    /// The value, or `invalid_argument` naming the field.
    fn required(self, field: &str) -> Result<T, ApiError>;
}

impl<T> Field<T> for Option<T> {
    fn required(self, field: &str) -> Result<T, ApiError> {
        self.ok_or_else(|| ApiError::invalid(field, "is missing"))
    }
}

impl From<&wire::Device> for DeviceSpec {
    fn from(device: &wire::Device) -> Self {
        Self {
            device_type: Some(device.r#type.clone()).filter(|t| !t.is_empty()),
            enabled: device.enabled,
            attributes: device.attributes.clone().into_iter().collect(),
            policies: device.policies.clone(),
        }
    }
}

impl wire::Device {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: DeviceSpec) -> Self {
        Self {
            meta: Some(meta),
            r#type: spec.device_type.unwrap_or_default(),
            enabled: spec.enabled,
            attributes: spec.attributes.into_iter().collect(),
            policies: spec.policies,
        }
    }
}

impl TryFrom<&wire::Statement> for Statement {
    type Error = ApiError;

    fn try_from(statement: &wire::Statement) -> Result<Self, ApiError> {
        let effect = match statement.effect() {
            wire::Effect::Allow => Effect::Allow,
            wire::Effect::Deny => Effect::Deny,
            wire::Effect::Unspecified => return Err(ApiError::invalid("effect", "is neither allow nor deny")),
        };
        let action = |action| match action {
            wire::PolicyAction::Connect => Ok(PolicyAction::Connect),
            wire::PolicyAction::Publish => Ok(PolicyAction::Publish),
            wire::PolicyAction::Subscribe => Ok(PolicyAction::Subscribe),
            wire::PolicyAction::PublishFor => Ok(PolicyAction::PublishFor),
            wire::PolicyAction::Unspecified => Err(ApiError::invalid("actions", "is not a known action")),
        };
        let actions = statement.actions().map(action).collect::<Result<_, _>>()?;
        Ok(Self { effect, actions, resources: statement.resources.clone() })
    }
}

impl From<Statement> for wire::Statement {
    fn from(statement: Statement) -> Self {
        let effect = match statement.effect {
            Effect::Allow => wire::Effect::Allow,
            Effect::Deny => wire::Effect::Deny,
        };
        let action = |action| match action {
            PolicyAction::Connect => wire::PolicyAction::Connect,
            PolicyAction::Publish => wire::PolicyAction::Publish,
            PolicyAction::Subscribe => wire::PolicyAction::Subscribe,
            PolicyAction::PublishFor => wire::PolicyAction::PublishFor,
        };
        Self {
            effect: effect.into(),
            actions: statement.actions.into_iter().map(|a| action(a).into()).collect(),
            resources: statement.resources,
        }
    }
}

impl TryFrom<&wire::Policy> for PolicySpec {
    type Error = ApiError;

    fn try_from(policy: &wire::Policy) -> Result<Self, ApiError> {
        Ok(Self { statements: policy.statements.iter().map(Statement::try_from).collect::<Result<_, _>>()? })
    }
}

impl wire::Policy {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: PolicySpec) -> Self {
        Self { meta: Some(meta), statements: spec.statements.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<&wire::Rule> for RuleSpec {
    type Error = ApiError;

    fn try_from(rule: &wire::Rule) -> Result<Self, ApiError> {
        Ok(Self {
            sql: rule.sql.clone(),
            actions: rule.actions.iter().map(Action::try_from).collect::<Result<_, _>>()?,
            error_action: rule.error_action.as_ref().map(Action::try_from).transpose()?,
        })
    }
}

impl wire::Rule {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: RuleSpec) -> Self {
        Self {
            meta: Some(meta),
            sql: spec.sql,
            actions: spec.actions.into_iter().map(Into::into).collect(),
            error_action: spec.error_action.map(Into::into),
        }
    }
}

impl TryFrom<&wire::FunctionExample> for FunctionExample {
    type Error = ApiError;

    fn try_from(example: &wire::FunctionExample) -> Result<Self, ApiError> {
        let json = |field: &str, text: &str| {
            serde_json::from_str(text).map_err(|error| ApiError::invalid(field, format!("is no JSON: {error}")))
        };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            description: given(&example.description),
            routine: given(&example.routine),
            input: json("examples.input", &example.input)?,
            output: json("examples.output", &example.output)?,
        })
    }
}

impl TryFrom<&wire::Function> for FunctionSpec {
    type Error = ApiError;

    fn try_from(function: &wire::Function) -> Result<Self, ApiError> {
        Ok(Self {
            source: function.source.clone(),
            routine: function.routine.clone(),
            examples: function.examples.iter().map(FunctionExample::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl wire::Function {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: FunctionSpec) -> Self {
        let example = |example: FunctionExample| wire::FunctionExample {
            description: example.description.unwrap_or_default(),
            routine: example.routine.unwrap_or_default(),
            input: example.input.to_string(),
            output: example.output.to_string(),
        };
        let examples = spec.examples.into_iter().map(example).collect();
        Self { meta: Some(meta), source: spec.source, routine: spec.routine, examples }
    }
}

impl TryFrom<&wire::CertificateAuthority> for CertificateAuthoritySpec {
    type Error = ApiError;

    fn try_from(authority: &wire::CertificateAuthority) -> Result<Self, ApiError> {
        let template = authority.template.as_ref().required("template")?;
        let labels = template.meta.iter().flat_map(|meta| meta.labels.clone()).collect();
        Ok(Self { certificate: authority.certificate.clone(), labels, template: DeviceSpec::from(template) })
    }
}

impl wire::CertificateAuthority {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: CertificateAuthoritySpec) -> Self {
        let labels = wire::Meta { labels: spec.labels.into_iter().collect(), ..wire::Meta::default() };
        let template = Some(wire::Device::of(labels, spec.template));
        Self { meta: Some(meta), certificate: spec.certificate, template }
    }
}

#[cfg(test)]
mod tests {
    use drover_types::Qos;
    use drover_types::object::{CreateTopic, KafkaAction, RepublishAction};

    use super::*;

    #[test]
    fn specs_survive_the_wire() {
        let spec = RuleSpec {
            sql: "SELECT * FROM 'a'".into(),
            actions: vec![
                Action {
                    kafka: Some(KafkaAction {
                        topic: "t".into(),
                        key: Some("${device}".into()),
                        partition: Some("${n}".into()),
                        headers: [("a".to_owned(), "b".to_owned())].into(),
                        create_topic: Some(CreateTopic { partitions: 3 }),
                        cluster: None,
                    }),
                    ..Action::default()
                },
                Action {
                    republish: Some(RepublishAction { topic: "b".into(), qos: Qos::AtLeastOnce }),
                    ..Action::default()
                },
            ],
            error_action: None,
        };
        let wire = wire::Rule::of(wire::Meta::default(), spec.clone());
        assert_eq!(RuleSpec::try_from(&wire), Ok(spec));

        let device = DeviceSpec { device_type: Some("t".into()), enabled: false, ..DeviceSpec::default() };
        assert_eq!(DeviceSpec::from(&wire::Device::of(wire::Meta::default(), device.clone())), device);

        let policy = PolicySpec {
            statements: vec![Statement {
                effect: Effect::Deny,
                actions: vec![PolicyAction::Publish, PolicyAction::Connect, PolicyAction::PublishFor],
                resources: vec!["a/#".into()],
            }],
        };
        assert_eq!(PolicySpec::try_from(&wire::Policy::of(wire::Meta::default(), policy.clone())), Ok(policy));

        let labels = [("site".to_owned(), "north".to_owned())].into();
        let authority = CertificateAuthoritySpec { certificate: "pem".into(), labels, template: DeviceSpec::default() };
        let wire = wire::CertificateAuthority::of(wire::Meta::default(), authority.clone());
        assert_eq!(CertificateAuthoritySpec::try_from(&wire), Ok(authority));

        let example = FunctionExample {
            description: None,
            routine: Some("encodeDownlink".into()),
            input: serde_json::Value::Null,
            output: serde_json::json!({"bytes": [1]}),
        };
        let function = FunctionSpec { source: "x".into(), routine: "main".into(), examples: vec![example] };
        let wire = wire::Function::of(wire::Meta::default(), function.clone());
        assert_eq!(FunctionSpec::try_from(&wire), Ok(function));
    }

    #[test]
    fn what_is_unspecified_is_refused_by_name() {
        assert_eq!(
            Action::try_from(&wire::Action { action: None }).expect_err("refused").field.as_deref(),
            Some("action")
        );
        let example = wire::FunctionExample { input: "{".into(), ..Default::default() };
        assert_eq!(FunctionExample::try_from(&example).expect_err("refused").field.as_deref(), Some("examples.input"));
        let statement = wire::Statement::default();
        assert_eq!(Statement::try_from(&statement).expect_err("refused").field.as_deref(), Some("effect"));
    }
}
