//! One device that observes: a session as that of an MQTT client, whose messages leave as notifications.
//!
//! Each is confirmable, and the next leaves when the one before has arrived (RFC 7641 section 4.5): what the device does not
//! take waits in its session, within the bounds of any session. A device that does not answer is gone.

use std::sync::Arc;
use std::time::Duration;

use coap_lite::ResponseType;
use drover_mqtt::{PacketId, SubscriptionId};
use drover_types::{ApiError, COAP_CLIENT, ClientId, DeviceKey, ErrorCode, Qos, TopicFilter};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ear::Ear;
use super::endpoint::{Endpoint, Outcome};
use super::requests;
use crate::domain::coap::Peer;
use crate::domain::coap::block::Block;
use crate::domain::coap::downloads::DownloadKey;
use crate::domain::coap::reply::Reply;
use crate::domain::connection::{CloseReason, Granted};
use crate::domain::identity::Identity;
use crate::domain::link::{Link, Signals, Stop};
use crate::domain::message::Publisher;
use crate::domain::node::Node;
use crate::domain::router::Options;
use crate::domain::session::{Answer, Delivery, Dropped, Next, Session};
use crate::domain::sessions::{Attach, AttachError, Attached, Protocol, WillFate};

/// How long a device may take from one block of a notification to the next; then the next notification leaves.
const FETCH_MS: u64 = 10_000;
/// How often is looked whether it has them all.
const FETCH_LOOK: Duration = Duration::from_millis(50);
/// Longest segment of a path, in bytes (RFC 7252 section 5.10.7).
const SEGMENT_BYTES_MAX: usize = 255;
/// Bits of a sequence number (RFC 7641 section 3.4).
const SEQUENCE_MASK: u32 = (1 << 24) - 1;

/// What the task of a device is asked for.
pub enum Command {
    Observe {
        filter: TopicFilter,
        token: Vec<u8>,
        /// Of the blocks in which notifications come.
        size: Option<Block>,
        /// Whether retained messages are wanted as notifications.
        retained: bool,
        answer: oneshot::Sender<Result<u32, ApiError>>,
    },
    Forget {
        token: Vec<u8>,
    },
}

/// What a task works with.
pub struct Start {
    pub endpoint: Arc<Endpoint>,
    pub identity: Arc<Identity>,
    pub peer: Peer,
    pub commands: mpsc::Receiver<Command>,
    pub ear: Ear,
}

/// A filter and how its notifications are addressed.
struct Observation {
    filter: Box<str>,
    token: Vec<u8>,
    size: Option<Block>,
    id: SubscriptionId,
}

/// A message on its way to the device.
struct UnderWay {
    delivery: Delivery,
    packet_id: Option<PacketId>,
    /// Observations that are to be told of it as well.
    left: Vec<SubscriptionId>,
    /// The one that is told now.
    to: SubscriptionId,
    /// Sends it when polled first.
    told: BoxFuture<'static, Outcome>,
}

/// Why it ends.
enum Ending {
    /// Nothing is observed any more.
    Done,
    /// The device does not answer.
    Lost,
    /// Its credential has ended, or does not hold.
    Revoked,
    Stopped(Stop),
}

struct Observer {
    endpoint: Arc<Endpoint>,
    peer: Peer,
    ear: Ear,
    session: Arc<Session>,
    publisher: Publisher,
    observations: Vec<Observation>,
    last_id: u32,
    sequence: u32,
    under_way: Option<UnderWay>,
    /// A body that the device is fetching.
    fetching: Option<DownloadKey>,
    /// When its credential ends.
    ends: Option<Instant>,
}

enum Event {
    Signals(Signals),
    Command(Option<Command>),
    Told(Outcome),
    Ended,
    Look,
}

/// Serves a device until nothing is observed any more, or it must not be.
pub async fn run(start: Start) {
    let Start { endpoint, identity, peer, mut commands, ear } = start;
    let link = ear.link.clone();
    let telemetry = endpoint.setup.telemetry.clone();
    match attach(&endpoint.setup.node, &identity, peer, link.clone()).await {
        Ok(Attached { session, publisher, .. }) => {
            telemetry.observing();
            tracing::debug!(client = %publisher.client, %peer, "a device observes");
            let mut observer = Observer::new(endpoint, &identity, peer, ear, session, publisher);
            let ending = observer.run(&mut commands).await;
            commands.close();
            observer.end(&ending);
            telemetry.observed();
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "a device cannot observe");
            commands.close();
            while let Ok(command) = commands.try_recv() {
                if let Command::Observe { answer, .. } = command {
                    answer.send(Err(refusal(&error))).ok(); // whoever has asked may be gone
                }
            }
        }
    }
    link.set_closed();
}

