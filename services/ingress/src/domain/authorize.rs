//! What an identity may do: its policies' statements, compiled once.
//!
//! Domain layer, pure. Deny wins over allow; what no statement allows is denied. A subscription needs one allowed
//! filter that covers the requested one whole, and no denied filter that shares a topic with it.

use drover_types::object::{Effect, PolicyAction, Statement};
use drover_types::shadow::is_shadow_answer;

use crate::domain::filter::{ClientPattern, Pattern, topics};

/// First level of the topics of lifecycle events.
const EVENTS: &str = "$events";

/// The statements of one identity, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    connect: Rules<ClientPattern>,
    publish: Rules<Pattern>,
    subscribe: Rules<Pattern>,
    publish_for: Rules<ClientPattern>,
}

#[derive(Clone, Debug)]
struct Rules<P> {
    allow: Vec<P>,
    deny: Vec<P>,
}

impl<P> Default for Rules<P> {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new() }
    }
}

impl<P> Rules<P> {
    fn push(&mut self, effect: Effect, patterns: impl Iterator<Item = P>) {
        match effect {
            Effect::Allow => self.allow.extend(patterns),
            Effect::Deny => self.deny.extend(patterns),
        }
    }
}

impl Policy {
    /// Compiles the statements that apply to `device`.
    pub fn compile(statements: &[Statement], device: &str) -> Self {
        let mut policy = Self::default();
        for Statement { effect, actions, resources } in statements {
            for action in actions {
                let filters = resources.iter().map(|text| Pattern::new(text, device));
                let names = resources.iter().map(|text| ClientPattern::new(text, device));
                match action {
                    PolicyAction::Connect => policy.connect.push(*effect, names),
                    PolicyAction::PublishFor => policy.publish_for.push(*effect, names),
                    PolicyAction::Publish => policy.publish.push(*effect, filters),
                    PolicyAction::Subscribe => policy.subscribe.push(*effect, filters),
                }
            }
        }
        policy
    }

    /// Whether the device may connect under the client id `client`.
    pub fn may_connect(&self, client: &str) -> bool {
        let Rules { allow, deny } = &self.connect;
        allow.iter().any(|p| p.matches(client)) && !deny.iter().any(|p| p.matches(client))
    }

    /// Whether `client` may publish to the topic name `topic`. Nobody may publish where the platform tells of events,
    /// whatever a statement says: a device could tell lies about another. Nor in the name
    /// of shadows.
    pub fn may_publish(&self, topic: &str, client: &str) -> bool {
        if topic == EVENTS || topic.strip_prefix(EVENTS).is_some_and(|rest| rest.starts_with('/')) {
            return false;
        }
        let Rules { allow, deny } = &self.publish;
        !is_shadow_answer(topic)
            && allow.iter().any(|p| p.covers(topic, client))
            && !deny.iter().any(|p| p.covers(topic, client))
    }

    /// Whether the device may publish as `other`, where it may publish at all.
    pub fn may_publish_for(&self, other: &str) -> bool {
        let Rules { allow, deny } = &self.publish_for;
        allow.iter().any(|p| p.matches(other)) && !deny.iter().any(|p| p.matches(other))
    }

    /// Whether `client` may subscribe to all that `filter` matches, alone or sharing it.
    pub fn may_subscribe(&self, filter: &str, client: &str) -> bool {
        let filter = topics(filter);
        let Rules { allow, deny } = &self.subscribe;
        allow.iter().any(|p| p.covers(filter, client)) && !deny.iter().any(|p| p.overlaps(filter, client))
    }
}

#[cfg(test)]
mod tests {
    use drover_types::object::PolicyAction::{Connect, Publish, PublishFor, Subscribe};

    use super::*;

    fn statement(effect: Effect, actions: &[PolicyAction], resources: &[&str]) -> Statement {
        Statement { effect, actions: actions.to_vec(), resources: resources.iter().map(|r| (*r).to_owned()).collect() }
    }

