//! One consumer group: who is in it, which generation counts, and who waits for whom.
//!
//! Domain layer, sans-IO: every call takes the time and returns the answers that are now due. A request that must
//! wait leaves its [`Ticket`]; the answer carries it. The one rule: a generation begins only when every member has
//! joined it or was removed, and only members of the current generation may commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::exchange::{Answer, Identity, Join, Joined, Refused, Sync, Synced, Ticket};
use super::member::{Member, Protocol, Waiting};

/// Most members of one group, those that only hold an id included.
pub const MEMBERS_MAX: usize = 500;
/// Session timeouts a member may ask for, milliseconds: shorter ones lose members on a busy machine, longer ones
/// leave partitions unread for as long.
pub const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=1_800_000;
/// Longest time a rebalance waits for its members, milliseconds.
pub const REBALANCE_TIMEOUT_MS_MAX: u64 = 1_800_000;
/// How long the first join of an empty group waits for others, milliseconds: consumers started together begin with
/// one rebalance instead of two.
pub const FIRST_JOIN_DELAY_MS: u64 = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    /// Waits for members to join; completes when all have, not before `not_before_ms`, at last at `until_ms`.
    Joining {
        not_before_ms: u64,
        until_ms: u64,
    },
    /// Waits for the leader's assignment.
    Syncing {
        until_ms: u64,
    },
    Stable,
}

/// The state of one group.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids given out whose members have not come back yet, with the time they are forgotten.
    promised: BTreeMap<String, u64>,
    answers: Vec<Answer>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
            answers: Vec::new(),
        }
    }
}

impl Group {
    /// A member wants to be part of the next generation.
    pub fn join(&mut self, now_ms: u64, join: Join) -> Vec<Answer> {
        let ticket = join.ticket;
        if let Err(refused) = self.try_join(now_ms, join) {
            self.answers.push(Answer::Join(ticket, Err(refused)));
        }
        self.settle(now_ms)
    }

    /// A member wants its assignment; the leader brings everyone's.
    pub fn sync(&mut self, now_ms: u64, sync: Sync) -> Vec<Answer> {
        let ticket = sync.ticket;
        if let Err(error) = self.try_sync(now_ms, sync) {
            self.answers.push(Answer::Sync(ticket, Err(error)));
        }
        self.settle(now_ms)
    }

