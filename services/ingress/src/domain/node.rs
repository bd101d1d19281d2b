//! This node: its sessions, its router, and the way of a message through both.
//!
//! Domain layer over the Bus port. The one rule: a message is routed after it is durable, never before; here first, then
//! to the subscribers of other nodes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use drover_bus::{Bus, Position, Unacknowledged};
use drover_types::shadow::ShadowRequest;
use drover_types::{ApiError, ClientId, Clock, ErrorCode, Qos, Random, RecordId, TopicName, TraceParent};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::domain::connection::{CloseReason, Environment, Granted, Now};
use crate::domain::link::Link;
use crate::domain::message::{LogTopics, Message, Publisher, Stamp};
use crate::domain::ownership::Claim;
use crate::domain::peers::Peers;
use crate::domain::presence::Reports;
use crate::domain::reverify::{Affected, Reverify};
use crate::domain::revocations::Revocation;
use crate::domain::router::Router;
use crate::domain::session::{Delivery, Dropped, Gone, Session};
use crate::domain::sessions::{Aftermath, Attach, AttachError, Attached, DueWill, Sessions, WillFate};
use crate::ports::{Authenticator, Owners};
use crate::telemetry::Telemetry;

/// Wills that wait for the log at the same time.
const WILLS_WAITING_MAX: usize = 10_000;
/// Wait before a will that was not stored is tried again.
const WILL_RETRY: Duration = Duration::from_millis(500);

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
    pub environment: Arc<Environment>,
    pub sessions: Sessions,
    pub reports: Reports,
    pub reverify: Reverify,
    pub telemetry: Telemetry,
    pub topics: LogTopics,
    router: RwLock<Router<Arc<Session>>>,
    started: tokio::time::Instant,
    wills: Arc<Semaphore>,
    will_tasks: TaskTracker,
}

/// Whom a message from another service is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Every session with a matching subscription.
    Subscribers,
    /// Only this client, if it has subscribed; with `epoch` only while that connection holds its session.
    Client { client: ClientId, epoch: Option<u64> },
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
    /// The zero of monotonic time.
    pub started: tokio::time::Instant,
}

