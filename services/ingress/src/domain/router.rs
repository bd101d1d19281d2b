//! Who gets a message: the subscriptions of this node, as a tree of topic levels for each tenant.
//!
//! Domain layer, pure. Finding the subscribers of a topic visits only branches that match its levels, so it costs
//! nothing for topics and subscriptions that do not match. A tenant's tree is reachable only by the tenant's id.

use std::collections::HashMap;

use drover_mqtt::SubscriptionId;
use drover_types::{Qos, TenantId};

/// Names a subscriber: the number of its session.
pub type Subscriber = u64;

/// How one subscription wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Highest QoS to deliver at.
    pub qos: Qos,
    /// Nothing its own client has published [MQTT-3.8.3-3].
    pub no_local: bool,
    /// Keep the retain flag as the publisher set it [MQTT-3.3.1-13].
    pub retain_as_published: bool,
    pub id: Option<SubscriptionId>,
}

/// One subscriber of a message, however many of its filters match [MQTT-3.3.4-2].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<S> {
    pub subscriber: S,
    /// Highest of the matching subscriptions; the message's own QoS still caps it.
    pub qos: Qos,
    pub retain_as_published: bool,
    /// Identifiers of all matching subscriptions that have one [MQTT-3.3.4-4].
    pub ids: Vec<SubscriptionId>,
}

/// The subscriptions of this node.
#[derive(Debug)]
pub struct Router<S> {
    tenants: HashMap<TenantId, Node<S>>,
}

#[derive(Debug)]
struct Node<S> {
    children: HashMap<Box<str>, Node<S>>,
    /// Below `+`.
    any: Option<Box<Node<S>>>,
    /// Filters that end here.
    here: Vec<(Subscriber, S, Options)>,
    /// Filters that end here with `#`: this level and all below.
    below: Vec<(Subscriber, S, Options)>,
}

