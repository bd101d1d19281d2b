//! What an identity may do: its policies' statements, compiled once.
//!
//! Domain layer, pure. Deny wins over allow; what no statement allows is denied. A subscription needs one allowed
//! filter that covers the requested one whole, and no denied filter that shares a topic with it.

use std::sync::Arc;

use drover_types::object::{Effect, PolicyAction, Statement};
use drover_types::shadow::is_shadow_answer;

use crate::domain::filter::{ClientPattern, Pattern, Who, topics};
use crate::domain::notices::ERRORS;

/// First levels of what the platform alone tells: lifecycle events, and errors.
const TOLD: [&str; 2] = ["$events", ERRORS];

/// The statements of some policies, ready to be asked; shared by all devices that they apply to.
#[derive(Clone, Debug, Default)]
pub struct Policy(Arc<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    /// Of the policies.
    names: Box<[Box<str>]>,
    connect: Rules<ClientPattern>,
    publish: Rules<Pattern>,
    subscribe: Rules<Pattern>,
    /// Devices.
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
    /// Compiles the statements of the policies `names`.
    pub fn compile(names: Box<[Box<str>]>, statements: &[Statement]) -> Self {
        let mut policy = Compiled { names, ..Compiled::default() };
        for Statement { effect, actions, resources } in statements {
            for action in actions {
                let filters = resources.iter().map(|text| Pattern::new(text));
                let ids = resources.iter().map(|text| ClientPattern::new(text));
                match action {
                    PolicyAction::Connect => policy.connect.push(*effect, ids),
                    PolicyAction::Publish => policy.publish.push(*effect, filters),
                    PolicyAction::Subscribe => policy.subscribe.push(*effect, filters),
                    PolicyAction::PublishFor => policy.publish_for.push(*effect, ids),
                }
            }
        }
        Self(Arc::new(policy))
    }

    /// Names of the policies.
    pub fn names(&self) -> &[Box<str>] {
        &self.0.names
    }

    /// Whether a device may connect under this client id.
    pub fn may_connect(&self, who: Who<'_>) -> bool {
        let Rules { allow, deny } = &self.0.connect;
        allow.iter().any(|p| p.matches(who)) && !deny.iter().any(|p| p.matches(who))
    }

    /// Whether a device may hand in messages of another, which stands for the client in `whom`; what that may publish is said
    /// by its own policy.
    pub fn may_publish_for(&self, whom: Who<'_>) -> bool {
        let Rules { allow, deny } = &self.0.publish_for;
        allow.iter().any(|p| p.matches(whom)) && !deny.iter().any(|p| p.matches(whom))
    }

    /// Whether a client may publish to the topic name `topic`. Nobody may publish where the platform tells of events and
    /// errors, whatever a statement says: a device could tell lies about another. Nor in the name
    /// of shadows.
    pub fn may_publish(&self, topic: &str, who: Who<'_>) -> bool {
        let below =
            |first: &str| topic.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if topic.starts_with('$') && TOLD.into_iter().any(below) {
            return false;
        }
        let Rules { allow, deny } = &self.0.publish;
        !is_shadow_answer(topic)
            && allow.iter().any(|p| p.covers(topic, who))
            && !deny.iter().any(|p| p.covers(topic, who))
    }

    /// Whether a client may subscribe to all that `filter` matches, alone or sharing it.
    pub fn may_subscribe(&self, filter: &str, who: Who<'_>) -> bool {
        let filter = topics(filter);
        let Rules { allow, deny } = &self.0.subscribe;
        allow.iter().any(|p| p.covers(filter, who)) && !deny.iter().any(|p| p.overlaps(filter, who))
    }
}

#[cfg(test)]
mod tests {
    use drover_types::object::PolicyAction::{Connect, Publish, PublishFor, Subscribe};
    use drover_types::{DeviceId, TenantId};

    use super::*;
    use crate::domain::identity::Identity;

