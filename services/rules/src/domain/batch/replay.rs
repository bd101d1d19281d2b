//! A message through one rule again: what was a dead letter, or stands in the log.

use std::sync::Arc;

use bytes::Bytes;
use drover_bus::repeats;
use drover_rule_sql::{Lookups, Outcome};

use super::super::definition::Definition;
use super::super::letters::Letter;
use super::super::message::{Call, Functions, message};
use super::super::output::{Emitted, Inbound};
use super::super::rule_set::RuleSet;
use super::super::view::{Lookup, Views};
use super::super::window;
use super::Batch;

impl Batch {
    /// Puts a message through a rule again, or through the one action that failed. False: that cannot be, since the
    /// letter has lost its message, the message has gone into a window, the rule does not listen to it, or the action is
    /// not there any more.
    pub fn replay(
        &mut self,
        letter: Letter,
        rule: &Arc<Definition>,
        rules: &RuleSet,
        views: &Views,
        call: Call<'_>,
    ) -> bool {
        let Some(source) = letter.source else { return false };
        let Ok(telemetry) = repeats::telemetry(&source) else { return false };
        let (grouped, of_window) = (rule.rule.plan().is_some(), telemetry.topic.as_str() == window::TOPIC);
        let is_there = letter.action.is_none_or(|action| (action as usize) < rule.actions.len());
        let matching = rules.matching(&telemetry.tenant, telemetry.topic.as_str());
        let listens = matching.into_iter().any(|matching| Arc::ptr_eq(matching, rule));
        // Of a rule that groups, the message that turned its pattern has gone through actions; no other has.
        let is_its = if of_window { grouped } else { listens && (!grouped || letter.action.is_some()) };
        if !is_there || !is_its {
            return false;
        }
        let functions = Functions { tenant: &telemetry.tenant, rules, call };
        let lookup = Lookup { views, tenant: &telemetry.tenant, device: telemetry.device.as_str() };
        let lookups: Option<&dyn Lookups> = if of_window { None } else { Some(&lookup) };
        let message = message(&telemetry, &functions, lookups);
        let inbound = Inbound { source: Arc::new(source), telemetry: &telemetry, message };
        let outcome =
            if grouped { rule.rule.grouped_row(&inbound.message) } else { rule.rule.evaluate(&inbound.message) };
        match outcome {
            Outcome::NoMatch => {}
            Outcome::Error(error) => self.fail(&inbound, rule, None, &error.to_string()),
            Outcome::Row(row) => {
                self.rule_tally(&rule.key).matched += 1;
                let (value, trace) = (Bytes::from(row.to_bytes()), telemetry.traceparent.as_ref());
                let emitted = Emitted { row: &row, value: &value, trace };
                match letter.action {
                    Some(action) => self.act_one(&inbound, rule, action, &emitted),
                    None => self.act(&inbound, rule, &row, trace),
                }
            }
        }
        true
    }
}