    /// A member lives. [`ResponseError::RebalanceInProgress`] tells it to join again.
    pub fn heartbeat(&mut self, now_ms: u64, who: &Identity, generation: i32) -> Result<(), ResponseError> {
        let phase = self.phase;
        let member = self.current_member(who, generation)?;
        member.touch(now_ms);
        match phase {
            Phase::Joining { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Syncing { .. } | Phase::Stable => Ok(()),
        }
    }

    /// A member goes for good. A static one may be named by its instance alone, as administrators do.
    pub fn leave(&mut self, now_ms: u64, who: &Identity) -> (Result<(), ResponseError>, Vec<Answer>) {
        let left = match (self.promised.remove(&who.member), self.identify(who)) {
            (Some(_), _) => Ok(()),
            (None, Ok(id)) => {
                self.remove(now_ms, &id, ResponseError::UnknownMemberId);
                Ok(())
            }
            (None, Err(error)) => Err(error),
        };
        (left, self.settle(now_ms))
    }

    /// May this member commit offsets? Without generation (below 0) and id it is no member, and may while there are
    /// none. A commit is a sign of life.
    pub fn may_commit(&mut self, now_ms: u64, who: &Identity, generation: i32) -> Result<(), ResponseError> {
        if generation < 0 && who.member.is_empty() && who.instance.is_none() {
            return if self.members.is_empty() { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        let phase = self.phase;
        self.current_member(who, generation)?.touch(now_ms);
        match phase {
            Phase::Syncing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Joining { .. } | Phase::Stable => Ok(()),
        }
    }

    /// Nobody waits for the answer of `ticket` any more: its connection is gone. The member's session runs from now.
    pub fn abandon(&mut self, now_ms: u64, ticket: Ticket) {
        let waiting = self.members.values_mut().find(|member| member.waiting.ticket() == Some(ticket));
        if let Some(member) = waiting {
            member.waiting = Waiting::No;
            member.touch(now_ms);
        }
    }

    /// Time has passed: forgets the silent, and ends what waited too long.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Answer> {
        self.promised.retain(|_, until_ms| *until_ms > now_ms);
        let silent = |m: &Member| matches!(m.waiting, Waiting::No) && m.expires_ms <= now_ms;
        for id in self.ids(silent) {
            self.remove(now_ms, &id, ResponseError::UnknownMemberId);
        }
        match self.phase {
            Phase::Joining { until_ms, .. } if until_ms <= now_ms => {
                for id in self.ids(|m| !m.has_joined() && m.identity.instance.is_none()) {
                    self.remove(now_ms, &id, ResponseError::UnknownMemberId);
                }
                self.promised.clear();
            }
            Phase::Syncing { until_ms } if until_ms <= now_ms => {
                for id in self.ids(|m| matches!(m.waiting, Waiting::No)) {
                    self.remove(now_ms, &id, ResponseError::UnknownMemberId);
                }
            }
            Phase::Empty | Phase::Joining { .. } | Phase::Syncing { .. } | Phase::Stable => {}
        }
        self.settle(now_ms)
    }

    /// Nobody is in it, nobody is about to be.
    pub fn is_vacant(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// Kafka's name of the state.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Joining { .. } => "PreparingRebalance",
            Phase::Syncing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// What kind of group: `consumer`, or empty while nobody has said.
    pub fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The chosen assignor; empty before the first generation.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Everyone in it, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    fn try_join(&mut self, now_ms: u64, join: Join) -> Result<(), Refused> {
        let refuse = |error| Refused { error, member: join.who.member.clone() };
        if !SESSION_TIMEOUT_MS.contains(&join.session_timeout_ms) {
            return Err(refuse(ResponseError::InvalidSessionTimeout));
        }
        self.check_protocols(&join).map_err(refuse)?;
        let is_new = join.who.member.is_empty();
        let named = join.who.instance.as_ref().and_then(|name| self.id_of_instance(name));
        match (is_new, named) {
            (true, Some(old)) => self.replace_static(now_ms, &old, join),
            (true, None) if join.id_first && join.who.instance.is_none() => Err(self.promise(now_ms, join)),
            (true, None) => {
                let id = join.fresh_id.clone();
                self.admit(now_ms, id, join)
            }
            (false, _) if self.promised.remove(&join.who.member).is_some() => {
                let id = join.who.member.clone();
                self.admit(now_ms, id, join)
            }
            (false, _) => {
                let id = self.identify(&join.who).map_err(refuse)?;
                self.rejoin(now_ms, &id, join);
                Ok(())
            }
        }
    }

    /// Protocols must be named, of the group's type, and one of them common to all members.
    fn check_protocols(&self, join: &Join) -> Result<(), ResponseError> {
        let others = || self.members.values().filter(|m| m.identity.member != join.who.member);
        let is_common = |p: &Protocol| others().all(|m| m.metadata_of(&p.name).is_some());
        let named = !join.protocol_type.is_empty() && !join.protocols.is_empty();
        let fits = self.members.is_empty() || self.protocol_type == join.protocol_type;
        match named && fits && join.protocols.iter().any(is_common) {
            true => Ok(()),
            false => Err(ResponseError::InconsistentGroupProtocol),
        }
    }

    fn check_room(&self) -> Result<(), ResponseError> {
        match self.members.len() + self.promised.len() < MEMBERS_MAX {
            true => Ok(()),
            false => Err(ResponseError::GroupMaxSizeReached),
        }
    }

    fn promise(&mut self, now_ms: u64, join: Join) -> Refused {
        if let Err(error) = self.check_room() {
            return Refused { error, member: String::new() };
        }
        self.promised.insert(join.fresh_id.clone(), now_ms + join.session_timeout_ms);
        Refused { error: ResponseError::MemberIdRequired, member: join.fresh_id }
    }

    fn admit(&mut self, now_ms: u64, id: String, join: Join) -> Result<(), Refused> {
        self.check_room().map_err(|error| Refused { error, member: String::new() })?;
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
            self.leader.clone_from(&id);
        }
        self.members.insert(id.clone(), Member::joining(id, join));
        self.rebalance(now_ms);
        Ok(())
    }

    /// A known member joins again: a repeat gets the answer again, anything new starts a rebalance.
    fn rejoin(&mut self, now_ms: u64, id: &str, join: Join) {
        let is_leader = self.leader == id;
        let Some(member) = self.members.get_mut(id) else { return };
        let is_repeat = member.protocols == join.protocols
            && match self.phase {
                Phase::Syncing { .. } => true,
                Phase::Stable => !is_leader,
                Phase::Empty | Phase::Joining { .. } => false,
            };
        let superseded = std::mem::replace(&mut member.waiting, Waiting::No);
        member.update(now_ms, &join);
        if !is_repeat {
            member.waiting = Waiting::Join(join.ticket);
        }
        self.drop_waiting(superseded, ResponseError::RebalanceInProgress);
        match is_repeat {
            true => self.answer_join(now_ms, id, join.ticket, false),
            false => self.rebalance(now_ms),
        }
    }

    /// A static member came back without its id: it takes the place, the partitions and, if it led, the lead of its
    /// former self, which is fenced from now on.
    fn replace_static(&mut self, now_ms: u64, old: &str, join: Join) -> Result<(), Refused> {
        let Some(mut member) = self.members.remove(old) else { return Ok(()) };
        let (id, ticket, led) = (join.fresh_id.clone(), join.ticket, self.leader == old);
        let former = std::mem::replace(&mut member.waiting, Waiting::No);
        let is_same = member.metadata_of(&self.protocol) == join.metadata_of(&self.protocol);
        member.identity.member.clone_from(&id);
        member.update(now_ms, &join);
        if led {
            self.leader.clone_from(&id);
        }
        let stays = self.phase == Phase::Stable && is_same;
        if !stays {
            member.waiting = Waiting::Join(ticket);
        }
        self.members.insert(id.clone(), member);
        self.drop_waiting(former, ResponseError::FencedInstanceId);
        match stays {
            true => self.answer_join(now_ms, &id, ticket, led),
            false => self.rebalance(now_ms),
        }
        Ok(())
    }

    fn try_sync(&mut self, now_ms: u64, sync: Sync) -> Result<(), ResponseError> {
        self.current_member(&sync.who, sync.generation)?;
        let differs = |asked: &Option<String>, ours: &str| asked.as_ref().is_some_and(|asked| asked != ours);
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let id = self.identify(&sync.who)?;
        match self.phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::Joining { .. } => return Err(ResponseError::RebalanceInProgress),
            Phase::Syncing { .. } => {
                if let Some(member) = self.members.get_mut(&id) {
                    let superseded = std::mem::replace(&mut member.waiting, Waiting::Sync(sync.ticket));
                    self.drop_waiting(superseded, ResponseError::RebalanceInProgress);
                }
                if self.leader == id {
                    self.assign(now_ms, sync.assignments);
                }
            }
            Phase::Stable => self.answer_sync(now_ms, &id, sync.ticket),
        }
        Ok(())
    }

    /// The leader has spoken: everyone who waits gets a share, an empty one if the leader forgot it.
    fn assign(&mut self, now_ms: u64, assignments: Vec<(String, Bytes)>) {
        let mut shares: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        self.phase = Phase::Stable;
        for member in self.members.values_mut() {
            member.assignment = shares.remove(&member.identity.member).unwrap_or_default();
        }
        for id in self.ids(|m| matches!(m.waiting, Waiting::Sync(_))) {
            if let Some(Waiting::Sync(ticket)) = self.members.get(&id).map(|m| m.waiting) {
                self.answer_sync(now_ms, &id, ticket);
            }
        }
    }

    /// Opens the door for the next generation; who waits for an assignment of this one is sent to join.
    fn rebalance(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Joining { .. }) {
            return;
        }
        let not_before_ms = if self.phase == Phase::Empty { now_ms + FIRST_JOIN_DELAY_MS } else { now_ms };
        let patience_ms = self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or(0);
        self.phase = Phase::Joining { not_before_ms, until_ms: not_before_ms.max(now_ms + patience_ms) };
        for id in self.ids(|m| matches!(m.waiting, Waiting::Sync(_))) {
            if let Some(member) = self.members.get_mut(&id) {
                member.touch(now_ms);
                let waiting = std::mem::replace(&mut member.waiting, Waiting::No);
                self.drop_waiting(waiting, ResponseError::RebalanceInProgress);
            }
        }
    }

