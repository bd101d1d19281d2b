//! This node: its sessions, its router, and the way of a message through both.
//!
//! Domain layer over the Bus port. The one rule: a message is routed after it is durable, never before; here first, then
//! to the subscribers of other nodes.

mod notices;
mod overfull;
mod routing;
mod shared;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use drover_bus::{Bus, Outgoing, Position, Unacknowledged};
use drover_types::{ApiError, Clock, ErrorCode, Random, RecordIds, TopicName, TraceParent};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::domain::connection::{CloseReason, Environment, Granted, Now};
use crate::domain::journal::Journal;
use crate::domain::link::Link;
use crate::domain::log_topics::{LogTopics, is_for_shadows};
use crate::domain::message::{Message, Publisher, Stamp};
use crate::domain::ownership::Claim;
use crate::domain::peers::Peers;
use crate::domain::presence::Reports;
use crate::domain::retained::{self, READS_MAX};
use crate::domain::reverify::{Affected, Reverify};
use crate::domain::revocations::Revocation;
use crate::domain::router::Router;
use crate::domain::session::{Delivery, Dropped, Gone, Session, Wanted, WhenFull};
use crate::domain::sessions::{Aftermath, Attach, AttachError, Attached, Awaited, DueWill, Kept, Sessions, WillFate};
use crate::ports::sessions::Subscription;
use crate::ports::{Authenticator, Owners, RetainedStore, StoreError};
use crate::telemetry::Telemetry;
use notices::Told;
use overfull::Overfull;
pub use routing::Recipient;
use routing::offer;

/// Wills that wait for the log at the same time.
const WILLS_WAITING_MAX: usize = 10_000;
/// Wait before a will that was not stored is tried again.
const WILL_RETRY: Duration = Duration::from_millis(500);

/// Wait before a message that was not retained is tried again.
const RETAIN_RETRY: Duration = Duration::from_millis(500);
/// How long a will may be held up by the store of retained messages, and what other services publish.
const RETAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How often such messages may wait for that store beyond it; more are delivered, not retained, and counted.
const RETAINING_MAX: usize = 1_000;

/// What all connections of this node share.
pub struct Node {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub authenticator: Arc<dyn Authenticator>,
    pub owners: Arc<dyn Owners>,
    /// How long a CONNECT may wait for the ownership of its session.
    pub ownership_patience: Duration,
    pub peers: Peers,
    pub retained: Arc<dyn RetainedStore>,
    /// Of the sessions that are kept.
    pub journal: Arc<Journal>,
    /// Readers of retained messages at the same time.
    pub retained_reads: Semaphore,
    pub environment: Arc<Environment>,
    pub sessions: Sessions,
    pub reports: Reports,
    pub reverify: Reverify,
    pub telemetry: Telemetry,
    pub topics: LogTopics,
    router: RwLock<Router<Arc<Session>>>,
    /// Those that publishers wait for.
    overfull: Mutex<Overfull>,
    /// Of what comes by no loop.
    ids: Mutex<RecordIds>,
    told: Told,
    started: tokio::time::Instant,
    wills: Arc<Semaphore>,
    retaining: Arc<Semaphore>,
    /// Wills on their way, and readers of retained messages.
    tasks: TaskTracker,
    /// Where they run: who asks for them need not run there itself.
    runtime: Handle,
    /// Held while sessions of a node that is gone are taken: of one node after the other.
    pub(super) claiming: tokio::sync::Mutex<()>,
}

/// The ports a node works with.
pub struct NodePorts {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub authenticator: Arc<dyn Authenticator>,
    pub owners: Arc<dyn Owners>,
    /// How long a CONNECT may wait for the ownership of its session.
    pub ownership_patience: Duration,
    pub peers: Peers,
    pub retained: Arc<dyn RetainedStore>,
    pub journal: Arc<Journal>,
    /// The zero of monotonic time.
    pub started: tokio::time::Instant,
}

