//! What ingress nodes tell each other of shared subscriptions (ADR 32): which of them have members of which, who shall
//! give a message to one of them, and who cannot.
//!
//! Domain layer, pure. A node tells of a shared subscription once, however many members it has.

use std::collections::HashMap;
use std::sync::Arc;

use drover_types::TenantId;

/// Shared subscriptions a node tells of; members of others get what is published on their own node, as if there were no
/// other.
pub const GROUPS_MAX: usize = 10_000;

/// A shared subscription, with its `$share/NAME/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    pub tenant: TenantId,
    pub filter: Arc<str>,
}

/// One message for one member of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// With its `$share/NAME/`.
    pub filter: Arc<str>,
    /// Whether a member that is away may have it, for no node has one that is there.
    pub absent: bool,
    /// Nodes that could not give it to anybody.
    pub tried: Vec<Arc<str>>,
    /// It was for somebody else before: those who have subscribed for themselves have the message.
    pub again: bool,
}

impl Share {
    /// For a member that is there, on whatever node.
    pub fn new(filter: Arc<str>) -> Self {
        Self { filter, absent: false, tried: Vec::new(), again: false }
    }
}

/// A share that a node could not give to anybody: which of a batch's messages, and which of its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub message: usize,
    pub share: usize,
}

/// The shared subscriptions of this node.
#[derive(Debug, Default)]
pub struct Memberships {
    /// Members of each.
    counts: HashMap<Group, u32>,
    /// Grows with each subscription that comes or goes.
    version: u64,
}

impl Memberships {
    /// A member more; whether it is the first.
    pub fn join(&mut self, tenant: &TenantId, filter: &str) -> bool {
        let count = self.counts.entry(group(tenant, filter)).or_default();
        *count += 1;
        let first = *count == 1;
        self.version += u64::from(first);
        first
    }

    /// A member less.
    pub fn leave(&mut self, tenant: &TenantId, filter: &str) {
        let group = group(tenant, filter);
        let Some(count) = self.counts.get_mut(&group) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&group);
            self.version += 1;
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// All there are, for somebody who knows the version `known` of them; `None`: that is this one.
    pub fn news(&self, known: Option<u64>) -> Option<Vec<Group>> {
        let is_known = known == Some(self.version);
        (!is_known).then(|| self.counts.keys().take(GROUPS_MAX).cloned().collect())
    }
}

fn group(tenant: &TenantId, filter: &str) -> Group {
    Group { tenant: tenant.clone(), filter: filter.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_subscription_is_told_of_once_and_when_its_last_member_has_gone() {
        let (mut memberships, home) = (Memberships::default(), TenantId::default_tenant());
        let known = |memberships: &Memberships| Some(memberships.version());
        assert_eq!(memberships.news(None), Some(Vec::new()));
        let before = known(&memberships);
        assert!(memberships.join(&home, "$share/g/a") && !memberships.join(&home, "$share/g/a"));
        assert_eq!(memberships.news(before), Some(vec![group(&home, "$share/g/a")]));
        let before = known(&memberships);
        memberships.leave(&home, "$share/g/a");
        memberships.leave(&home, "$share/never/joined");
        assert_eq!(memberships.news(before), None, "a member is left");
        memberships.leave(&home, "$share/g/a");
        assert_eq!(memberships.news(before), Some(Vec::new()));
    }

    #[test]
    fn no_more_than_so_many_are_told_of() {
        let mut memberships = Memberships::default();
        for number in 0..=GROUPS_MAX {
            memberships.join(&TenantId::default_tenant(), &format!("$share/g/{number}"));
        }
        assert_eq!(memberships.news(None).map(|groups| groups.len()), Some(GROUPS_MAX));
    }
}
