//! The group state machine: named situations, and random ones against its invariants.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::ResponseError::{self, *};
use proptest::prelude::*;

use super::exchange::*;
use super::member::Protocol;
use super::state::*;

const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 30_000;

/// A join of member `member` (empty: new) that will be called `fresh` if it is new.
pub(super) fn joining(ticket: Ticket, member: &str, fresh: &str) -> Join {
    Join {
        ticket,
        who: Identity { member: member.into(), instance: None },
        fresh_id: fresh.into(),
        id_first: false,
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(b"topics") }],
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
    }
}

fn named(ticket: Ticket, member: &str, instance: &str, fresh: &str) -> Join {
    let mut join = joining(ticket, member, fresh);
    join.who.instance = Some(instance.into());
    join
}

fn who(member: &str) -> Identity {
    Identity { member: member.into(), instance: None }
}

fn syncing(ticket: Ticket, member: &str, generation: i32, shares: &[&str]) -> Sync {
    Sync {
        ticket,
        who: who(member),
        generation,
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        assignments: shares.iter().map(|m| ((*m).to_owned(), Bytes::from(format!("share of {m}")))).collect(),
    }
}

/// Tickets with the generation they were answered with, or the error.
fn outcomes(answers: &[Answer]) -> BTreeMap<Ticket, Result<i32, ResponseError>> {
    let outcome = |answer: &Answer| match answer {
        Answer::Join(ticket, joined) => (*ticket, joined.as_ref().map(|j| j.generation).map_err(|r| r.error)),
        Answer::Sync(ticket, synced) => (*ticket, synced.as_ref().map(|_| 0).map_err(|e| *e)),
    };
    answers.iter().map(outcome).collect()
}

/// A stable group of `a` (leader) and `b` in its first generation; ends at time 1,000.
fn pair() -> Group {
    let mut group = Group::default();
    group.join(0, joining(1, "", "a"));
    group.join(1, joining(2, "", "b"));
    let joined = group.tick(1_000);
    assert_eq!(outcomes(&joined), BTreeMap::from([(1, Ok(1)), (2, Ok(1))]));
    assert!(group.sync(1_000, syncing(3, "b", 1, &[])).is_empty(), "b waits for the leader");
    let synced = group.sync(1_000, syncing(4, "a", 1, &["a", "b"]));
    assert_eq!(outcomes(&synced), BTreeMap::from([(3, Ok(0)), (4, Ok(0))]));
    assert_eq!(group.state(), "Stable");
    group
}

#[test]
fn the_first_member_leads_and_everyone_gets_the_share_it_assigns() {
    let mut group = Group::default();
    group.join(0, joining(1, "", "a"));
    group.join(1, joining(2, "", "b"));
    let answers = group.tick(FIRST_JOIN_DELAY_MS);
    let Some(Answer::Join(1, Ok(leader))) = answers.first() else { panic!("{answers:?}") };
    assert_eq!((leader.leader.as_str(), leader.members.len(), leader.protocol.as_str()), ("a", 2, "range"));
    let Some(Answer::Join(2, Ok(follower))) = answers.get(1) else { panic!("{answers:?}") };
    assert!(follower.members.is_empty(), "only the leader learns the others");
    group.sync(200, syncing(3, "b", 1, &[]));
    let answers = group.sync(200, syncing(4, "a", 1, &["a", "b"]));
    let share = |answer: &Answer| match answer {
        Answer::Sync(ticket, Ok(synced)) => Some((*ticket, synced.assignment.clone())),
        Answer::Sync(_, Err(_)) | Answer::Join(..) => None,
    };
    let shares: BTreeMap<_, _> = answers.iter().filter_map(share).collect();
    assert_eq!(shares, BTreeMap::from([(3, "share of b".into()), (4, "share of a".into())]));
}

#[test]
fn a_third_member_makes_the_others_join_again_before_the_next_generation_begins() {
    let mut group = pair();
    assert!(group.join(2_000, joining(5, "", "c")).is_empty());
    assert_eq!(group.heartbeat(2_000, &who("a"), 1), Err(RebalanceInProgress));
    assert!(group.join(2_100, joining(6, "a", "")).is_empty());
    let joined = group.join(2_200, joining(7, "b", ""));
    assert_eq!(outcomes(&joined), BTreeMap::from([(5, Ok(2)), (6, Ok(2)), (7, Ok(2))]));
    assert_eq!(group.may_commit(2_300, &who("a"), 1), Err(IllegalGeneration));
}

