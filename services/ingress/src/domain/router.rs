//! Who gets a message: the subscriptions of this node, as trees of topic levels for each tenant.
//!
//! Domain layer, pure. Finding the subscribers of a topic visits only branches that match its levels, so it costs
//! nothing for topics and subscriptions that do not match. A tenant's trees are reachable only by the tenant's id.
//! Shared subscriptions have a tree of their own, whose leaves are groups: of each group one member gets the message.

mod children;
mod groups;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use drover_mqtt::SubscriptionId;
use drover_types::{Qos, TenantId};

use crate::domain::filter::share;
use groups::Group;
use tree::Tree;

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

impl Default for Options {
    /// The least there is.
    fn default() -> Self {
        Self { qos: Qos::AtMostOnce, no_local: false, retain_as_published: false, id: None }
    }
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
    /// The shared subscription, with its `$share/NAME/`, if it is one.
    pub share: Option<Arc<str>>,
}

/// A subscription: the subscriber's number, who that is, and what it wants.
type Entry<S> = (Subscriber, S, Options);

/// The subscriptions of this node.
#[derive(Debug)]
pub struct Router<S> {
    tenants: HashMap<TenantId, Subscriptions<S>>,
}

/// The subscriptions of one tenant.
#[derive(Debug)]
struct Subscriptions<S> {
    own: Tree<Entry<S>>,
    shared: Option<Box<Tree<Group<S>>>>,
}

impl<S> Default for Router<S> {
    fn default() -> Self {
        Self { tenants: HashMap::new() }
    }
}

impl<S> Default for Subscriptions<S> {
    fn default() -> Self {
        Self { own: Tree::default(), shared: None }
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
        let subscriptions = self.tenants.entry(tenant.clone()).or_default();
        let entry = (number, subscriber, options);
        let entries = match share(filter) {
            None => subscriptions.own.at(filter),
            Some((name, topics)) => {
                let groups = subscriptions.shared.get_or_insert_default().at(topics);
                groups::members(groups, name, filter)
            }
        };
        let before = entries.len();
        entries.retain(|(known, _, _)| *known != number);
        let new = entries.len() == before;
        if entries.is_empty() {
            entries.reserve_exact(1); // most filters are those of one client
        }
        entries.push(entry);
        new
    }

    /// Removes a subscription, with the branches that then hold nothing; whether it was there.
    pub fn unsubscribe(&mut self, tenant: &TenantId, filter: &str, number: Subscriber) -> bool {
        let Some(subscriptions) = self.tenants.get_mut(tenant) else { return false };
        let mut removed = false;
        match share(filter) {
            None => subscriptions.own.remove(filter, |entries| {
                let before = entries.len();
                entries.retain(|(known, _, _)| *known != number);
                removed = entries.len() < before;
            }),
            Some((name, topics)) => {
                if let Some(shared) = &mut subscriptions.shared {
                    shared.remove(topics, |groups| removed = groups::leave(groups, name, number));
                }
                subscriptions.shared.take_if(|shared| shared.is_empty());
            }
        }
        if subscriptions.own.is_empty() && subscriptions.shared.is_none() {
            self.tenants.remove(tenant);
        }
        removed
    }

    /// Every subscriber of a message of `publisher` to `topic`, once; and of each group of shared subscriptions one, if
    /// possible one that is `ready`.
    pub fn matches(
        &self,
        tenant: &TenantId,
        topic: &str,
        publisher: Option<Subscriber>,
        ready: impl Fn(&S) -> bool,
    ) -> Vec<Match<S>> {
        let mut found = self.own_matches(tenant, topic, publisher);
        found.extend(self.groups(tenant, topic).into_iter().filter_map(|group| group.choose(&ready)));
        found
    }

    /// As [`Router::matches`], without shared subscriptions.
    pub fn own_matches(&self, tenant: &TenantId, topic: &str, publisher: Option<Subscriber>) -> Vec<Match<S>> {
        let Some(subscriptions) = self.tenants.get(tenant) else { return Vec::new() };
        let mut entries = Vec::new();
        subscriptions.own.collect(topic, &mut entries);
        entries.retain(|(number, _, options)| !(options.no_local && publisher == Some(*number)));
        entries.sort_by_key(|(number, _, _)| *number);
        entries.chunk_by(|a, b| a.0 == b.0).map(merge).collect()
    }

    /// The shared subscriptions that match a topic, with their `$share/NAME/`.
    pub fn shares(&self, tenant: &TenantId, topic: &str) -> Vec<Arc<str>> {
        self.groups(tenant, topic).into_iter().map(Group::filter).collect()
    }

    fn groups(&self, tenant: &TenantId, topic: &str) -> Vec<&Group<S>> {
        let mut groups = Vec::new();
        if let Some(shared) = self.tenants.get(tenant).and_then(|subscriptions| subscriptions.shared.as_ref()) {
            shared.collect(topic, &mut groups);
        }
        groups
    }

    /// The next member of the shared subscription `filter` that is `ready`; `None` if none is.
    pub fn member(&self, tenant: &TenantId, filter: &str, ready: impl Fn(&S) -> bool) -> Option<Match<S>> {
        let (name, topics) = share(filter)?;
        let groups = self.tenants.get(tenant)?.shared.as_ref()?.get(topics)?;
        groups.iter().find(|group| group.is(name))?.next(ready)
    }

    /// Whether no subscription is left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

fn merge<S: Clone>(same: &[&Entry<S>]) -> Match<S> {
    Match {
        subscriber: same[0].1.clone(),
        qos: same.iter().map(|(_, _, options)| options.qos).max().unwrap_or(Qos::AtMostOnce),
        retain_as_published: same.iter().any(|(_, _, options)| options.retain_as_published),
        ids: same.iter().filter_map(|(_, _, options)| options.id).collect(),
        share: None,
    }
}
