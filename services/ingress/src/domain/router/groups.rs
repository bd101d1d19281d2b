//! Groups of shared subscriptions (MQTT 5 section 4.8.2): the members of one share name and filter take turns.
//!
//! Domain layer, pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Entry, Match, Subscriber};

/// The members of one shared subscription.
#[derive(Debug)]
pub(super) struct Group<S> {
    name: Box<str>,
    /// As subscribed to, with `$share/NAME/`.
    filter: Arc<str>,
    members: Vec<Entry<S>>,
    /// Whose turn it is; grows with every message.
    turn: AtomicUsize,
}

/// The members of the group `name`, which is made if it is not there.
pub(super) fn members<'a, S>(groups: &'a mut Vec<Group<S>>, name: &str, filter: &str) -> &'a mut Vec<Entry<S>> {
    let at = groups.iter().position(|group| group.is(name)).unwrap_or_else(|| {
        let group = Group { name: name.into(), filter: filter.into(), members: Vec::new(), turn: AtomicUsize::new(0) };
        groups.push(group);
        groups.len() - 1
    });
    &mut groups[at].members
}

/// Takes a member out of the group `name`; whether it was in it. A group without members is gone.
pub(super) fn leave<S>(groups: &mut Vec<Group<S>>, name: &str, number: Subscriber) -> bool {
    let Some(group) = groups.iter_mut().find(|group| group.is(name)) else { return false };
    let before = group.members.len();
    group.members.retain(|(known, _, _)| *known != number);
    let left = group.members.len() < before;
    groups.retain(|group| !group.members.is_empty());
    left
}

impl<S: Clone> Group<S> {
    /// The next member that is ready, else the next.
    pub fn choose(&self, ready: impl Fn(&S) -> bool) -> Option<Match<S>> {
        self.next(ready).or_else(|| self.next(|_| true))
    }

    /// The next member that is ready.
    pub fn next(&self, ready: impl Fn(&S) -> bool) -> Option<Match<S>> {
        let count = self.members.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..count).map(|n| &self.members[turn.wrapping_add(n) % count]);
        let (_, subscriber, options) = in_turn.find(|(_, subscriber, _)| ready(subscriber))?;
        Some(Match {
            subscriber: subscriber.clone(),
            qos: options.qos, // [MQTT-4.8.2-3]
            retain_as_published: options.retain_as_published,
            ids: options.id.into_iter().collect(),
            share: Some(self.filter.clone()),
        })
    }
}

impl<S> Group<S> {
    /// With its `$share/NAME/`.
    pub fn filter(&self) -> Arc<str> {
        self.filter.clone()
    }

    pub fn is(&self, name: &str) -> bool {
        *self.name == *name
    }
}