#[test]
fn a_silent_member_is_removed_after_its_session_and_the_rest_rebalance() {
    let mut group = pair();
    assert_eq!(group.heartbeat(9_000, &who("a"), 1), Ok(()));
    assert!(group.tick(10_999).is_empty());
    assert_eq!(group.state(), "Stable");
    group.tick(11_000);
    assert_eq!(group.heartbeat(11_001, &who("a"), 1), Err(RebalanceInProgress));
    assert_eq!(group.heartbeat(11_001, &who("b"), 1), Err(UnknownMemberId));
    let joined = group.join(11_002, joining(5, "a", ""));
    assert_eq!(outcomes(&joined), BTreeMap::from([(5, Ok(2))]));
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let mut group = pair();
    group.join(2_000, joining(5, "", "c"));
    group.join(2_000, joining(6, "a", ""));
    for now_ms in (3_000..32_000).step_by(5_000) {
        assert_eq!(group.heartbeat(now_ms, &who("b"), 1), Err(RebalanceInProgress));
        assert!(group.tick(now_ms).is_empty());
    }
    let joined = group.tick(2_000 + REBALANCE_MS);
    assert_eq!(outcomes(&joined), BTreeMap::from([(5, Ok(2)), (6, Ok(2))]));
    assert_eq!(group.heartbeat(40_000, &who("b"), 2), Err(UnknownMemberId));
}

#[test]
fn a_leader_that_never_assigns_is_removed_and_another_leads() {
    let mut group = Group::default();
    group.join(0, joining(1, "", "a"));
    group.join(1, joining(2, "", "b"));
    group.tick(200);
    group.sync(300, syncing(3, "b", 1, &[]));
    let sent_back = group.tick(200 + SESSION_MS);
    assert_eq!(outcomes(&sent_back), BTreeMap::from([(3, Err(RebalanceInProgress))]));
    let answers = group.join(11_000, joining(4, "b", ""));
    let Some(Answer::Join(4, Ok(joined))) = answers.first() else { panic!("{answers:?}") };
    assert_eq!((joined.leader.as_str(), joined.generation), ("b", 2));
}

#[test]
fn a_member_that_leaves_frees_its_share_at_once_and_the_last_one_empties_the_group() {
    let mut group = pair();
    assert_eq!(group.leave(2_000, &who("a")).0, Ok(()));
    assert_eq!(group.heartbeat(2_000, &who("b"), 1), Err(RebalanceInProgress));
    assert_eq!(group.leave(2_000, &who("b")).0, Ok(()));
    assert_eq!((group.state(), group.is_vacant()), ("Empty", true));
    assert_eq!(group.leave(2_000, &who("b")).0, Err(UnknownMemberId));
}

#[test]
fn a_new_member_gets_its_id_first_and_counts_only_when_it_comes_back() {
    let mut group = Group::default();
    let answers = group.join(0, Join { id_first: true, ..joining(1, "", "a") });
    assert_eq!(answers, [Answer::Join(1, Err(Refused { error: MemberIdRequired, member: "a".into() }))]);
    assert_eq!(group.members().count(), 0);
    group.join(10, Join { id_first: true, ..joining(2, "a", "x") });
    assert_eq!(outcomes(&group.tick(500)), BTreeMap::from([(2, Ok(1))]));
    let never = group.join(600, Join { id_first: true, ..joining(3, "never-seen", "x") });
    assert_eq!(outcomes(&never), BTreeMap::from([(3, Err(UnknownMemberId))]));
}

#[test]
fn a_promised_id_that_is_never_used_is_forgotten() {
    let mut group = Group::default();
    group.join(0, Join { id_first: true, ..joining(1, "", "a") });
    group.tick(SESSION_MS);
    assert!(group.is_vacant());
}

#[test]
fn a_static_member_that_restarts_keeps_its_share_without_a_rebalance_and_fences_its_former_self() {
    let mut group = Group::default();
    group.join(0, named(1, "", "i-1", "a"));
    group.join(1, joining(2, "", "b"));
    group.tick(200);
    group.sync(300, syncing(3, "b", 1, &[]));
    let leader =
        Sync { who: Identity { member: "a".into(), instance: Some("i-1".into()) }, ..syncing(4, "a", 1, &["a", "b"]) };
    group.sync(300, leader);

    let answers = group.join(400, named(5, "", "i-1", "a2"));
    let Some(Answer::Join(5, Ok(joined))) = answers.first() else { panic!("{answers:?}") };
    assert_eq!((joined.generation, joined.member.as_str(), joined.skip_assignment), (1, "a2", true));
    assert_eq!(group.heartbeat(500, &who("b"), 1), Ok(()), "nobody else moves");
    let now = |member: &str| Identity { member: member.into(), instance: Some("i-1".into()) };
    assert_eq!(group.heartbeat(500, &now("a"), 1), Err(FencedInstanceId));
    assert_eq!(group.may_commit(500, &now("a"), 1), Err(FencedInstanceId));
    let synced = group.sync(500, Sync { who: now("a2"), ..syncing(6, "a2", 1, &[]) });
    let [Answer::Sync(6, Ok(share))] = &synced[..] else { panic!("{synced:?}") };
    assert_eq!(share.assignment, "share of a");
}