    /// Completes the join phase if everyone is there, and hands out what has become due.
    fn settle(&mut self, now_ms: u64) -> Vec<Answer> {
        if let Phase::Joining { not_before_ms, until_ms } = self.phase {
            let all_here = self.promised.is_empty() && self.members.values().all(Member::has_joined);
            let any_here = self.members.values().any(Member::has_joined);
            if self.members.is_empty() {
                self.phase = Phase::Empty;
                self.generation = self.generation.saturating_add(1);
            } else if (all_here && not_before_ms <= now_ms) || (any_here && until_ms <= now_ms) {
                self.begin_generation(now_ms);
            }
        }
        std::mem::take(&mut self.answers)
    }

    fn begin_generation(&mut self, now_ms: u64) {
        self.generation = self.generation.saturating_add(1);
        self.protocol = self.elect_protocol();
        if !self.members.get(&self.leader).is_some_and(Member::has_joined)
            && let Some(first) = self.members.values().find(|m| m.has_joined())
        {
            self.leader.clone_from(&first.identity.member);
        }
        let patience_ms = self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or(0);
        self.phase = Phase::Syncing { until_ms: now_ms + patience_ms };
        for id in self.ids(Member::has_joined) {
            if let Some(Waiting::Join(ticket)) = self.members.get(&id).map(|m| m.waiting) {
                self.answer_join(now_ms, &id, ticket, false);
            }
        }
    }