impl<S> Default for Router<S> {
    fn default() -> Self {
        Self { tenants: HashMap::new() }
    }
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<S: Clone> Router<S> {
    /// Adds a subscription, or replaces the one of the same subscriber and filter [MQTT-3.8.4-3]; whether it is new.
    pub fn subscribe(
        &mut self,
        tenant: &TenantId,
        filter: &str,
        number: Subscriber,
        subscriber: S,
        options: Options,
    ) -> bool {
        let mut node = self.tenants.entry(tenant.clone()).or_default();
        for level in filter.split('/') {
            node = match level {
                "#" => break,
                "+" => node.any.get_or_insert_default(),
                text => node.children.entry(text.into()).or_default(),
            };
        }
        let list = if ends_with_hash(filter) { &mut node.below } else { &mut node.here };
        let new = !remove(list, number);
        list.push((number, subscriber, options));
        new
    }

    /// Removes a subscription, with the branches that then hold nothing; whether it was there.
    pub fn unsubscribe(&mut self, tenant: &TenantId, filter: &str, number: Subscriber) -> bool {
        let Some(root) = self.tenants.get_mut(tenant) else { return false };
        let removed = root.remove(filter.split('/'), number);
        if root.is_empty() {
            self.tenants.remove(tenant);
        }
        removed
    }

    /// Every subscriber of a message of `publisher` to `topic`, once.
    pub fn matches(&self, tenant: &TenantId, topic: &str, publisher: Option<Subscriber>) -> Vec<Match<S>> {
        let Some(root) = self.tenants.get(tenant) else { return Vec::new() };
        let mut found = Vec::new();
        root.collect(Some(topic), !topic.starts_with('$'), &mut found);
        found.retain(|(number, _, options)| !(options.no_local && publisher == Some(*number)));
        found.sort_by_key(|(number, _, _)| *number);
        found.chunk_by(|a, b| a.0 == b.0).map(merge).collect()
    }

    /// Whether no subscription is left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

impl<S> Node<S> {
    /// Adds what matches `rest`, the levels of the topic below this node; `None`: the topic ends here. Wildcards do
    /// not match a first level that starts with `$` [MQTT-4.7.2-1].
    fn collect<'a>(&'a self, rest: Option<&str>, wildcards: bool, found: &mut Vec<&'a (Subscriber, S, Options)>) {
        if wildcards {
            found.extend(&self.below);
        }
        let Some(rest) = rest else {
            found.extend(&self.here);
            return;
        };
        let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
        if let Some(child) = self.children.get(level) {
            child.collect(rest, true, found);
        }
        if let Some(any) = self.any.as_ref().filter(|_| wildcards) {
            any.collect(rest, true, found);
        }
    }

    fn remove<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>, number: Subscriber) -> bool {
        match levels.next() {
            None => remove(&mut self.here, number),
            Some("#") => remove(&mut self.below, number),
            Some("+") => {
                let removed = self.any.as_mut().is_some_and(|any| any.remove(levels, number));
                self.any.take_if(|any| any.is_empty());
                removed
            }
            Some(level) => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let removed = child.remove(levels, number);
                if child.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

/// Takes a subscriber off a list; whether it was there.
fn remove<S>(list: &mut Vec<(Subscriber, S, Options)>, number: Subscriber) -> bool {
    let before = list.len();
    list.retain(|(known, _, _)| *known != number);
    list.len() < before
}

fn ends_with_hash(filter: &str) -> bool {
    filter == "#" || filter.ends_with("/#")
}

fn merge<S: Clone>(same: &[&(Subscriber, S, Options)]) -> Match<S> {
    Match {
        subscriber: same[0].1.clone(),
        qos: same.iter().map(|(_, _, options)| options.qos).max().unwrap_or(Qos::AtMostOnce),
        retain_as_published: same.iter().any(|(_, _, options)| options.retain_as_published),
        ids: same.iter().filter_map(|(_, _, options)| options.id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Options = Options { qos: Qos::AtLeastOnce, no_local: false, retain_as_published: false, id: None };

    fn home() -> TenantId {
        TenantId::new("home").expect("valid")
    }

    fn router(filters: &[(&str, Subscriber, Options)]) -> Router<Subscriber> {
        let mut router = Router::default();
        for (filter, number, options) in filters {
            router.subscribe(&home(), filter, *number, *number, *options);
        }
        router
    }

    fn subscribers(router: &Router<Subscriber>, topic: &str) -> Vec<Subscriber> {
        router.matches(&home(), topic, None).into_iter().map(|m| m.subscriber).collect()
    }

    #[test]
    fn overlapping_filters_deliver_once_at_the_highest_qos_with_all_ids() {
        let with = |qos, id| Options { qos, id: SubscriptionId::new(id), ..PLAIN };
        let router = router(&[
            ("a/#", 1, with(Qos::AtMostOnce, 10)),
            ("a/+", 1, with(Qos::AtLeastOnce, 20)),
            ("a/b", 1, with(Qos::AtMostOnce, 0)),
        ]);
        let found = router.matches(&home(), "a/b", None);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].qos, Qos::AtLeastOnce);
        let mut ids: Vec<u32> = found[0].ids.iter().map(|id| id.get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [10, 20]);
    }

    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_first() {
        let router = router(&[("a", 1, PLAIN), ("a", 1, Options { qos: Qos::AtMostOnce, ..PLAIN })]);
        assert_eq!(router.matches(&home(), "a", None)[0].qos, Qos::AtMostOnce);
    }

    #[test]
    fn no_local_keeps_a_message_from_its_publisher_only() {
        let router = router(&[("a", 1, Options { no_local: true, ..PLAIN }), ("a", 2, PLAIN)]);
        let found = router.matches(&home(), "a", Some(1));
        assert_eq!(found.iter().map(|m| m.subscriber).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn another_tenants_subscriptions_are_out_of_reach() {
        let router = router(&[("#", 1, PLAIN)]);
        let other = TenantId::new("other").expect("valid");
        assert!(router.matches(&other, "a", None).is_empty());
    }

    #[test]
    fn what_is_unsubscribed_leaves_nothing_behind() {
        let filters = ["#", "+", "a/b/c", "a/+/c/#", "$x/#"];
        let mut router = router(&filters.map(|filter| (filter, 1, PLAIN)));
        assert!(filters.iter().all(|filter| router.unsubscribe(&home(), filter, 1)));
        assert!(router.is_empty() && !router.unsubscribe(&home(), "#", 1));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")]
    }

    fn topics() -> impl Strategy<Value = String> {
        proptest::collection::vec(level(), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("empty", |t| !t.is_empty())
    }

    fn filters() -> impl Strategy<Value = String> {
        let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 0..4);
        (levels, any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
            levels.extend(rest.then_some("#"));
            Some(levels.join("/")).filter(|filter| !filter.is_empty())
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_exactly_what_matching_one_by_one_finds(
            filters in proptest::collection::vec(filters(), 0..20),
            topic in topics(),
            removed in any::<prop::sample::Index>(),
        ) {
            let mut router = Router::default();
            for (number, filter) in (1..).zip(&filters) {
                router.subscribe(&home(), filter, number, number, PLAIN);
            }
            let gone = if filters.is_empty() { 0 } else { removed.index(filters.len()) as u64 + 1 };
            if gone > 0 {
                router.unsubscribe(&home(), &filters[gone as usize - 1], gone);
            }
            let expected: Vec<u64> = (1..)
                .zip(&filters)
                .filter(|(number, filter)| *number != gone && drover_types::matches(filter, &topic))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(subscribers(&router, &topic), expected);
        }
    }
}