#[test]
fn members_without_a_common_protocol_or_with_another_type_are_refused() {
    let mut group = pair();
    let other = vec![Protocol { name: "sticky".into(), metadata: Bytes::new() }];
    let refused = group.join(2_000, Join { protocols: other, ..joining(5, "", "c") });
    assert_eq!(outcomes(&refused), BTreeMap::from([(5, Err(InconsistentGroupProtocol))]));
    let refused = group.join(2_000, Join { protocol_type: "connect".into(), ..joining(6, "", "c") });
    assert_eq!(outcomes(&refused), BTreeMap::from([(6, Err(InconsistentGroupProtocol))]));
    let refused = group.join(2_000, Join { protocols: vec![], ..joining(7, "", "c") });
    assert_eq!(outcomes(&refused), BTreeMap::from([(7, Err(InconsistentGroupProtocol))]));
    assert_eq!(group.state(), "Stable");
}

#[test]
fn the_protocol_most_members_prefer_wins() {
    let protocols =
        |names: &[&str]| names.iter().map(|n| Protocol { name: (*n).into(), metadata: Bytes::new() }).collect();
    let mut group = Group::default();
    group.join(0, Join { protocols: protocols(&["x", "y"]), ..joining(1, "", "a") });
    group.join(0, Join { protocols: protocols(&["y", "x"]), ..joining(2, "", "b") });
    group.join(0, Join { protocols: protocols(&["z", "y", "x"]), ..joining(3, "", "c") });
    group.tick(1_000);
    assert_eq!(group.protocol(), "y");
}

#[test]
fn session_timeouts_and_members_are_bounded() {
    let mut group = Group::default();
    for outside in [SESSION_TIMEOUT_MS.start() - 1, SESSION_TIMEOUT_MS.end() + 1] {
        let refused = group.join(0, Join { session_timeout_ms: outside, ..joining(1, "", "a") });
        assert_eq!(outcomes(&refused), BTreeMap::from([(1, Err(InvalidSessionTimeout))]));
    }
    for n in 0..MEMBERS_MAX {
        assert!(group.join(0, joining(n as Ticket, "", &format!("m-{n}"))).is_empty());
    }
    let refused = group.join(0, joining(9_999, "", "one-too-many"));
    assert_eq!(outcomes(&refused), BTreeMap::from([(9_999, Err(GroupMaxSizeReached))]));
}

#[test]
fn a_stranger_commits_only_while_the_group_has_no_members() {
    let mut group = Group::default();
    assert_eq!(group.may_commit(0, &who(""), -1), Ok(()));
    let mut group_with_members = pair();
    assert_eq!(group_with_members.may_commit(2_000, &who(""), -1), Err(UnknownMemberId));
    assert_eq!(group_with_members.may_commit(2_000, &who("a"), 1), Ok(()));
}

#[test]
fn a_member_whose_connection_broke_while_it_waited_expires() {
    let mut group = pair();
    group.join(2_000, joining(5, "a", ""));
    group.abandon(2_000, 5);
    group.join(2_000, joining(6, "b", ""));
    let joined = group.tick(2_000 + SESSION_MS);
    assert_eq!(outcomes(&joined), BTreeMap::from([(6, Ok(2))]));
}

/// What one simulated client does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Sync,
    Heartbeat,
    Leave,
    /// Forgets everything, as a process that died and came back.
    Restart,
    /// Its connection breaks while it waits.
    Break,
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Join),
        6 => Just(Step::Sync),
        4 => Just(Step::Heartbeat),
        1 => Just(Step::Leave),
        1 => Just(Step::Restart),
        1 => Just(Step::Break),
        4 => (1u64..6_000).prop_map(Step::Tick),
    ]
}

/// A client as it sees itself.
#[derive(Clone, Debug, Default)]
struct Client {
    id: String,
    generation: i32,
    leads: Vec<String>,
    waits: Option<Ticket>,
    /// Generations it ever had a share of, as work of an old one may still be under way in it.
    held: BTreeSet<i32>,
}

#[derive(Default)]
struct World {
    group: Group,
    now_ms: u64,
    clients: Vec<Client>,
    tickets: Ticket,
    open: BTreeSet<Ticket>,
    generations: Vec<i32>,
}

