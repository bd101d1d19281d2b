//! A rule as declared, compiled: whatever can be wrong with it is found here, before the first message.

use drover_bus::Topic;
use drover_rule_sql::{Asked, CompiledRule, Rule, Template};
use drover_types::object::{Action, RuleSpec};
use drover_types::{ApiError, Qos, TenantId};

use super::states;
use super::status::RuleKey;

/// Partitions of an output topic whose action names no number.
pub const OUTPUT_PARTITIONS: u32 = 8;

/// One accepted rule.
#[derive(Debug)]
pub struct Definition {
    pub tenant: TenantId,
    pub name: String,
    /// Both, to count by.
    pub key: RuleKey,
    pub rule: CompiledRule,
    /// What its statement and its actions look up.
    pub asked: Asked,
    /// Where its states are, if it groups messages.
    pub state_prefix: String,
    pub actions: Vec<CompiledAction>,
    pub error_action: Option<CompiledAction>,
}

/// What is done with a row.
#[derive(Debug)]
pub enum CompiledAction {
    /// `key` absent: the device. `partitions`: of a topic that has to be made.
    Kafka {
        topic: Topic,
        key: Option<Template>,
        partitions: u32,
    },
    Republish {
        topic: Template,
        qos: Qos,
    },
}

impl Definition {
    /// Compiles a declared rule; the error names the field and the place in it.
    pub fn compile(tenant: TenantId, name: &str, spec: &RuleSpec) -> Result<Self, ApiError> {
        spec.check()?;
        let rule = Rule::compile_open(&spec.sql)?;
        let texts = serde_json::to_string(&(&spec.actions, &spec.error_action)).unwrap_or_default();
        let actions = spec.actions.iter().enumerate();
        let actions = actions.map(|(i, action)| compile(&rule, action, &format!("spec.actions[{i}]")));
        let error_action = spec.error_action.as_ref().map(|action| compile(&rule, action, "spec.errorAction"));
        Ok(Self {
            actions: actions.collect::<Result<_, _>>()?,
            error_action: error_action.transpose()?,
            asked: rule.asked().and(Asked::by_text(&texts)),
            state_prefix: states::prefix(&tenant, name, &rule),
            rule,
            key: (tenant.clone(), name.to_owned()),
            tenant,
            name: name.to_owned(),
        })
    }

    /// The Kafka topics it writes, each with the partitions it is to be made with.
    pub fn output_topics(&self) -> impl Iterator<Item = (&Topic, u32)> {
        self.actions.iter().chain(&self.error_action).filter_map(|action| match action {
            CompiledAction::Kafka { topic, partitions, .. } => Some((topic, *partitions)),
            CompiledAction::Republish { .. } => None,
        })
    }
}

fn compile(rule: &CompiledRule, action: &Action, field: &str) -> Result<CompiledAction, ApiError> {
    let template = |text: &str, field: String| rule.template(text).map_err(|error| error.in_field(field));
    match (&action.kafka, &action.republish) {
        (Some(kafka), _) => Ok(CompiledAction::Kafka {
            topic: kafka.topic.as_str().into(),
            key: kafka.key.as_deref().map(|key| template(key, format!("{field}.kafka.key"))).transpose()?,
            partitions: kafka.create_topic.as_ref().map_or(OUTPUT_PARTITIONS, |create| create.partitions),
        }),
        (None, Some(republish)) => Ok(CompiledAction::Republish {
            topic: template(&republish.topic, format!("{field}.republish.topic"))?,
            qos: republish.qos,
        }),
        (None, None) => Err(ApiError::invalid(field, "an action has exactly one of kafka, republish")),
    }
}
