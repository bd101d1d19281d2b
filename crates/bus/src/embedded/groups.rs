//! Consumer groups: who is in, who holds which partition, who shall hold it.
//!
//! Pure: time arrives as an argument. A partition changes hands only after its holder was told and polled again, or left,
//! or was silent for its session timeout; and never while a commit of the group is being made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{GroupConfig, Membership, Topic, TopicPartition};

/// The member is not, or no longer, what it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fenced;

/// What a member has to be told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Gained(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    Nothing,
}

/// Partition counts of the topics there are.
pub(super) type Counts<'a> = &'a dyn Fn(&str) -> u32;

#[derive(Debug)]
struct Member {
    /// Generation it joined with: tells it from others of the same name.
    joined: u64,
    generation: u64,
    topics: Vec<Topic>,
    session_timeout: Duration,
    max_poll_interval: Duration,
    seen: Instant,
    polling: bool,
    /// Its own until it gives them up.
    held: BTreeSet<TopicPartition>,
    /// What it shall hold.
    target: BTreeSet<TopicPartition>,
    /// Told to leave: given up by the next poll.
    leaving: Vec<TopicPartition>,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<String, Member>,
    /// Partitions of members that left and may come back, until when.
    departed: BTreeMap<TopicPartition, (String, Instant)>,
    /// Commits on their way to the disk.
    committing: u32,
    changed: Arc<Notify>,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    generation: u64,
}

impl Groups {
    /// Adds a member; an earlier one of the same name is fenced and its partitions wait for this one.
    pub fn join(&mut self, config: &GroupConfig, now: Instant, counts: Counts<'_>) -> (Membership, Arc<Notify>) {
        self.generation += 1;
        let group = self.groups.entry(config.group.clone()).or_default();
        if let Some(former) = group.members.remove(&config.member) {
            group.remember(&config.member, former, now);
        }
        let member = Member {
            joined: self.generation,
            generation: self.generation,
            topics: config.topics.clone(),
            session_timeout: config.session_timeout,
            max_poll_interval: config.max_poll_interval,
            seen: now,
            polling: false,
            held: BTreeSet::new(),
            target: BTreeSet::new(),
            leaving: Vec::new(),
        };
        group.members.insert(config.member.clone(), member);
        group.rebalance(now, counts);
        let membership =
            Membership { group: config.group.clone(), member: config.member.clone(), generation: self.generation };
        (membership, group.changed.clone())
    }

    /// Removes a member; nothing happens if it was fenced before.
    pub fn leave(&mut self, membership: &Membership, now: Instant, counts: Counts<'_>) {
        if self.member(membership).is_err() {
            return;
        }
        let group = self.groups.get_mut(&membership.group).expect("just found");
        if let Some(member) = group.members.remove(&membership.member) {
            group.remember(&membership.member, member, now);
        }
        group.rebalance(now, counts);
        self.forget_empty(now);
    }

    /// Shares the partitions out anew, after topics were created or deleted.
    pub fn topics_changed(&mut self, now: Instant, counts: Counts<'_>) {
        self.groups.values_mut().for_each(|group| group.rebalance(now, counts));
    }

    /// Marks the beginning of a poll: until [`Self::polled`] the member counts as alive.
    pub fn polling(&mut self, membership: &Membership, now: Instant) -> Result<(), Fenced> {
        let member = self.member(membership)?;
        member.polling = true;
        member.seen = now;
        Ok(())
    }

    /// Marks the end of a poll of the member that joined with generation `joined`.
    pub fn polled(&mut self, group: &str, member: &str, joined: u64, now: Instant) {
        let member = self.groups.get_mut(group).and_then(|group| group.members.get_mut(member));
        if let Some(member) = member.filter(|member| member.joined == joined) {
            member.polling = false;
            member.seen = now;
        }
    }

    /// What the member has to be told next. `again`: this is a new poll, so partitions announced as leaving are given up.
    /// `membership` is brought up to date.
    pub fn step(
        &mut self,
        membership: &mut Membership,
        again: bool,
        now: Instant,
        counts: Counts<'_>,
    ) -> Result<Step, Fenced> {
        self.expire(&membership.group, now, counts);
        let generation = self.generation + 1;
        let member = self.member(membership)?;
        if again && !member.leaving.is_empty() {
            for gone in std::mem::take(&mut member.leaving) {
                member.held.remove(&gone);
            }
            member.generation = generation;
            membership.generation = generation;
            self.generation = generation;
            self.groups[&membership.group].changed.notify_waiters();
        }
        let member = self.member(membership)?;
        let leaving: Vec<_> = member.held.difference(&member.target).cloned().collect();
        if !leaving.is_empty() {
            member.leaving.clone_from(&leaving);
            return Ok(Step::Revoked(leaving));
        }
        Ok(self.gain(membership))
    }

    fn gain(&mut self, membership: &Membership) -> Step {
        let group = self.groups.get_mut(&membership.group).expect("the member was just found in it");
        if group.committing > 0 {
            return Step::Nothing;
        }
        let wanted = &group.members[&membership.member].target;
        let free = |at: &TopicPartition| group.members.values().all(|m| !m.held.contains(at));
        let gained: Vec<_> = wanted.iter().filter(|at| free(at)).cloned().collect();
        if gained.is_empty() {
            return Step::Nothing;
        }
        let member = group.members.get_mut(&membership.member).expect("the member was just found in it");
        member.held.extend(gained.iter().cloned());
        Step::Gained(gained)
    }

