//! The other ingress nodes: what this node logs, their subscribers get as well; what a client leaves there, ends.
//!
//! Domain layer over the port [`PeerLink`]. A message goes to the peers that may want it ([`Pictures`]). One of QoS 1 is
//! acknowledged when each of them has confirmed it or its lease has ended; one of QoS 0 never waits. A subscription is
//! answered when each peer knows of it or its lease has ended: who has not heard of a peer for a lease takes it to want
//! everything, so no message that is published after the answer passes the subscriber by. A peer whose lease has ended is away
//! when the others have its sessions ([`Heirs`]), and what was on its way to it. For one member of a shared subscription a
//! message goes to a peer that has members, and if that is lost, to somebody else ([`Queue`]).

mod groups;
mod heirs;
mod held;
mod peer;
mod pictures;
mod senders;
mod taken;
mod unplaced;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_types::{Qos, TenantId};
use futures::FutureExt as _;
use futures::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::confirmations::Confirmations;
use crate::domain::filter::{share, topics};
use crate::domain::interest::{self, Interest, News};
use crate::domain::message::Message;
use crate::domain::sessions::Key;
use crate::domain::shares::Share;
use crate::ports::{OwnHeir, PeerLink};
use crate::telemetry::Telemetry;
use groups::Groups;
use heirs::Heirs;
pub use held::Unplaced;
pub use peer::BATCH_MESSAGES_MAX;
use peer::{LEASE, Offered, Peer};
use pictures::Pictures;
pub use senders::Senders;
use taken::Taken;
use unplaced::Queue;

/// How long a peer may take to end what it holds of a client. Beyond it the new connection goes on: the lifecycle
/// events end the old one.
const TAKE_OVER: Duration = Duration::from_secs(1);
/// How long the greeting of a node that is not known yet may wait for being answered in kind.
const INTRODUCTION: Duration = Duration::from_millis(300);
/// How long a message that is just being offered takes into the queues.
const OFFERING: Duration = Duration::from_millis(5);
/// Pause between two looks at a state that is awaited.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Which of several messages a node is to give to a member of a shared subscription.
#[derive(Clone, Debug)]
pub struct Placed {
    pub at: usize,
    pub node: Arc<str>,
    pub share: Share,
}

/// All other nodes, as far as the configuration names them; this node may be among them.
pub struct Peers {
    /// Name of this node.
    node: String,
    all: Vec<Arc<Peer>>,
    /// Of the batches that come from them.
    pub senders: Senders,
    /// What their subscribers want.
    pictures: Pictures,
    /// Their shared subscriptions.
    pub groups: Groups,
    /// What members of shared subscriptions have here of what they have sent.
    pub taken: Taken,
    /// What they could not give to members.
    pub unplaced: Arc<Queue>,
    /// What the subscribers of this node want; counted only if there are peers.
    interest: Mutex<Interest>,
    /// The zero of monotonic time.
    started: Instant,
    /// Grows whenever the sessions of a peer have been claimed: what was routed before that may have missed them.
    round: AtomicU64,
    /// This node takes its sessions of before back.
    starting: AtomicBool,
    /// Whether the stores of this node are there: before that it is none for its peers.
    admits: watch::Sender<bool>,
}

/// What became of a session at its former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has ended, as far as anybody can tell who was asked.
    Done,
    /// What a peer holds is newer, of this epoch.
    Newer(u64),
    /// The former owner was not there, or did not answer in time.
    Unanswered,
}

impl Peers {
    /// The peers at the other end of `links`; nothing is sent before [`Peers::run`]. `started` is the zero of monotonic
    /// time.
    pub fn new(node: &str, links: Vec<Arc<dyn PeerLink>>, started: Instant) -> Self {
        let unplaced = Arc::<Queue>::default();
        let all = links.into_iter().map(|link| Arc::new(Peer::new(link, unplaced.clone(), started))).collect();
        let (senders, pictures, interest) = (Senders::default(), Pictures::default(), Mutex::default());
        let (groups, taken) = (Groups::default(), Taken::default());
        let (round, starting) = (AtomicU64::default(), AtomicBool::default());
        let (node, admits) = (node.to_owned(), watch::Sender::new(true));
        Self { node, all, senders, pictures, groups, taken, unplaced, interest, started, round, starting, admits }
    }

