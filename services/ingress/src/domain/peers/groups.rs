//! Shared subscriptions of other nodes: which nodes have members of which. They take turns.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use drover_types::TenantId;

use crate::domain::router::{Options, Router};
use crate::domain::shares::Group;

/// Nodes remembered; members on others get nothing from here.
const NODES_MAX: usize = 1_024;

/// What other nodes have told, as subscriptions of the nodes themselves.
#[derive(Debug, Default)]
pub struct Groups(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<Arc<str>, Told>,
    router: Router<Arc<str>>,
    /// Nodes that were given a number.
    numbers: u64,
}

/// What one node has told.
#[derive(Debug)]
struct Told {
    number: u64,
    groups: BTreeSet<Group>,
}

impl Groups {
    /// A node tells all there are of it.
    pub fn hear(&self, node: &str, groups: Vec<Group>) {
        let groups: BTreeSet<Group> = groups.into_iter().collect();
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Inner { nodes, router, numbers } = &mut *inner;
        if !nodes.contains_key(node) {
            if nodes.len() >= NODES_MAX {
                return;
            }
            *numbers += 1;
            nodes.insert(node.into(), Told { number: *numbers, groups: BTreeSet::new() });
        }
        let Some((name, _)) = nodes.get_key_value(node) else { return };
        let name = name.clone();
        let Some(told) = nodes.get_mut(node) else { return };
        let before = std::mem::take(&mut told.groups);
        for Group { tenant, filter } in before.difference(&groups) {
            router.unsubscribe(tenant, filter, told.number);
        }
        for Group { tenant, filter } in groups.difference(&before) {
            router.subscribe(tenant, filter, told.number, name.clone(), Options::default());
        }
        told.groups = groups;
    }

    /// Those that match a topic, with their `$share/NAME/`.
    pub fn matching(&self, tenant: &TenantId, topic: &str) -> Vec<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).router.shares(tenant, topic)
    }

    /// The next node that has members and is `able`.
    pub fn next(&self, tenant: &TenantId, filter: &str, able: impl Fn(&Arc<str>) -> bool) -> Option<Arc<str>> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.router.member(tenant, filter, able).map(|found| found.subscriber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_and_the_last_word_of_each_counts() {
        let (groups, home) = (Groups::default(), TenantId::default_tenant());
        let group = |filter: &str| Group { tenant: home.clone(), filter: filter.into() };
        groups.hear("b", vec![group("$share/g/a/+"), group("$share/h/x")]);
        groups.hear("c", vec![group("$share/g/a/+")]);
        assert_eq!(groups.matching(&home, "a/1"), [Arc::<str>::from("$share/g/a/+")]);
        assert!(groups.matching(&TenantId::new("other").expect("valid"), "a/1").is_empty());
        let next =
            |able: &dyn Fn(&Arc<str>) -> bool| groups.next(&home, "$share/g/a/+", able).map(|node| node.to_string());
        let mut two = [next(&|_| true), next(&|_| true)];
        two.sort();
        assert_eq!(two, [Some("b".to_owned()), Some("c".to_owned())]);
        assert_eq!(next(&|node| **node != *"c").as_deref(), Some("b"));
        groups.hear("b", Vec::new());
        assert_eq!([next(&|_| true), next(&|_| true)], [Some("c".to_owned()), Some("c".to_owned())]);
        assert_eq!(next(&|_| false), None);
        assert!(groups.matching(&home, "x").is_empty());
    }
}