/// Takes the device's session for CoAP, from wherever it was.
async fn attach(
    node: &Arc<Node>,
    identity: &Arc<Identity>,
    peer: Peer,
    link: Arc<Link>,
) -> Result<Attached, AttachError> {
    let client = ClientId::new(format!("{COAP_CLIENT}{}", identity.device)).expect("a device id has no null character");
    let key = (identity.tenant.clone(), client.clone());
    node.sessions.check_connections(&key, &identity.device)?;
    node.reports.reserve().await;
    let claim = match node.clone().take(key).await {
        Ok(claim) => claim,
        Err(error) => {
            node.reports.release();
            return Err(error);
        }
    };
    let attach = Attach {
        identity: identity.clone(),
        client,
        epoch: claim.epoch,
        clean_start: true,
        expiry_s: 0,
        will: None,
        version: Protocol::Coap,
        peer: peer.address,
        link,
    };
    let attached = node.attach(attach, claim)?;
    node.settled(attached.awaited).await;
    Ok(attached)
}

/// When the credential of this identity ends.
fn ends(identity: &Identity, unix_ms: u64) -> Option<Instant> {
    identity.lasts_ms(unix_ms).map(|lasts_ms| Instant::now() + Duration::from_millis(lasts_ms))
}

fn refusal(error: &AttachError) -> ApiError {
    let code = match error {
        AttachError::Revoked => ErrorCode::Unauthenticated,
        AttachError::TakenOver => ErrorCode::Aborted,
        AttachError::TooManyConnections { .. } => ErrorCode::ResourceExhausted,
        AttachError::NoOwner { .. } | AttachError::TooManySessions { .. } | AttachError::NotRead { .. } => {
            ErrorCode::Unavailable
        }
    };
    ApiError::new(code, error.to_string())
}

impl Observer {
    fn new(
        endpoint: Arc<Endpoint>,
        identity: &Identity,
        peer: Peer,
        ear: Ear,
        session: Arc<Session>,
        publisher: Publisher,
    ) -> Self {
        let unix_ms = endpoint.setup.node.now().unix_ms;
        Self {
            ends: ends(identity, unix_ms),
            endpoint,
            peer,
            ear,
            session,
            publisher,
            observations: Vec::new(),
            last_id: 0,
            // Beyond those of an observation before this one.
            sequence: (unix_ms >> 6) as u32 & SEQUENCE_MASK,
            under_way: None,
            fetching: None,
        }
    }

    fn node(&self) -> &Arc<Node> {
        &self.endpoint.setup.node
    }

    async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> Ending {
        loop {
            self.advance();
            match self.event(commands).await {
                Event::Look => {}
                Event::Signals(Signals { stop: Some(stop), .. }) => return Ending::Stopped(stop),
                Event::Signals(Signals { identity, .. }) => {
                    if identity.is_some_and(|identity| !self.reauthorized(identity)) {
                        return Ending::Revoked;
                    }
                }
                Event::Command(Some(Command::Observe { filter, token, size, retained, answer })) => {
                    let answered = self.observe(filter, token, size, retained).await;
                    answer.send(answered).ok(); // whoever has asked may be gone
                }
                Event::Command(Some(Command::Forget { token })) => {
                    self.forget(|observation| observation.token == token)
                }
                Event::Told(Outcome::GivenUp) => return Ending::Lost,
                Event::Told(outcome) => self.told(outcome),
                Event::Ended => return Ending::Revoked,
                Event::Command(None) => return Ending::Stopped(Stop::TakenOver), // another peer has its place
            }
            if self.observations.is_empty() && commands.is_empty() {
                return Ending::Done;
            }
        }
    }

