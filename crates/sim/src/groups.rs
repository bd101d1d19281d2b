//! Consumer groups of a simulated bus: who holds which partition, and how partitions move.
//!
//! Pure state: a partition leaves a member only after that member was told and polled again, left, or timed out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_bus::{GroupConfig, TopicPartition};
use tokio::time::Instant;

/// One group.
#[derive(Default)]
pub struct Group {
    members: BTreeMap<String, Member>,
    instances: u64,
}

struct Member {
    /// Tells this holder of the name from earlier ones.
    instance: u64,
    owned: BTreeSet<TopicPartition>,
    target: BTreeSet<TopicPartition>,
    /// Told to give up at the last poll.
    leaving: BTreeSet<TopicPartition>,
    polled: Instant,
    session_timeout: Duration,
}

/// What a member has to hear before any record.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

impl Group {
    /// Adds a member, replacing (and fencing) an earlier holder of the name, whose partitions it takes over.
    pub fn join(&mut self, config: &GroupConfig, all: &BTreeSet<TopicPartition>) -> u64 {
        self.instances += 1;
        let member = Member {
            instance: self.instances,
            owned: BTreeSet::new(),
            target: BTreeSet::new(),
            leaving: BTreeSet::new(),
            polled: Instant::now(),
            session_timeout: config.session_timeout,
        };
        self.members.insert(config.member.clone(), member);
        self.distribute(all);
        self.instances
    }

    /// Removes a member if it is still this instance.
    pub fn leave(&mut self, member: &str, instance: u64, all: &BTreeSet<TopicPartition>) {
        if self.members.get(member).is_some_and(|m| m.instance == instance) {
            self.members.remove(member);
            self.distribute(all);
        }
    }

    /// Takes every partition from everybody and deals them anew, as a coordinator's change of generation does.
    pub fn shuffle(&mut self, by: usize) {
        let targets: Vec<_> = self.members.values().map(|m| m.target.clone()).collect();
        let count = targets.len();
        for (i, member) in self.members.values_mut().enumerate() {
            member.target = targets[(i + by) % count].clone();
        }
    }

    /// Whether the instance is a member and holds all of `partitions`.
    pub fn holds<'a>(
        &self,
        member: &str,
        instance: u64,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> bool {
        let live = self.members.get(member).filter(|m| m.instance == instance);
        live.is_some_and(|m| partitions.all(|at| m.owned.contains(at)))
    }

    /// A member polls: gives up what it was told to, and hears what changed. `None`: it is fenced.
    pub fn poll(&mut self, member: &str, instance: u64, all: &BTreeSet<TopicPartition>) -> Option<Option<Notice>> {
        let now = Instant::now();
        let me = self.members.get_mut(member).filter(|m| m.instance == instance)?;
        me.polled = now;
        let left = std::mem::take(&mut me.leaving);
        me.owned.retain(|at| !left.contains(at));
        self.expire(now, all);
        let me = self.members.get_mut(member)?;
        let leaving: BTreeSet<_> = me.owned.difference(&me.target).cloned().collect();
        if !leaving.is_empty() {
            me.leaving = leaving.clone();
            return Some(Some(Notice::Revoked(leaving.into_iter().collect())));
        }
        let wanted: Vec<_> = me.target.difference(&me.owned).cloned().collect();
        let free: Vec<_> =
            wanted.into_iter().filter(|at| !self.members.values().any(|m| m.owned.contains(at))).collect();
        if free.is_empty() {
            return Some(None);
        }
        let me = self.members.get_mut(member)?;
        me.owned.extend(free.iter().cloned());
        Some(Some(Notice::Assigned(free)))
    }

    /// Partitions the member holds and need not give up.
    pub fn owned(&self, member: &str) -> Vec<TopicPartition> {
        self.members.get(member).map(|m| m.owned.iter().cloned().collect()).unwrap_or_default()
    }

    fn expire(&mut self, now: Instant, all: &BTreeSet<TopicPartition>) {
        let before = self.members.len();
        self.members.retain(|_, m| now.duration_since(m.polled) <= m.session_timeout);
        if self.members.len() != before {
            self.distribute(all);
        }
    }

    /// Deals the partitions evenly, leaving as many as possible where they are.
    fn distribute(&mut self, all: &BTreeSet<TopicPartition>) {
        let count = self.members.len();
        if count == 0 {
            return;
        }
        let share = all.len().div_ceil(count);
        let mut free: BTreeSet<_> = all.clone();
        for member in self.members.values_mut() {
            member.target = member.owned.iter().filter(|at| free.contains(at)).take(share).cloned().collect();
            free.retain(|at| !member.target.contains(at));
        }
        for at in free {
            let fewest = self.members.values_mut().min_by_key(|m| m.target.len());
            fewest.expect("there is a member").target.insert(at);
        }
    }
}