impl Node {
    /// A node without connections. To be called within the runtime that its tasks shall run on.
    pub fn new(ports: NodePorts, environment: Environment, sessions: Sessions, telemetry: Telemetry) -> Self {
        let NodePorts { bus, clock, random, authenticator, owners, ownership_patience, .. } = ports;
        let NodePorts { peers, retained, journal, started, .. } = ports;
        Self {
            bus,
            clock,
            random,
            authenticator,
            topics: LogTopics::new(environment.limits.shadows),
            owners,
            ownership_patience,
            peers,
            retained,
            retained_reads: Semaphore::new(READS_MAX),
            environment: Arc::new(environment),
            sessions: sessions.kept_by(journal.clone()),
            journal,
            reports: Reports::default(),
            reverify: Reverify::default(),
            telemetry,
            router: RwLock::default(),
            overfull: Mutex::default(),
            ids: Mutex::default(),
            told: Told::default(),
            started,
            wills: Arc::new(Semaphore::new(WILLS_WAITING_MAX)),
            retaining: Arc::new(Semaphore::new(RETAINING_MAX)),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            claiming: tokio::sync::Mutex::default(),
        }
    }

    /// Runs a task to its end, whoever asks for it; those that take long look at [`Node::is_stopping`].
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn_on(task, &self.runtime)
    }

    /// Whether this node is about to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.tasks.is_closed()
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed().as_millis();
        Now { monotonic_ms: u64::try_from(elapsed).unwrap_or(u64::MAX), unix_ms: self.clock.now_ms() }
    }

    /// The receipt of a message that came at `unix_ms`.
    pub fn stamp(&self, unix_ms: u64, traceparent: Option<TraceParent>) -> Stamp {
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(unix_ms, &*self.random);
        Stamp { id, time_ms: unix_ms, traceparent }
    }

    /// Gives an admitted client the session it has claimed, with the claim's epoch. Room for its reports is reserved.
    /// The client is told when what is awaited is settled.
    pub fn attach(self: &Arc<Self>, attach: Attach, mut claim: Claim) -> Result<Attached, AttachError> {
        let now = self.now();
        let report = |report| self.reports.push(now.unix_ms, report);
        let identity = attach.identity.clone();
        let _together = self.journal.together();
        let restored = claim.kept.take().map(|kept| self.restore(*kept)).unwrap_or_default();
        let attached = self.sessions.attach(attach, now.monotonic_ms, report);
        let moves = claim.moves;
        drop(claim); // its place is taken
        match attached {
            Ok((mut attached, aftermath)) => {
                self.clean_up(aftermath);
                let Publisher { client, epoch, .. } = &attached.publisher;
                let allowed = |filter: &str| identity.may_subscribe(filter, client.as_str());
                self.withdrawn(&attached.session, attached.session.withdraw(*epoch, allowed));
                let wanted = if moves && attached.present { self.peers.version() } else { 0 };
                attached.awaited = attached.awaited.and(restored).and(Awaited { interest: wanted, journal: 0 });
                Ok(attached)
            }
            Err(error) => {
                self.reports.release();
                Err(error)
            }
        }
    }

    /// A connection is closed.
    pub fn detach(self: &Arc<Self>, publisher: &Publisher, expiry_s: u32, will: WillFate, reason: CloseReason) {
        let now = self.now();
        let report = |report| self.reports.push(now.unix_ms, report);
        let _together = self.journal.together();
        self.clean_up(self.sessions.detach(publisher, expiry_s, will, reason, now.monotonic_ms, report));
    }

    /// Time has passed: sessions end, wills fall due.
    pub fn tick(self: &Arc<Self>) {
        let _together = self.journal.together();
        let now = self.now();
        self.look_at_overfull(now.monotonic_ms);
        self.clean_up(self.sessions.tick(now.monotonic_ms));
        let unwritable = self.journal.take_unwritable();
        let report = |report| self.reports.push(now.unix_ms, report);
        self.clean_up(self.sessions.end_unwritable(&unwritable, report));
        self.telemetry.tick();
        self.telemetry.waiting("peers", self.peers.waiting());
    }

    /// Refuses and closes what a revocation concerns; the connections that are about to close.
    pub fn revoke(&self, revocation: Revocation) -> Vec<Arc<Link>> {
        let (tenant, device) = (revocation.tenant.clone(), revocation.device.clone());
        // First the table, then the cache: an identity taken from the cache in between is refused by the table.
        let links = self.sessions.revoke(revocation);
        self.authenticator.forget(&Affected::Device { tenant, device });
        links
    }

    /// What is known of some identities may be outdated: it is forgotten, and asked again for open connections.
    pub fn changed(&self, affected: &Affected) {
        self.authenticator.forget(affected);
        self.reverify.add(self.sessions.affected(affected));
    }

    /// A session has given up filters and messages that are not allowed any more.
    pub fn withdrawn(&self, session: &Session, gone: Gone) {
        self.unsubscribe(session, &gone.filters);
        self.telemetry.dropped(Dropped::NotAllowed, gone.dropped);
    }

    /// Every session ends, and what waits in them is dropped.
    pub fn stop(self: &Arc<Self>) {
        self.clean_up(self.sessions.stop());
    }

    /// Takes back a session that was kept, absent, and routes by its subscriptions; what has to be settled before its
    /// client can rely on it.
    pub fn restore(self: &Arc<Self>, kept: Kept) -> Awaited {
        let (subscriptions, from) = (kept.stored.subscriptions.clone(), kept.stored.node.clone());
        let (session, aftermath) = self.sessions.restore(kept, self.now().monotonic_ms);
        let journal = aftermath.journal;
        self.clean_up(aftermath);
        let Some(session) = session else { return Awaited { interest: 0, journal } };
        let interest = self.route_kept(&session, subscriptions);
        Awaited { interest, journal: journal.max(self.leave_list(&session, &from)) }
    }

    /// Routes by what was kept of a session; the version of what is wanted here.
    pub(super) fn route_kept(&self, session: &Arc<Session>, subscriptions: Vec<Subscription>) -> u64 {
        let granted = |Subscription { filter, options }| Granted { filter, options, retained: false };
        let granted: Vec<_> = subscriptions.into_iter().map(granted).collect();
        self.route_to(session, &granted)
    }

    /// A session that was at the node `from` is in the list of this one by now; the position of the journal.
    pub(super) fn leave_list(&self, session: &Session, from: &str) -> u64 {
        let is_other = !from.is_empty() && from != self.peers.node();
        if is_other { session.leave_list(from) } else { 0 }
    }

    /// Routes by these subscriptions from now on, and sends them the retained messages they ask for; the SUBSCRIBE is
    /// answered when what this answers is settled.
    pub fn subscribe(self: &Arc<Self>, session: &Arc<Session>, granted: Vec<Granted>) -> Awaited {
        let interest = self.route_to(session, &granted);
        let journal = session.subscribed(&granted);
        let wanted = granted.into_iter().filter(|granted| granted.retained);
        let wanted = wanted.map(|Granted { filter, options, .. }| Wanted { filter, qos: options.qos, id: options.id });
        let mut idle = false;
        wanted.for_each(|wanted| idle |= session.want_retained(wanted)); // all of them, whoever reads
        if idle {
            self.spawn(retained::send(self.clone(), session.clone()));
        }
        Awaited { interest, journal }
    }

    /// The version of what is wanted here; 0 if that is what it was.
    fn route_to(&self, session: &Arc<Session>, granted: &[Granted]) -> u64 {
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        let mut version = 0;
        if session.has_ended() {
            return version; // a newer connection has cleaned it up, and nobody would again
        }
        for Granted { filter, options, .. } in granted {
            if router.subscribe(session.tenant(), filter, session.number, session.clone(), *options) {
                version = self.peers.subscribed(session.tenant(), filter);
            }
        }
        version
    }

    /// Routes by these no longer; the UNSUBSCRIBE is answered when what this answers is settled.
    pub fn unsubscribe(&self, session: &Session, filters: &[Box<str>]) -> Awaited {
        self.unroute(&mut self.router.write().unwrap_or_else(PoisonError::into_inner), session, filters);
        let journal = if filters.is_empty() { 0 } else { session.unsubscribed() };
        Awaited { interest: 0, journal }
    }

    /// Returns when what is awaited is so.
    pub async fn settled(&self, awaited: Awaited) {
        self.peers.announced(awaited.interest).await;
        self.journal.durable(awaited.journal).await;
    }

    fn unroute(&self, router: &mut Router<Arc<Session>>, session: &Session, filters: &[Box<str>]) {
        for filter in filters {
            if router.unsubscribe(session.tenant(), filter, session.number) {
                self.peers.unsubscribed(session.tenant(), filter);
            }
        }
    }

    /// Appends records, and returns when they are durable. Their place in the log is taken when this is first polled. After
    /// an error the fate of all of them is unknown.
    pub async fn append(&self, records: Vec<Outgoing>) -> Result<Vec<Position>, Unacknowledged> {
        let refused = |error: drover_bus::AppendError| Unacknowledged { reason: error.to_string() };
        self.bus.append(records).await.map_err(refused)?.await
    }

    /// Makes those of `messages` that are to be retained the retained messages of their topics.
    pub async fn retain(&self, messages: &[Arc<Message>]) -> Result<(), StoreError> {
        let retained: Vec<_> = messages.iter().filter(|message| message.is_retained()).cloned().collect();
        if !retained.is_empty() {
            let refused = self.retained.keep(retained).await?;
            self.telemetry.dropped(Dropped::RetainedFull, refused);
        }
        Ok(())
    }

    /// As [`Node::retain`], each by itself, and again until it is done; but for what the store can make no sense of.
    pub(super) async fn retain_each(&self, messages: &[Arc<Message>]) {
        for message in messages {
            while let Err(error) = self.retain(std::slice::from_ref(message)).await {
                self.telemetry.not_retained(&error);
                if !matches!(error, StoreError::Unavailable { .. }) {
                    break;
                }
                tokio::time::sleep(RETAIN_RETRY).await;
            }
        }
    }

    /// Refuses a request to a shadow, or an answer to a command, where nobody serves them.
    pub fn check_topic(&self, topic: &TopicName) -> Result<(), ApiError> {
        if self.environment.limits.shadows || !is_for_shadows(topic.as_str()) {
            return Ok(());
        }
        let message = "shadows and commands are not served here (ingress.shadows)";
        Err(ApiError { field: Some("topic".to_owned()), ..ApiError::new(ErrorCode::Unimplemented, message) })
    }

    /// Stores a message, then routes it. After an error its fate is unknown.
    pub async fn publish(self: &Arc<Self>, message: Arc<Message>) -> Result<(), Unacknowledged> {
        let received_ms = message.telemetry.time_ms;
        self.publish_all(&[message], received_ms).await.map(drop)
    }

    /// As [`Node::publish`], for messages that came at `received_ms` and may tell of other times; where in the log they are.
    /// A store of retained messages that fails holds nobody up for longer than a bound: they are retained later then.
    pub async fn publish_all(
        self: &Arc<Self>,
        messages: &[Arc<Message>],
        received_ms: u64,
    ) -> Result<Vec<Position>, Unacknowledged> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let records = messages.iter().map(|message| message.outgoing(&self.topics, received_ms)).collect();
        let positions = self.append(records).await?;
        tokio::join!(self.retain_in_time(messages), self.route_all(messages));
        Ok(positions)
    }

    /// As [`Node::retain`], within a bound. What the store does not take by then is given to it again, as long as this node
    /// runs.
    async fn retain_in_time(self: &Arc<Self>, messages: &[Arc<Message>]) {
        let retained: Vec<_> = messages.iter().filter(|message| message.is_retained()).cloned().collect();
        if retained.is_empty() {
            return;
        }
        let error = match tokio::time::timeout(RETAIN_PATIENCE, self.retain(&retained)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {RETAIN_PATIENCE:?}"),
        };
        self.telemetry.not_retained(&error);
        let Ok(permit) = self.retaining.clone().try_acquire_owned() else {
            return self.telemetry.dropped(Dropped::RetainedFull, retained.len());
        };
        let node = self.clone();
        self.spawn(async move {
            node.retain_each(&retained).await;
            drop(permit);
        });
    }

    /// Renews the owners of connections for which that came due between `from_ms` and `now_ms`, one after the other.
    pub async fn renew_owners(&self, from_ms: u64, now_ms: u64) {
        for (key, epoch) in self.sessions.to_renew(from_ms, now_ms) {
            if let Err(error) = self.owners.renew(&key.0, &key.1, epoch).await {
                tracing::warn!(client = %key.1, %error, "the owner of a session is not renewed; it will be tried again");
            }
        }
    }

    /// Gives back the room of retained messages whose time is over.
    pub async fn sweep_retained(&self) {
        if let Err(error) = self.retained.sweep(self.now().unix_ms).await {
            self.telemetry.retained_not_swept(&error);
        }
    }

    /// Waits for wills that are on their way, for readers of retained messages, and until the store has all that was
    /// told to it.
    pub async fn finish_tasks(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.journal.durable(self.journal.position()).await;
    }

    /// Makes what a change means for the rest of the node; with [`Journal::together`] where messages change hands.
    pub(super) fn clean_up(self: &Arc<Self>, aftermath: Aftermath) {
        self.telemetry.dropped(Dropped::Away, aftermath.away);
        let mut inherited = Vec::new();
        for (session, why) in aftermath.ended {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            let Gone { filters, dropped, shared } = session.end(why);
            self.unroute(&mut router, &session, &filters);
            drop(router);
            self.telemetry.dropped(why, dropped);
            inherited.push((session, shared));
        }
        // When all have ended, so that nothing goes to one that is about to.
        inherited.into_iter().for_each(|(session, shared)| self.hand_on(&session, shared, |_| true));
        aftermath.left.iter().for_each(|session| self.leave_shares(session));
        aftermath.wills.into_iter().for_each(|will| self.publish_will(will));
    }

    /// A client is away: what it did not acknowledge of shared subscriptions goes to members that are there. Where there
    /// is none, it waits for the client.
    fn leave_shares(&self, session: &Session) {
        let others = |other: &Arc<Session>| other.number != session.number && other.is_ready();
        let shares = session.shares();
        if shares.is_empty() {
            return;
        }
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let moved = |share: &Arc<str>| router.member(session.tenant(), share, others).is_some();
        let moved: BTreeSet<_> = shares.into_iter().filter(moved).collect();
        drop(router);
        self.hand_on(session, session.take_shared(|share| moved.contains(share)), others);
    }

    /// Gives messages of shared subscriptions to other members; one that nobody can have is dropped.
    fn hand_on(&self, from: &Session, messages: Vec<Delivery>, ready: impl Fn(&Arc<Session>) -> bool) {
        for Delivery { message, share, .. } in messages {
            let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
            let there = |other: &Arc<Session>| ready(other) && other.is_ready();
            let found = share.as_ref().and_then(|share| {
                let member = router.member(from.tenant(), share, there);
                member.or_else(|| router.member(from.tenant(), share, &ready))
            });
            drop(router);
            let offered = match (found, share) {
                (Some(found), _) => offer(message, found, WhenFull::Drop).map(drop),
                (None, Some(share)) if !self.peers.is_none() => {
                    self.give_elsewhere(message, share);
                    Ok(())
                }
                (None, _) => Err(Dropped::NoMember),
            };
            if let Err(why) = offered {
                self.telemetry.dropped(why, 1);
            }
        }
    }

    fn publish_will(self: &Arc<Self>, will: DueWill) {
        let Ok(permit) = self.wills.clone().try_acquire_owned() else {
            return self.telemetry.will_dropped(&will.publisher.client);
        };
        let node = self.clone();
        self.spawn(async move {
            let mut message = will.publication.stamp(will.publisher, node.stamp(node.now().unix_ms, None));
            while let Err(error) = node.publish(Arc::new(message.clone())).await {
                node.telemetry.not_stored(&error);
                message.telemetry.dup = true; // it may be in the log already: the repeat window recognises it
                tokio::time::sleep(WILL_RETRY).await;
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests;