    #[test]
    fn what_no_statement_allows_is_denied() {
        let policy = Policy::compile(&[], "d");
        assert!(!policy.may_connect("d") && !policy.may_publish("a", "d") && !policy.may_subscribe("a", "d"));
    }

    #[test]
    fn deny_wins_in_any_order() {
        let allow = statement(Effect::Allow, &[Publish, Subscribe], &["#"]);
        let deny = statement(Effect::Deny, &[Publish, Subscribe], &["secret/#"]);
        for statements in [[allow.clone(), deny.clone()], [deny, allow]] {
            let policy = Policy::compile(&statements, "d");
            assert!(policy.may_publish("open", "d"));
            assert!(!policy.may_publish("secret/x", "d"));
            assert!(policy.may_subscribe("open/#", "d"));
            assert!(!policy.may_subscribe("#", "d"), "it would deliver secret/x");
            assert!(!policy.may_subscribe("+/x", "d"), "it would deliver secret/x");
            assert!(policy.may_subscribe("$share/g/open/#", "d") && !policy.may_subscribe("$share/g/#", "d"));
        }
    }

    #[test]
    fn publishing_as_another_device_is_allowed_by_name_and_denied_by_default() {
        let allow = statement(Effect::Allow, &[PublishFor], &["lora-*"]);
        let deny = statement(Effect::Deny, &[PublishFor], &["lora-0"]);
        let policy = Policy::compile(&[allow, deny], "hook");
        assert!(policy.may_publish_for("lora-1"));
        assert!(!policy.may_publish_for("lora-0") && !policy.may_publish_for("hook") && !policy.may_publish_for(""));
        assert!(!Policy::compile(&[statement(Effect::Allow, &[Publish], &["#"])], "d").may_publish_for("e"));
    }

    #[test]
    fn a_subscription_wider_than_what_is_allowed_is_denied() {
        let policy = Policy::compile(&[statement(Effect::Allow, &[Subscribe], &["home/+/temperature"])], "d");
        assert!(policy.may_subscribe("home/kitchen/temperature", "d"));
        assert!(policy.may_subscribe("home/+/temperature", "d"));
        assert!(!policy.may_subscribe("home/#", "d"));
    }

    #[test]
    fn the_built_in_policy_keeps_devices_to_themselves_and_off_dollar_topics() {
        let policy = Policy::compile(
            &[
                statement(Effect::Allow, &[Connect], &["${device}"]),
                statement(Effect::Allow, &[Publish, Subscribe], &["#", "$aws/things/${device}/#"]),
            ],
            "lamp",
        );
        assert!(policy.may_connect("lamp") && !policy.may_connect("other"));
        assert!(policy.may_publish("any/topic", "lamp"));
        assert!(policy.may_publish("$aws/things/lamp/shadow/update", "lamp"));
        assert!(!policy.may_publish("$aws/things/other/shadow/update", "lamp"));
        assert!(!policy.may_publish("$aws/things/lamp/shadow/update/accepted", "lamp"), "only shadows answer there");
        assert!(policy.may_subscribe("$aws/things/lamp/shadow/+/accepted", "lamp"));
        assert!(!policy.may_publish("$SYS/x", "lamp"));
        assert!(policy.may_subscribe("#", "lamp"));
        assert!(!policy.may_subscribe("$events/#", "lamp"));
    }

    #[test]
    fn events_may_be_subscribed_to_and_never_published() {
        let filters = ["$events/#", "$eventsful"];
        let policy = Policy::compile(&[statement(Effect::Allow, &[Publish, Subscribe], &filters)], "d");
        assert!(policy.may_subscribe("$events/presence/connected/+", "d"));
        assert!(!policy.may_publish("$events/presence/connected/d", "d") && !policy.may_publish("$events", "d"));
        assert!(policy.may_publish("$eventsful", "d"));
    }
}