    fn statement(effect: Effect, actions: &[PolicyAction], resources: &[&str]) -> Statement {
        Statement { effect, actions: actions.to_vec(), resources: resources.iter().map(|r| (*r).to_owned()).collect() }
    }

    /// A device to which these statements apply.
    fn device(statements: &[Statement], name: &str) -> Identity {
        Identity {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new(name).expect("valid"),
            credential: Box::default(),
            policy: Policy::compile(Box::default(), statements),
            expires_ms: 0,
            generation: 0,
        }
    }

    #[test]
    fn what_no_statement_allows_is_denied() {
        let policy = device(&[], "d");
        assert!(!policy.may_connect_as("d", false) && !policy.may_publish("a", "d") && !policy.may_subscribe("a", "d"));
    }

    #[test]
    fn deny_wins_in_any_order() {
        let allow = statement(Effect::Allow, &[Publish, Subscribe], &["#"]);
        let deny = statement(Effect::Deny, &[Publish, Subscribe], &["secret/#"]);
        for statements in [[allow.clone(), deny.clone()], [deny, allow]] {
            let policy = device(&statements, "d");
            assert!(policy.may_publish("open", "d"));
            assert!(!policy.may_publish("secret/x", "d"));
            assert!(policy.may_subscribe("open/#", "d"));
            assert!(!policy.may_subscribe("#", "d"), "it would deliver secret/x");
            assert!(!policy.may_subscribe("+/x", "d"), "it would deliver secret/x");
            assert!(policy.may_subscribe("$share/g/open/#", "d") && !policy.may_subscribe("$share/g/#", "d"));
        }
    }

    #[test]
    fn a_subscription_wider_than_what_is_allowed_is_denied() {
        let policy = device(&[statement(Effect::Allow, &[Subscribe], &["home/+/temperature"])], "d");
        assert!(policy.may_subscribe("home/kitchen/temperature", "d"));
        assert!(policy.may_subscribe("home/+/temperature", "d"));
        assert!(!policy.may_subscribe("home/#", "d"));
    }

    #[test]
    fn the_built_in_policy_keeps_devices_to_themselves_and_off_dollar_topics() {
        let policy = device(
            &[
                statement(Effect::Allow, &[Connect], &["${device}"]),
                statement(Effect::Allow, &[Publish, Subscribe], &["#", "$aws/things/${device}/#"]),
            ],
            "lamp",
        );
        assert!(policy.may_connect_as("lamp", false) && !policy.may_connect_as("other", false));
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
    fn a_gateway_speaks_for_the_devices_it_is_allowed_to_and_no_others() {
        let allow = statement(Effect::Allow, &[PublishFor], &["${device}-*", "meter"]);
        let deny = statement(Effect::Deny, &[PublishFor], &["*-secret"]);
        let policy = device(&[allow, deny], "gw");
        assert!(policy.may_publish_for("gw-1") && policy.may_publish_for("meter"));
        for other in ["gw", "meter-1", "other-1", "gw-secret", ""] {
            assert!(!policy.may_publish_for(other), "{other}");
        }
        let publisher = device(&[statement(Effect::Allow, &[Publish, Connect], &["*", "#"])], "gw");
        assert!(!publisher.may_publish_for("gw"), "what no statement allows is denied");
    }

    #[test]
    fn events_and_errors_may_be_subscribed_to_and_never_published() {
        let filters = ["$events/#", "$eventsful", "$drover/#"];
        let policy = device(&[statement(Effect::Allow, &[Publish, Subscribe], &filters)], "d");
        assert!(policy.may_subscribe("$events/presence/connected/+", "d"));
        assert!(!policy.may_publish("$events/presence/connected/d", "d") && !policy.may_publish("$events", "d"));
        assert!(policy.may_publish("$eventsful", "d"));
        assert!(policy.may_subscribe("$drover/errors/d", "d"));
        assert!(!policy.may_publish("$drover/errors/d", "d") && policy.may_publish("$drover/commands/d/1/x", "d"));
    }
}