    /// When the first member that is not polling will have been silent for too long.
    pub fn next_expiry(&self, group: &str) -> Option<Instant> {
        let members = self.groups.get(group)?.members.values();
        members.filter(|m| !m.polling).map(|m| m.seen + m.max_poll_interval).min()
    }

    /// Checks that the member may commit for these partitions and keeps them from moving until [`Self::end_commit`].
    pub fn begin_commit<'a>(
        &mut self,
        membership: &Membership,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<(), Fenced> {
        let member = self.member(membership)?;
        if !partitions.all(|at| member.held.contains(at)) {
            return Err(Fenced);
        }
        self.groups.get_mut(&membership.group).expect("the member was just found in it").committing += 1;
        Ok(())
    }

    /// The commit is durable, or failed.
    pub fn end_commit(&mut self, group: &str) {
        if let Some(group) = self.groups.get_mut(group) {
            group.committing -= 1;
            group.changed.notify_waiters();
        }
    }

    fn member(&mut self, membership: &Membership) -> Result<&mut Member, Fenced> {
        let group = self.groups.get_mut(&membership.group).ok_or(Fenced)?;
        let member = group.members.get_mut(&membership.member).ok_or(Fenced)?;
        if member.generation == membership.generation { Ok(member) } else { Err(Fenced) }
    }

    fn expire(&mut self, group: &str, now: Instant, counts: Counts<'_>) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let before = group.members.len();
        group.members.retain(|_, m| m.polling || now < m.seen + m.max_poll_interval);
        if group.members.len() < before {
            group.rebalance(now, counts);
        }
    }

    fn forget_empty(&mut self, now: Instant) {
        self.groups.retain(|_, group| {
            group.departed.retain(|_, (_, until)| now < *until);
            group.committing > 0 || !group.members.is_empty() || !group.departed.is_empty()
        });
    }
}

impl Group {
    fn remember(&mut self, name: &str, member: Member, now: Instant) {
        let until = now + member.session_timeout;
        let kept = member.held.intersection(&member.target);
        self.departed.extend(kept.map(|at| (at.clone(), (name.to_owned(), until))));
    }

    /// Shares partitions out evenly; each stays with its holder, or goes back to a member that came back, if it can.
    fn rebalance(&mut self, now: Instant, counts: Counts<'_>) {
        self.departed.retain(|_, (_, until)| now < *until);
        let mut former = BTreeMap::new();
        for of in [|m: &Member| m.held.clone(), |m: &Member| m.target.clone()] {
            for (name, member) in &self.members {
                former.extend(of(member).into_iter().map(|at| (at, name.clone())));
            }
        }
        let back = self.departed.iter().filter(|(_, (name, _))| self.members.contains_key(name));
        former.extend(back.map(|(at, (name, _))| (at.clone(), name.clone())));
        self.departed.retain(|_, (name, _)| !self.members.contains_key(name));
        let subscriptions = self.members.iter().map(|(name, m)| (name.as_str(), m.topics.as_slice())).collect();
        let mut targets = assign(&subscriptions, &former, counts);
        for (name, member) in &mut self.members {
            member.target = targets.remove(name).unwrap_or_default();
        }
        self.changed.notify_waiters();
    }
}

/// An even assignment, topic by topic, that keeps `former` holders where evenness allows.
fn assign(
    subscriptions: &BTreeMap<&str, &[Topic]>,
    former: &BTreeMap<TopicPartition, String>,
    counts: Counts<'_>,
) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let mut targets: BTreeMap<String, BTreeSet<TopicPartition>> = BTreeMap::new();
    let topics: BTreeSet<&Topic> = subscriptions.values().flat_map(|topics| topics.iter()).collect();
    for topic in topics {
        let members: Vec<&str> =
            subscriptions.iter().filter(|(_, t)| t.contains(topic)).map(|(name, _)| *name).collect();
        let partitions: Vec<_> = (0..counts(topic)).map(|p| TopicPartition::new(topic.clone(), p)).collect();
        let mut quotas = quotas(&members, &partitions, former, &targets);
        let mut take = |at: &TopicPartition, name: &str| {
            let Some(quota) = quotas.get_mut(name).filter(|quota| **quota > 0) else { return false };
            *quota -= 1;
            targets.entry(name.to_owned()).or_default().insert(at.clone())
        };
        let moved: Vec<_> = partitions.iter().filter(|at| !former.get(at).is_some_and(|name| take(at, name))).collect();
        for at in moved {
            members.iter().any(|name| take(at, name));
        }
    }
    targets
}

/// How many partitions of a topic each member gets: equal shares; one more for those who held more, then for those with
/// the fewest partitions of other topics.
fn quotas(
    members: &[&str],
    partitions: &[TopicPartition],
    former: &BTreeMap<TopicPartition, String>,
    targets: &BTreeMap<String, BTreeSet<TopicPartition>>,
) -> BTreeMap<String, usize> {
    let (share, extra) = (partitions.len() / members.len(), partitions.len() % members.len());
    let held = |name: &str| partitions.iter().filter(|at| former.get(at).is_some_and(|n| n == name)).count();
    let load = |name: &str| targets.get(name).map_or(0, BTreeSet::len);
    let mut order = members.to_vec();
    order.sort_by_key(|name| (load(name), held(name) <= share));
    order.iter().enumerate().map(|(rank, name)| ((*name).to_owned(), share + usize::from(rank < extra))).collect()
}