impl World {
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.open.insert(self.tickets);
        self.tickets
    }

    fn identity(&self, n: usize) -> Identity {
        let instance = (n == 0).then(|| "static-0".to_owned());
        Identity { member: self.clients[n].id.clone(), instance }
    }

    fn step(&mut self, n: usize, step: Step) {
        let waits = self.clients[n].waits.is_some();
        match step {
            Step::Join if !waits => {
                let ticket = self.ticket();
                let fresh = format!("m-{ticket}");
                let join = Join { who: self.identity(n), id_first: n % 2 == 1, ..joining(ticket, "", &fresh) };
                self.clients[n].waits = Some(ticket);
                let answers = self.group.join(self.now_ms, join);
                self.take(answers);
            }
            Step::Sync if !waits => {
                let ticket = self.ticket();
                let client = &self.clients[n];
                let shares: Vec<&str> = client.leads.iter().map(String::as_str).collect();
                let sync = Sync { who: self.identity(n), ..syncing(ticket, "", client.generation, &shares) };
                self.clients[n].waits = Some(ticket);
                let answers = self.group.sync(self.now_ms, sync);
                self.take(answers);
            }
            Step::Heartbeat => {
                let client = &self.clients[n];
                let beat = self.group.heartbeat(self.now_ms, &self.identity(n), client.generation);
                if beat == Err(UnknownMemberId) || beat == Err(FencedInstanceId) {
                    self.clients[n] = Client { waits: self.clients[n].waits, ..Client::default() };
                }
            }
            Step::Leave => {
                let answers = self.group.leave(self.now_ms, &self.identity(n)).1;
                self.take(answers);
            }
            Step::Restart | Step::Break => {
                if let Some(ticket) = self.clients[n].waits.take() {
                    self.open.remove(&ticket);
                    self.group.abandon(self.now_ms, ticket);
                }
                if matches!(step, Step::Restart) {
                    self.clients[n] = Client::default();
                }
            }
            Step::Tick(ms) => {
                self.now_ms += ms;
                let answers = self.group.tick(self.now_ms);
                self.take(answers);
            }
            Step::Join | Step::Sync => {}
        }
    }

    fn take(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            let ticket = *ticket;
            let waiting = self.clients.iter_mut().find(|c| c.waits == Some(ticket));
            assert!(self.open.remove(&ticket) || waiting.is_none(), "ticket {ticket} was answered twice");
            let Some(client) = waiting else { continue };
            client.waits = None;
            match answer {
                Answer::Join(_, Ok(joined)) => {
                    client.id = joined.member;
                    client.generation = joined.generation;
                    client.leads = joined.members.into_iter().map(|(who, _)| who.member).collect();
                    self.generations.push(joined.generation);
                }
                Answer::Join(_, Err(refused)) if refused.error == MemberIdRequired => client.id = refused.member,
                Answer::Join(_, Err(_)) => *client = Client::default(),
                Answer::Sync(_, Ok(_)) => drop(client.held.insert(client.generation)),
                Answer::Sync(_, Err(_)) => {}
            }
        }
    }

    /// Whom the group lets commit: the only shares that count.
    fn check(&self) {
        // Asked on a copy: a commit is a sign of life, and here the silent shall die.
        let mut group = self.group.clone();
        let mut generations = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (n, client) in self.clients.iter().enumerate() {
            let identity = self.identity(n);
            for generation in &client.held {
                if group.may_commit(self.now_ms, &identity, *generation).is_ok() {
                    generations.insert(*generation);
                    assert!(ids.insert(client.id.clone()), "{} commits twice", client.id);
                }
            }
        }
        assert!(generations.len() <= 1, "members of generations {generations:?} may all commit");
        assert!(generations.iter().all(|g| Some(g) == self.generations.last()), "{generations:?} is over");
        let instances: Vec<_> = self.group.members().filter_map(|m| m.identity.instance.clone()).collect();
        assert!(instances.len() <= 1, "two members have the name {instances:?}");
        assert!(self.generations.is_sorted(), "generations go back: {:?}", self.generations);
    }
}

proptest! {
    #[test]
    fn at_any_time_only_one_generation_may_commit_and_every_request_is_answered_once(
        steps in proptest::collection::vec((0usize..4, step()), 1..120),
    ) {
        let mut world = World { clients: vec![Client::default(); 4], ..World::default() };
        for (n, step) in steps {
            world.step(n, step);
            world.check();
        }
        // Whatever happened: when all fall silent, every request that still waits is answered and the group empties.
        for _ in 0..100 {
            world.step(0, Step::Tick(REBALANCE_MS));
        }
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        prop_assert!(world.group.is_vacant(), "{:?}", world.group);
    }
}