    async fn event(&mut self, commands: &mut mpsc::Receiver<Command>) -> Event {
        let (ear, under_way, ends, fetching) = (&self.ear, &mut self.under_way, self.ends, self.fetching.is_some());
        let told = async {
            match under_way {
                Some(under_way) => (&mut under_way.told).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match ends {
                Some(ends) => tokio::time::sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signals = ear.signals() => Event::Signals(signals),
            outcome = told => Event::Told(outcome),
            command = commands.recv() => Event::Command(command),
            () = ended => Event::Ended,
            () = tokio::time::sleep(FETCH_LOOK), if fetching => Event::Look,
        }
    }

    /// Subscribes to a filter, or puts the observation of it under another token; the sequence number of the answer.
    async fn observe(
        &mut self,
        filter: TopicFilter,
        token: Vec<u8>,
        size: Option<Block>,
        retained: bool,
    ) -> Result<u32, ApiError> {
        let text: Box<str> = filter.as_str().into();
        let limit = self.node().environment.limits.filters_max;
        self.session.add_filter(&text, limit).map_err(|limit| {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "the device observes as much as it may");
            error.over(limit, limit + 1)
        })?;
        self.forget(|observation| observation.token == token && observation.filter != text);
        let id = match self.observations.iter().position(|observation| observation.filter == text) {
            Some(at) => self.observations.swap_remove(at).id, // messages that wait are for this one
            None => self.next_id(),
        };
        self.observations.push(Observation { filter: text.clone(), token, size, id });
        let options = Options { qos: Qos::AtLeastOnce, no_local: false, retain_as_published: false, id: Some(id) };
        let retained = retained && filter.share().is_none();
        let node = self.node().clone();
        let awaited = node.subscribe(&self.session, vec![Granted { filter: text, options, retained }]);
        node.settled(awaited).await;
        Ok(self.next_sequence())
    }

    /// Observes these no longer.
    fn forget(&mut self, gone: impl Fn(&Observation) -> bool) {
        let gone: Vec<Observation> = self.observations.extract_if(.., |observation| gone(observation)).collect();
        let filters: Vec<Box<str>> = gone.into_iter().map(|observation| observation.filter).collect();
        for filter in &filters {
            self.session.remove_filter(filter);
        }
        self.node().unsubscribe(&self.session, &filters);
    }

    /// What the device may do has changed; false if it may not observe at all.
    fn reauthorized(&mut self, identity: Arc<Identity>) -> bool {
        let device = identity.device.to_string();
        let allowed = |filter: &str| identity.may_subscribe(filter, &device);
        let gone = self.session.withdraw(self.publisher.epoch, allowed);
        let refused = Reply::refusing(ResponseType::Forbidden, "the policies do not allow this any more");
        for observation in self.observations.extract_if(.., |observation| gone.filters.contains(&observation.filter)) {
            self.endpoint.tell(self.peer, &observation.token, &refused);
        }
        self.endpoint.setup.node.withdrawn(&self.session, gone);
        self.ends = ends(&identity, self.node().now().unix_ms);
        identity.may_connect_as(self.publisher.client.as_str(), true)
    }

    /// Takes the next message out of the session and tells of it, if nothing is on its way.
    fn advance(&mut self) {
        while self.under_way.is_none() && !self.is_fetching() {
            match self.session.next(self.publisher.epoch, 1) {
                Next::Nothing => return,
                Next::Release { packet_id } => self.session.give_up(self.publisher.epoch, packet_id),
                Next::Complete { .. } => {} // a device has sent none at QoS 2 here
                Next::Send { delivery, packet_id, .. } => {
                    let now_ms = self.node().now().unix_ms;
                    let old = delivery.message.expires_ms().is_some_and(|expires_ms| expires_ms <= now_ms);
                    let left = delivery.ids.to_vec();
                    if old {
                        self.node().telemetry.dropped(Dropped::Expired, 1);
                    }
                    if old || !self.notify_next(&delivery, packet_id, left) {
                        packet_id.into_iter().for_each(|id| self.session.give_up(self.publisher.epoch, id));
                    }
                }
            }
        }
    }

    /// Whether the device is expected to ask for further blocks of what it was told last.
    fn is_fetching(&mut self) -> bool {
        let Some(download) = &self.fetching else { return false };
        let since_ms = self.endpoint.state().downloads.fetching_since(download);
        let waits = since_ms.is_some_and(|since_ms| since_ms.saturating_add(FETCH_MS) > self.endpoint.now_ms());
        if !waits {
            self.fetching = None;
        }
        waits
    }

    /// Tells the next of the observations in `left` that there still is; false if there is none.
    fn notify_next(&mut self, delivery: &Delivery, packet_id: Option<PacketId>, mut left: Vec<SubscriptionId>) -> bool {
        while let Some(to) = left.pop() {
            let Some(at) = self.observations.iter().position(|observation| observation.id == to) else { continue };
            let sequence = self.next_sequence();
            let Observation { filter, token, size, .. } = &self.observations[at];
            let message = &delivery.message;
            let topic = message.telemetry.topic.as_str();
            let mut reply = Reply { observe: Some(sequence), ..requests::of_message(message) };
            if topic != &**filter {
                reply.location = location(topic);
            }
            let device = DeviceKey { tenant: self.publisher.tenant.clone(), device: self.publisher.device.clone() };
            let download = DownloadKey { device, peer: self.peer, filter: filter.to_string() };
            let more = requests::first_block(&self.endpoint, &mut reply, *size, download.clone(), message);
            let told = self.endpoint.clone().notify(self.peer, token.clone(), reply).boxed();
            self.fetching = more.then_some(download);
            self.under_way = Some(UnderWay { delivery: delivery.clone(), packet_id, left, to, told });
            return true;
        }
        false
    }

    /// A notification has arrived, or its observer does not know of it and so wants no more (RFC 7641 section 3.6).
    fn told(&mut self, outcome: Outcome) {
        let Some(UnderWay { delivery, packet_id, left, to, .. }) = self.under_way.take() else { return };
        if outcome == Outcome::Reset {
            self.fetching = None;
            self.forget(|observation| observation.id == to);
        }
        if self.notify_next(&delivery, packet_id, left) {
            return;
        }
        if let Some(packet_id) = packet_id {
            self.session.answer(self.publisher.epoch, packet_id, Answer::Acknowledged);
        }
        self.node().telemetry.delivered(delivery.qos);
    }

    fn next_id(&mut self) -> SubscriptionId {
        self.last_id += 1;
        SubscriptionId::new(self.last_id).expect("nobody registers 268 million filters in one go")
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = (self.sequence + 1) & SEQUENCE_MASK;
        self.sequence
    }

    /// Tells every observation that it is over, and lets go of the session.
    fn end(&mut self, ending: &Ending) {
        let (reason, told) = match ending {
            Ending::Done => (CloseReason::Client, None),
            Ending::Lost => (CloseReason::ConnectionLost, None),
            Ending::Revoked | Ending::Stopped(Stop::Revoked) => {
                (CloseReason::Revoked, Some((ResponseType::Unauthorized, "credentials are not valid any more")))
            }
            Ending::Stopped(Stop::TakenOver) => {
                (CloseReason::TakenOver, Some((ResponseType::Conflict, "the device observes from elsewhere")))
            }
            Ending::Stopped(Stop::Drain) => {
                (CloseReason::Drain, Some((ResponseType::ServiceUnavailable, "the node stops; register again")))
            }
            Ending::Stopped(Stop::DeclaredGone) => {
                (CloseReason::NodeLost, Some((ResponseType::ServiceUnavailable, "register again")))
            }
            Ending::Stopped(Stop::NotKept) => {
                (CloseReason::NotKept, Some((ResponseType::InternalServerError, "the session cannot be kept")))
            }
        };
        if let Some((code, text)) = told {
            let reply = Reply::refusing(code, text);
            self.observations.iter().for_each(|observation| self.endpoint.tell(self.peer, &observation.token, &reply));
        }
        tracing::debug!(client = %self.publisher.client, peer = %self.peer, reason = reason.name(), "a device observes no more");
        self.node().detach(&self.publisher, 0, WillFate::Discard, reason);
    }
}

/// The path of the topic that a message has come to: `/t/…`; empty if it has a level that is no segment of a path.
fn location(topic: &str) -> Vec<String> {
    let levels = || std::iter::once("t").chain(topic.split('/'));
    match levels().any(|level| level.len() > SEGMENT_BYTES_MAX) {
        true => Vec::new(),
        false => levels().map(str::to_owned).collect(),
    }
}