impl Node {
    /// A node without connections.
    pub fn new(ports: NodePorts, environment: Environment, sessions: Sessions, telemetry: Telemetry) -> Self {
        let NodePorts { bus, clock, random, authenticator, owners, ownership_patience, peers, started } = ports;
        Self {
            bus,
            clock,
            random,
            authenticator,
            topics: LogTopics::new(environment.limits.shadows),
            owners,
            ownership_patience,
            peers,
            environment: Arc::new(environment),
            sessions,
            reports: Reports::default(),
            reverify: Reverify::default(),
            telemetry,
            router: RwLock::default(),
            started,
            wills: Arc::new(Semaphore::new(WILLS_WAITING_MAX)),
            will_tasks: TaskTracker::new(),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed().as_millis();
        Now { monotonic_ms: u64::try_from(elapsed).unwrap_or(u64::MAX), unix_ms: self.clock.now_ms() }
    }

    /// The receipt of a message that came at `unix_ms`.
    pub fn stamp(&self, unix_ms: u64, traceparent: Option<TraceParent>) -> Stamp {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        Stamp { id: RecordId::at(unix_ms, random), time_ms: unix_ms, traceparent }
    }

    /// Gives an admitted client the session it has claimed, with the claim's epoch. Room for its reports is reserved.
    pub fn attach(self: &Arc<Self>, attach: Attach, claim: Claim) -> Result<Attached, AttachError> {
        let now = self.now();
        let report = |report| self.reports.push(now.unix_ms, report);
        let identity = attach.identity.clone();
        let attached = self.sessions.attach(attach, now.monotonic_ms, report);
        drop(claim); // its place is taken
        match attached {
            Ok((attached, aftermath)) => {
                self.clean_up(aftermath);
                let Publisher { client, epoch, .. } = &attached.publisher;
                let allowed = |filter: &str| identity.policy.may_subscribe(filter, client.as_str());
                self.withdrawn(&attached.session, attached.session.withdraw(*epoch, allowed));
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
        self.clean_up(self.sessions.detach(publisher, expiry_s, will, reason, now.monotonic_ms, report));
    }

    /// Time has passed: sessions end, wills fall due.
    pub fn tick(self: &Arc<Self>) {
        self.clean_up(self.sessions.tick(self.now().monotonic_ms));
        self.telemetry.tick();
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

    /// Routes by these subscriptions from now on; other nodes know of them when [`Peers::announced`] returns for the
    /// version this answers.
    pub fn subscribe(&self, session: &Arc<Session>, granted: Vec<Granted>) -> u64 {
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        let mut version = 0;
        if session.has_ended() {
            return version; // a newer connection has cleaned it up, and nobody would again
        }
        for Granted { filter, options } in granted {
            if router.subscribe(&session.tenant, &filter, session.number, session.clone(), options) {
                version = self.peers.subscribed(&session.tenant, &filter);
            }
        }
        version
    }

    /// Routes by these no longer.
    pub fn unsubscribe(&self, session: &Session, filters: &[Box<str>]) {
        self.unroute(&mut self.router.write().unwrap_or_else(PoisonError::into_inner), session, filters);
    }

    fn unroute(&self, router: &mut Router<Arc<Session>>, session: &Session, filters: &[Box<str>]) {
        for filter in filters {
            if router.unsubscribe(&session.tenant, filter, session.number) {
                self.peers.unsubscribed(&session.tenant, filter);
            }
        }
    }

    /// Hands durable messages to all subscribers: those of this node at once, those of other nodes as
    /// [`Peers::forward`] says. `publisher` is the session they came from.
    pub async fn route_all(&self, messages: &[Arc<Message>], publisher: Option<u64>) {
        messages.iter().for_each(|message| self.route(message, publisher));
        self.peers.forward(messages, &self.telemetry).await;
    }

    /// As [`Node::route_all`], for messages of several sessions: `publishers` are those, in the order of the messages.
    pub async fn route_each(&self, messages: &[Arc<Message>], publishers: &[u64]) {
        messages.iter().zip(publishers).for_each(|(message, publisher)| self.route(message, Some(*publisher)));
        self.peers.forward(messages, &self.telemetry).await;
    }

    /// Hands a durable message to the subscribers of this node.
    fn route(&self, message: &Arc<Message>, publisher: Option<u64>) {
        self.telemetry.stored(message.telemetry.qos.into());
        self.hand_out(message, publisher, |_| true);
    }

    /// Hands a message that another service has logged to whom it is for; how many sessions took it.
    pub fn deliver(&self, message: &Arc<Message>, recipient: &Recipient) -> usize {
        self.hand_out(message, None, |session| match recipient {
            Recipient::Subscribers => true,
            Recipient::Client { client, epoch } => {
                session.client == *client && epoch.is_none_or(|epoch| session.is_held_by(epoch))
            }
        })
    }

    fn hand_out(&self, message: &Arc<Message>, publisher: Option<u64>, concerns: impl Fn(&Session) -> bool) -> usize {
        let telemetry = &message.telemetry;
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let matches = router.matches(&telemetry.tenant, telemetry.topic.as_str(), publisher);
        drop(router);
        let mut taken = 0;
        for found in matches.into_iter().filter(|found| concerns(&found.subscriber)) {
            let delivery = Delivery {
                message: message.clone(),
                qos: telemetry.qos.min(found.qos).min(Qos::AtLeastOnce),
                retain: telemetry.retain && found.retain_as_published,
                ids: found.ids,
            };
            match found.subscriber.offer(delivery) {
                Ok(()) => taken += 1,
                Err(why) => self.telemetry.dropped(why, 1),
            }
        }
        taken
    }

    /// Refuses a request to a shadow where nobody serves them.
    pub fn check_topic(&self, topic: &TopicName) -> Result<(), ApiError> {
        if self.environment.limits.shadows || ShadowRequest::of_topic(topic.as_str()).is_none() {
            return Ok(());
        }
        let message = "shadows are not served here (ingress.shadows)";
        Err(ApiError { field: Some("topic".to_owned()), ..ApiError::new(ErrorCode::Unimplemented, message) })
    }

    /// Stores a message, then routes it. After an error its fate is unknown.
    pub async fn publish(&self, message: Arc<Message>) -> Result<(), Unacknowledged> {
        self.publish_at(message).await.map(drop)
    }

    /// As [`Node::publish`]; answers where in the log the message is.
    pub async fn publish_at(&self, message: Arc<Message>) -> Result<Position, Unacknowledged> {
        let batch = vec![message.outgoing(&self.topics)];
        let refused = |error: drover_bus::AppendError| Unacknowledged { reason: error.to_string() };
        let positions = self.bus.append(batch).await.map_err(refused)?.await?;
        self.route_all(&[message], None).await;
        Ok(positions.into_iter().next().expect("a batch of one has one position"))
    }

    /// Waits for wills that are on their way.
    pub async fn finish_wills(&self) {
        self.will_tasks.close();
        self.will_tasks.wait().await;
    }

    pub(super) fn clean_up(self: &Arc<Self>, aftermath: Aftermath) {
        self.telemetry.dropped(Dropped::Away, aftermath.away);
        for (session, why) in aftermath.ended {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            let Gone { filters, dropped } = session.end(why);
            self.unroute(&mut router, &session, &filters);
            drop(router);
            self.telemetry.dropped(why, dropped);
        }
        aftermath.wills.into_iter().for_each(|will| self.publish_will(will));
    }

    fn publish_will(self: &Arc<Self>, will: DueWill) {
        let Ok(permit) = self.wills.clone().try_acquire_owned() else {
            return self.telemetry.will_dropped(&will.publisher.client);
        };
        let node = self.clone();
        self.will_tasks.spawn(async move {
            let mut message = will.publication.stamp(&will.publisher, node.stamp(node.now().unix_ms, None));
            while let Err(error) = node.publish(Arc::new(message.clone())).await {
                node.telemetry.not_stored(&error);
                message.telemetry.dup = true; // it may be in the log already: the repeat window recognises it
                tokio::time::sleep(WILL_RETRY).await;
            }
            drop(permit);
        });
    }
}
