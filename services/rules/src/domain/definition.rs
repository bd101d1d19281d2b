//! A rule as declared, compiled: whatever can be wrong with it is found here, before the first message.

use drover_bus::Topic;
use drover_rule_sql::{Asked, CompiledRule, Rule};
use drover_types::object::RuleSpec;
use drover_types::{ApiError, TenantId};

use super::action::CompiledAction;
use super::states;
use super::status::RuleKey;

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

impl Definition {
    /// Compiles a declared rule; the error names the field and the place in it.
    pub fn compile(tenant: TenantId, name: &str, spec: &RuleSpec) -> Result<Self, ApiError> {
        spec.check()?;
        let rule = Rule::compile_open(&spec.sql)?;
        let actions = spec.actions.iter().enumerate();
        let actions = actions.map(|(i, action)| CompiledAction::compile(&rule, action, &format!("spec.actions[{i}]")));
        let error_action = spec.error_action.as_ref();
        let error_action = error_action.map(|action| CompiledAction::compile(&rule, action, "spec.errorAction"));
        let (actions, error_action) = (actions.collect::<Result<Vec<_>, _>>()?, error_action.transpose()?);
        let mut asked = rule.asked();
        for (field, action) in spec.all_actions() {
            for template in action.templates() {
                let compiled = rule.template(template.text).map_err(|error| error.in_field(template.name(&field)))?;
                asked = asked.and(compiled.asked());
            }
        }
        Ok(Self {
            actions,
            error_action,
            asked,
            state_prefix: states::prefix(&tenant, name, &rule),
            rule,
            key: (tenant.clone(), name.to_owned()),
            tenant,
            name: name.to_owned(),
        })
    }

    /// Its actions, the error action last.
    fn all(&self) -> impl Iterator<Item = &CompiledAction> {
        self.actions.iter().chain(&self.error_action)
    }

    /// The topics of the log that it writes, each with the partitions it is to be made with.
    pub fn output_topics(&self) -> impl Iterator<Item = (&Topic, u32)> {
        self.all().filter_map(|action| match action {
            CompiledAction::Kafka { topic, partitions, cluster: None, .. } => Some((topic, *partitions)),
            CompiledAction::Kafka { .. }
            | CompiledAction::Republish { .. }
            | CompiledAction::Webhook(_)
            | CompiledAction::Shadow(_)
            | CompiledAction::Store { .. }
            | CompiledAction::Function { .. }
            | CompiledAction::Notify { .. } => None,
        })
    }

    /// The functions that its actions call; those of its statement are the statement's.
    pub fn called_functions(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(CompiledAction::function)
    }

    /// The other clusters it writes to.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(|action| match action {
            CompiledAction::Kafka { cluster, .. } => cluster.as_deref(),
            CompiledAction::Republish { .. }
            | CompiledAction::Webhook(_)
            | CompiledAction::Shadow(_)
            | CompiledAction::Store { .. }
            | CompiledAction::Function { .. }
            | CompiledAction::Notify { .. } => None,
        })
    }

    /// The addresses its webhooks go to, as declared.
    pub fn webhooks(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(|action| match action {
            CompiledAction::Webhook(webhook) => Some(webhook.address.as_str()),
            CompiledAction::Kafka { .. }
            | CompiledAction::Republish { .. }
            | CompiledAction::Shadow(_)
            | CompiledAction::Store { .. }
            | CompiledAction::Function { .. }
            | CompiledAction::Notify { .. } => None,
        })
    }
}