    /// The protocol most members prefer among those that all know; ties go to the first name.
    fn elect_protocol(&self) -> String {
        let is_common = |p: &&Protocol| self.members.values().all(|m| m.metadata_of(&p.name).is_some());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for favourite in self.members.values().filter_map(|m| m.protocols.iter().find(is_common)) {
            *votes.entry(&favourite.name).or_default() += 1;
        }
        let winner = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
        winner.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    fn answer_join(&mut self, now_ms: u64, id: &str, ticket: Ticket, skip_assignment: bool) {
        let leads = self.leader == id;
        let metadata = |m: &Member| (m.identity.clone(), m.metadata_of(&self.protocol).cloned().unwrap_or_default());
        let joined = Joined {
            generation: self.generation,
            member: id.to_owned(),
            leader: self.leader.clone(),
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            members: if leads { self.members.values().map(metadata).collect() } else { Vec::new() },
            skip_assignment,
        };
        self.answers.push(Answer::Join(ticket, Ok(joined)));
        self.rest(now_ms, id);
    }

    fn answer_sync(&mut self, now_ms: u64, id: &str, ticket: Ticket) {
        let assignment = self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        self.answers.push(Answer::Sync(ticket, Ok(Synced { protocol_type, protocol, assignment })));
        self.rest(now_ms, id);
    }

    fn rest(&mut self, now_ms: u64, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.waiting = Waiting::No;
            member.touch(now_ms);
        }
    }

    fn drop_waiting(&mut self, waiting: Waiting, error: ResponseError) {
        match waiting {
            Waiting::No => {}
            Waiting::Join(ticket) => {
                self.answers.push(Answer::Join(ticket, Err(Refused { error, member: String::new() })));
            }
            Waiting::Sync(ticket) => self.answers.push(Answer::Sync(ticket, Err(error))),
        }
    }

    /// Takes a member out; the others share its work.
    fn remove(&mut self, now_ms: u64, id: &str, error: ResponseError) {
        let Some(member) = self.members.remove(id) else { return };
        self.drop_waiting(member.waiting, error);
        self.rebalance(now_ms);
    }

    /// The member this identity names.
    fn identify(&self, who: &Identity) -> Result<String, ResponseError> {
        if let Some(name) = &who.instance {
            let id = self.id_of_instance(name).ok_or(ResponseError::UnknownMemberId)?;
            return if who.member.is_empty() || who.member == id {
                Ok(id)
            } else {
                Err(ResponseError::FencedInstanceId)
            };
        }
        match self.members.contains_key(&who.member) {
            true => Ok(who.member.clone()),
            false => Err(ResponseError::UnknownMemberId),
        }
    }

    /// The same, if it has named itself fully and is part of the current generation.
    fn current_member(&mut self, who: &Identity, generation: i32) -> Result<&mut Member, ResponseError> {
        let id = self.identify(who)?;
        if who.member.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.members.get_mut(&id).ok_or(ResponseError::UnknownMemberId)
    }

    fn id_of_instance(&self, name: &str) -> Option<String> {
        let member = self.members.values().find(|m| m.identity.instance.as_deref() == Some(name))?;
        Some(member.identity.member.clone())
    }

    fn ids(&self, which: impl Fn(&Member) -> bool) -> Vec<String> {
        self.members.values().filter(|m| which(m)).map(|m| m.identity.member.clone()).collect()
    }
}
