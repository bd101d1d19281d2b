//! A rule as declared, compiled: whatever can be wrong with it is found here, before the first message.

use drover_bus::Topic;
use drover_rule_sql::{Asked, CompiledRule, Rule};
use drover_types::object::{Action, RuleSpec};
use drover_types::{ApiError, TenantId};

use super::action::{CompiledAction, Templates};
use super::states;
use super::status::RuleKey;

/// One accepted rule.
#[derive(Debug)]
pub struct Definition {
    pub tenant: TenantId,
    pub name: String,
    /// Of the declaration; 0: not said.
    pub generation: u64,
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
        let templates = Templates::of(&rule);
        let compile = |action: &Action, field: &str| CompiledAction::compile(&templates, action, field);
        let actions = spec.actions.iter().enumerate();
        let actions = actions.map(|(i, action)| compile(action, &format!("spec.actions[{i}]")));
        let actions = actions.collect::<Result<Vec<_>, _>>()?;
        let error_action = spec.error_action.as_ref().map(|action| compile(action, "spec.errorAction")).transpose()?;
        Ok(Self {
            actions,
            error_action,
            asked: templates.asked(),
            state_prefix: states::prefix(&tenant, name, &rule),
            rule,
            key: (tenant.clone(), name.to_owned()),
            tenant,
            name: name.to_owned(),
            generation: 0,
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
            | CompiledAction::Notify { .. }
            | CompiledAction::Command(_) => None,
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
            | CompiledAction::Notify { .. }
            | CompiledAction::Command(_) => None,
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
            | CompiledAction::Notify { .. }
            | CompiledAction::Command(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_rule_looks_up_is_what_its_statement_and_any_template_of_its_actions_look_up() {
        let asked = |sql: &str, action: serde_json::Value| {
            let spec = json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}], "errorAction": action});
            let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
            Definition::compile(TenantId::default_tenant(), "r", &spec).expect("compiles").asked
        };
        let (plain, looks) = ("SELECT * FROM 'a'", "${device().labels.room}");
        let url = "https://example.org/a";
        for action in [
            json!({"kafka": {"topic": "home.e", "key": looks}}),
            json!({"kafka": {"topic": "home.e", "partition": looks}}),
            json!({"kafka": {"topic": "home.e", "headers": {"room": looks}}}),
            json!({"republish": {"topic": looks}}),
            json!({"webhook": {"url": format!("{url}/{looks}")}}),
            json!({"webhook": {"url": url, "headers": {"room": looks}}}),
            json!({"webhook": {"url": url, "body": looks}}),
            json!({"shadow": {"device": looks, "desired": {}}}),
            json!({"shadow": {"device": "d", "desired": {"a": ["b", {"c": looks}]}}}),
            json!({"shadow": {"device": "d", "reported": {"room": looks}}}),
            json!({"notify": {"channel": "people", "text": looks}}),
            json!({"command": {"device": looks, "name": "fan"}}),
            json!({"command": {"device": "d", "name": "fan", "payload": {"room": looks}}}),
        ] {
            assert_eq!(asked(plain, action.clone()), Asked { devices: true, shadows: false }, "{action}");
        }
        let quiet = json!({"republish": {"topic": "e"}});
        assert_eq!(asked(plain, quiet.clone()), Asked::default());
        let (sql, both) = ("SELECT get_thing_shadow('t', '') AS s FROM 'a'", Asked { devices: true, shadows: true });
        assert_eq!(asked(sql, quiet), Asked { devices: false, shadows: true });
        assert_eq!(asked(sql, json!({"republish": {"topic": looks}})), both);
    }
}
