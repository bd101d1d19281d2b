//! What ingress nodes tell each other of shared subscriptions (ADR 32): which of them have members of which, who shall
//! give a message to one of them, and who cannot.
//!
//! Domain layer, pure. A node tells of a shared subscription once, however many members it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_types::TenantId;

/// Shared subscriptions a node tells of; members of others get what is published on their own node, as if there were no
/// other.
pub const GROUPS_MAX: usize = 10_000;
/// Bytes of what a node tells of them; with a batch, and all beginnings of filters, it is less than a gRPC message may have
/// (4 MiB).
const GROUPS_BYTES_MAX: usize = 512 * 1024;
/// Bytes around the names of one.
const FRAME_BYTES: usize = 16;

/// A shared subscription, with its `$share/NAME/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub tenant: TenantId,
    pub filter: Arc<str>,
}

impl Group {
    fn bytes(&self) -> usize {
        self.tenant.as_str().len() + self.filter.len() + FRAME_BYTES
    }
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
    counts: BTreeMap<Group, u32>,
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

    /// All there are, as far as there is room, for somebody who knows the version `known` of them; `None`: that is this one.
    pub fn news(&self, known: Option<u64>) -> Option<Vec<Group>> {
        let is_known = known == Some(self.version);
        (!is_known).then(|| self.told())
    }

    /// As many as there is room for. Tenants share it by bytes: what one has beyond its part costs no other one.
    fn told(&self) -> Vec<Group> {
        let mut all = Vec::<(usize, &Group)>::with_capacity(self.counts.len());
        for group in self.counts.keys() {
            let before = all.last().filter(|(_, last)| last.tenant == group.tenant).map_or(0, |(bytes, _)| *bytes);
            all.push((before + group.bytes(), group));
        }
        all.sort_by_key(|(of_tenant, _)| *of_tenant);
        let mut bytes = 0;
        let mut told = Vec::new();
        for (_, group) in all.into_iter().take(GROUPS_MAX) {
            bytes += group.bytes();
            if bytes > GROUPS_BYTES_MAX {
                break;
            }
            told.push(group.clone());
        }
        told
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

    #[test]
    fn a_tenant_with_many_long_names_leaves_room_to_others() {
        let (mut memberships, loud) = (Memberships::default(), TenantId::new("loud").expect("valid"));
        for number in 0..1_000 {
            memberships.join(&loud, &format!("$share/g/{number}/{}", "x".repeat(4_000)));
        }
        let quiet = TenantId::new("quiet").expect("valid");
        (0..100).for_each(|number| {
            memberships.join(&quiet, &format!("$share/g/{number}"));
        });
        let told = memberships.news(None).expect("there is news");
        assert!(told.iter().map(Group::bytes).sum::<usize>() <= GROUPS_BYTES_MAX);
        let count = |tenant: &TenantId| told.iter().filter(|group| group.tenant == *tenant).count();
        assert_eq!(count(&quiet), 100);
        assert!((100..200).contains(&count(&loud)), "{}", count(&loud));
    }
}