    /// The same, while this node takes its sessions of before back: peers are told that it wants everything, and it takes no
    /// messages of theirs before [`Peers::opened`].
    #[must_use]
    pub fn starting(self) -> Self {
        if !self.all.is_empty() {
            self.starting.store(true, Ordering::Release);
            self.interest().unknown();
        }
        self
    }

    /// The same, while the stores of this node are not there: peers are not spoken to, and nothing is taken of them, before
    /// [`Peers::admit`]. Else they would wait for this node as long as a store is away.
    #[must_use]
    pub fn closed(self) -> Self {
        self.admits.send_replace(self.all.is_empty());
        self
    }

    /// The stores of this node are there.
    pub fn admit(&self) {
        self.admits.send_replace(true);
    }

    /// Whether the stores of this node are there.
    pub fn admits(&self) -> bool {
        *self.admits.borrow()
    }

    /// The sessions of before are here.
    pub fn opened(&self) {
        if self.is_starting() {
            self.interest().known();
            self.starting.store(false, Ordering::Release);
            self.all.iter().for_each(|peer| peer.speak_of_news());
        }
    }

    /// Whether this node takes its sessions of before back.
    pub fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Acquire)
    }

    /// How often sessions of a peer were claimed so far; to be asked before a message is routed here, for [`Peers::offer`].
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// Messages in the queues to them.
    pub fn waiting(&self) -> usize {
        self.all.iter().map(|peer| peer.waiting()).sum()
    }

    /// Whether there is no other node.
    pub fn is_none(&self) -> bool {
        self.all.is_empty()
    }

    /// A node that is there and has members of a shared subscription, and was not asked for this share yet.
    pub fn member(&self, tenant: &TenantId, share: &Share) -> Option<Arc<str>> {
        self.node_with(tenant, share, Peer::is_there)
    }

    /// As [`Peers::member`], of the nodes whose sessions are being claimed: what is for a member there is waited for, and goes
    /// to wherever that is then.
    pub fn leaving_member(&self, tenant: &TenantId, share: &Share) -> Option<Arc<str>> {
        self.node_with(tenant, share, Peer::is_leaving)
    }

    fn node_with(&self, tenant: &TenantId, share: &Share, is_so: impl Fn(&Peer) -> bool) -> Option<Arc<str>> {
        let able = |node: &Arc<str>| !share.tried.contains(node) && self.named(node).any(|peer| is_so(peer));
        self.groups.next(tenant, &share.filter, able)
    }

    /// Hands one message to a node for one member of a shared subscription; `done` is kept until it is confirmed.
    pub async fn ask(&self, node: &str, unplaced: Unplaced, telemetry: &Telemetry) {
        let Some(peer) = self.named(node).next() else {
            return self.unplaced.add([unplaced]);
        };
        let Unplaced { message, share, done } = unplaced;
        let offered = vec![Offered { message, shares: vec![Share { again: true, ..share }], done }];
        drop(peer.offer(offered, self.round(), telemetry).await); // what is waited for is `done`
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Speaks to all peers until `stop`, as soon as the stores of this node are there. `own` takes sessions of those that are gone, where sessions are shared.
    pub async fn run(&self, own: Option<&dyn OwnHeir>, telemetry: &Telemetry, stop: CancellationToken) {
        let heirs = Heirs { own, node: &self.node, peers: &self.all };
        let talks: Vec<_> =
            self.all.iter().map(|peer| peer.run(heirs, &self.round, &self.interest, telemetry)).collect();
        let talking = async {
            // An error means that nobody will tell: the node stops.
            self.admits.subscribe().wait_for(|admits| *admits).await.ok();
            join_all(talks).await;
        };
        stop.run_until_cancelled(talking).await;
    }

    /// Returns when every peer has answered, or is known to be away: at the latest when a lease is over.
    pub async fn greeted(&self) {
        join_all(self.all.iter().map(|peer| peer.knows(0))).await;
    }

    /// As [`Peers::offer`]; returns when all is confirmed.
    pub async fn forward(&self, messages: &[Arc<Message>], placed: &[Placed], round: u64, telemetry: &Telemetry) {
        self.offer(messages, placed, round, telemetry).await.all().await;
    }

    /// Hands messages that are durable to the peers whose subscribers may want them. Returns when they are in the queues
    /// to these: messages offered after that follow them. While a peer's queue is full, QoS 1 waits and QoS 0 is dropped
    /// and counted. `placed` says which of them a node is to give to a member of a shared subscription, in the order of the
    /// messages; `round` is what [`Peers::round`] was before they were routed here.
    pub async fn offer(
        &self,
        messages: &[Arc<Message>],
        placed: &[Placed],
        round: u64,
        telemetry: &Telemetry,
    ) -> Confirmations {
        if self.all.is_empty() {
            return Confirmations::default();
        }
        debug_assert!(placed.is_sorted_by_key(|placed| placed.at), "in the order of the messages");
        let beginnings =
            |message: &Arc<Message>| interest::of_topic(&message.telemetry.tenant, message.telemetry.topic.as_str());
        let beginnings: Vec<_> = messages.iter().map(beginnings).collect();
        let now = self.started.elapsed();
        let wanted = self.all.iter().filter(|peer| !peer.is_ourselves()).map(|peer| {
            let name = peer.name();
            let may_want = |of: &[u64]| name.as_deref().is_none_or(|name| self.pictures.may_want(name, of, now));
            let is_for_it = |placed: &&Placed| name.as_deref() == Some(&*placed.node);
            let mut for_it = placed.iter().filter(is_for_it).peekable();
            let mut wanted = Vec::new();
            for (at, (message, of)) in messages.iter().zip(&beginnings).enumerate() {
                let mut shares = Vec::new();
                while let Some(placed) = for_it.next_if(|placed| placed.at == at) {
                    shares.push(placed.share.clone());
                }
                if !shares.is_empty() || may_want(of) {
                    wanted.push(Offered { message: message.clone(), shares, done: Vec::new() });
                }
            }
            async move { peer.offer(wanted, round, telemetry).await }
        });
        Confirmations::of_peers(join_all(wanted).await.into_iter().flatten().collect())
    }

    /// Whether a peer is known to have subscribers that want what is published to a topic.
    pub fn is_any_known_to_want(&self, tenant: &TenantId, topic: &str) -> bool {
        let (of, now) = (interest::of_topic(tenant, topic), self.started.elapsed());
        self.all.iter().any(|peer| self.is_known_to_want(peer, &of, now))
    }

    fn is_known_to_want(&self, peer: &Peer, beginnings: &[u64], now: Duration) -> bool {
        !peer.is_ourselves() && peer.name().is_some_and(|name| self.pictures.wants(&name, beginnings, now))
    }

    /// Hands a message of QoS 0 that is in no log to the peers that are known to have subscribers for it, as far as there is
    /// room in the queues to them.
    pub fn tell(&self, message: &Arc<Message>, telemetry: &Telemetry) {
        debug_assert_eq!(message.telemetry.qos, Qos::AtMostOnce, "nobody waits for it");
        let of = interest::of_topic(&message.telemetry.tenant, message.telemetry.topic.as_str());
        let (now, round) = (self.started.elapsed(), self.round());
        for peer in self.all.iter().filter(|peer| self.is_known_to_want(peer, &of, now)) {
            let offered = vec![Offered { message: message.clone(), shares: Vec::new(), done: Vec::new() }];
            // At QoS 0 it is in the queue at once, or counted and nowhere.
            drop(peer.offer(offered, round, telemetry).now_or_never());
        }
    }

    /// A subscription more; the version that [`Peers::announced`] waits for.
    pub fn subscribed(&self, tenant: &TenantId, filter: &str) -> u64 {
        match share(filter) {
            _ if self.all.is_empty() => 0,
            Some(_) => self.interest().join(tenant, filter),
            None => self.interest().add(interest::of_filter(tenant, topics(filter))),
        }
    }

    /// A subscription less.
    pub fn unsubscribed(&self, tenant: &TenantId, filter: &str) {
        match share(filter) {
            _ if self.all.is_empty() => {}
            Some(_) => self.interest().memberships.leave(tenant, filter),
            None => self.interest().remove(interest::of_filter(tenant, topics(filter))),
        }
    }

    /// Returns when every peer knows what is wanted as of `version`, or its lease has ended.
    pub async fn announced(&self, version: u64) {
        if version > 0 {
            self.all.iter().for_each(|peer| peer.speak_of_news());
            join_all(self.all.iter().map(|peer| peer.knows(version))).await;
        }
    }

    /// The version of what is wanted as of now.
    pub fn version(&self) -> u64 {
        self.interest().version()
    }

    /// A peer tells what its subscribers want; whether that is whole now.
    pub fn hear(&self, node: &str, boot: u64, news: News) -> bool {
        self.pictures.hear(node, boot, news, self.started.elapsed())
    }

    fn interest(&self) -> std::sync::MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node says that it is there: one that is not known is spoken to at once, so that messages reach it from when
    /// its greeting is answered.
    pub async fn introduced(&self, node: &str) {
        let strangers: Vec<_> = self.all.iter().filter(|peer| !peer.is_live()).collect();
        if node == self.node || strangers.is_empty() || self.knows(node) {
            return;
        }
        strangers.iter().for_each(|peer| peer.speak());
        let known = async {
            while !self.knows(node) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Whoever is not known by then is not in the configuration, or cannot be reached.
        tokio::time::timeout(INTRODUCTION, known).await.ok();
    }

    /// Returns when the peers have what this node had for them, or are away.
    pub async fn flushed(&self) {
        tokio::time::sleep(OFFERING).await;
        join_all(self.all.iter().map(|peer| peer.flushed())).await;
    }

    /// Returns when every live peer has flushed, and this node has, but no later than a former owner of a session may take to
    /// answer: what was for that one alone has reached it then.
    pub async fn flush_all(&self) {
        let peers: Vec<_> = self.all.iter().filter(|peer| peer.is_there()).map(|peer| peer.link.flush()).collect();
        let flushing = async {
            let (answers, ()) = tokio::join!(join_all(peers), self.flushed());
            answers.into_iter().collect::<Result<(), String>>()
        };
        match tokio::time::timeout(TAKE_OVER, flushing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error, "a peer has not said that nothing is on its way"),
            Err(_) => tracing::debug!("a peer has not said in time that nothing is on its way"),
        }
    }

    /// Whether any other node answers.
    pub fn any_is_there(&self) -> bool {
        self.all.iter().any(|peer| peer.is_there())
    }

    /// Whether a node of this name answers.
    pub fn is_live(&self, node: &str) -> bool {
        self.named(node).any(|peer| peer.is_there())
    }

    /// Whether a node that is away has spoken since then, and within a lease; one that was never heard by this node, within a
    /// lease.
    pub fn is_back(&self, node: &str) -> bool {
        let since = self.named(node).filter_map(|peer| peer.away_since()).max();
        let lately = self.started.elapsed().saturating_sub(LEASE);
        let since = since.map_or(lately, |since| since.max(lately));
        self.pictures.heard(node).is_some_and(|heard| heard > since)
    }

    /// Returns when this node knows whether the one of this name is gone.
    pub async fn is_gone(&self, node: &str) -> bool {
        let asked = self.started.elapsed();
        let Some(peer) = self.named(node).next() else {
            return !self.is_back(node);
        };
        loop {
            if peer.away_since().is_some() {
                return !self.is_back(node);
            }
            if peer.is_ourselves() || peer.heard() > asked {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends what the former owner of a session, or any peer, holds of it. Who does not answer in time is asked again by
    /// whoever has to know; the lifecycle events end it as well.
    pub async fn take_over(&self, former: Option<&str>, key: &Key, epoch: u64) -> Ended {
        let live = || self.all.iter().filter(|peer| peer.may_be_live());
        let named: Vec<_> = live().filter(|peer| former.is_some_and(|name| peer.is_named(name))).collect();
        // A name that no peer has told yet may be that of any.
        let mut unanswered = former.is_some() && named.is_empty();
        let asked = if named.is_empty() { live().collect() } else { named };
        let mut calls: Vec<_> = asked
            .into_iter()
            .map(|peer| Box::pin(tokio::time::timeout(TAKE_OVER, peer.link.take_over(&key.0, &key.1, epoch))))
            .collect();
        while !calls.is_empty() {
            let (answer, _, left) = select_all(calls).await;
            match answer {
                Ok(Ok(Some(newer))) => return Ended::Newer(newer),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    unanswered |= former.is_some();
                    tracing::debug!(error, "a peer did not end a session");
                }
                Err(_) => {
                    unanswered |= former.is_some();
                    tracing::debug!("a peer did not end a session in time");
                }
            }
            calls = left;
        }
        if unanswered { Ended::Unanswered } else { Ended::Done }
    }

    fn knows(&self, node: &str) -> bool {
        self.named(node).any(|peer| peer.is_live())
    }

    /// Those that call themselves `node`.
    fn named(&self, node: &str) -> impl Iterator<Item = &Arc<Peer>> {
        self.all.iter().filter(move |peer| peer.is_named(node))
    }
}

#[cfg(test)]
mod tests;
