//! One MQTT connection over any byte stream: moves bytes, carries out the state machine's effects, keeps its timers.
//!
//! Server layer. No decision about MQTT is made here. While a connection is idle it owns no buffer (a
//! WebSocket has one of its own): bytes are read into one buffer of the thread, and what is left of a packet is kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::appends::{Appends, Settled};
use super::questions::{self, Answer};
use super::stream::ByteStream;
use crate::domain::connection::{Admission, Close, CloseReason, Connection, Effect, Peer};
use crate::domain::link::{Link, Signal};
use crate::domain::message::{Message, Publication, Publisher};
use crate::domain::node::{Node, Recipient};
use crate::domain::ownership::Claim;
use crate::domain::session::Session;
use crate::domain::sessions::{Attach, AttachError, Awaited};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How long a closed connection's last packets may take; a revoked client that does not read is out in time (P5).
const FLUSH: Duration = Duration::from_millis(500);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a connection works with.
pub struct Setup {
    pub node: Arc<Node>,
    pub peer: Peer,
    pub link: Arc<Link>,
    /// A peer that takes no byte for this long is gone.
    pub write_timeout: Duration,
}

struct Driver<S> {
    setup: Setup,
    stream: S,
    connection: Connection,
    input: BytesMut,
    /// The peer has sent all it will.
    ended: bool,
    /// Bytes were written since the last flush.
    unflushed: bool,
    /// When the peer last took bytes, while some wait.
    written: Instant,
    /// What its CONNECT waits for.
    asking: Option<BoxFuture<'static, Answer>>,
    /// What has to be settled before a SUBSCRIBE or UNSUBSCRIBE is answered, oldest first; as many as the connection keeps
    /// answers for.
    settling: VecDeque<Awaited>,
    /// Room for presence reports is taken, and not yet handed over to a session.
    reserved: bool,
    appends: Appends,
    session: Option<Arc<Session>>,
    publisher: Option<Publisher>,
    close: Option<Close>,
}

enum Event {
    Signal(Signal),
    Answered(Answer),
    Subscribed,
    Settled(Settled),
    Read(usize),
    Written,
    Lost,
    Time,
}

/// Serves one connection until it is closed and all it has sent is routed.
pub async fn serve<S: ByteStream>(stream: S, setup: Setup) {
    let node = setup.node.clone();
    let connection = Connection::new(node.environment.clone(), setup.peer.clone(), node.now());
    let appends = Appends::new(node.clone());
    let mut driver = Driver {
        setup,
        stream,
        connection,
        input: BytesMut::new(),
        ended: false,
        unflushed: false,
        written: Instant::now(),
        asking: None,
        settling: VecDeque::new(),
        reserved: false,
        appends,
        session: None,
        publisher: None,
        close: None,
    };
    let close = driver.run().await;
    driver.finish(&close).await;
}

impl<S: ByteStream> Driver<S> {
    async fn run(&mut self) -> Close {
        loop {
            self.advance();
            if let Some(close) = self.close.take() {
                return close;
            }
            let event = self.event().await;
            self.handle(event);
        }
    }

    /// Takes packets and carries out effects until there are no more.
    fn advance(&mut self) {
        loop {
            if self.appends.is_empty() {
                self.connection.receive(&mut self.input, self.setup.node.now());
                if self.ended && self.connection.takes_packets() {
                    self.connection.lost();
                }
            }
            if !self.carry_out() {
                break;
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Carries out the effects there are; whether there were any. All messages among them become one batch.
    fn carry_out(&mut self) -> bool {
        let mut any = false;
        let mut messages = Vec::new();
        while let Some(effect) = self.connection.next_effect() {
            any = true;
            match effect {
                Effect::Publish(publication) => messages.extend(self.stamp(publication)),
                effect => self.carry_out_one(effect),
            }
        }
        if !messages.is_empty() {
            self.appends.push(messages, self.session.clone());
        }
        any
    }

    fn carry_out_one(&mut self, effect: Effect) {
        let node = self.setup.node.clone();
        match effect {
            Effect::Authenticate(proof) => self.asking = Some(questions::authenticate(node, proof)),
            Effect::Attach(admission) => self.asking = Some(questions::take(node, admission)),
            Effect::Subscribe(granted) => {
                let subscribed = self.session.as_ref().map(|session| node.subscribe(session, granted));
                self.settle(subscribed.unwrap_or_default());
            }
            Effect::Unsubscribe(filters) => {
                let unsubscribed = self.session.as_ref().map(|session| node.unsubscribe(session, &filters));
                self.settle(unsubscribed.unwrap_or_default());
            }
            Effect::Publish(_) => {} // collected by the caller
            Effect::Answer(publication) => self.answer(publication),
            Effect::Refused(fault) => {
                let client = self.publisher.as_ref().map_or("", |publisher| publisher.client.as_str());
                node.telemetry.message_refused(client, self.setup.peer.address, &fault);
            }
            Effect::Delivered { qos } => node.telemetry.delivered(qos),
            Effect::Dropped(why) => node.telemetry.dropped(why, 1),
            Effect::Withdraw(gone) => {
                if let Some(session) = &self.session {
                    node.withdrawn(session, gone);
                }
            }
            Effect::Close(close) => self.close = Some(close),
        }
    }

    /// Hands an answer of the node to this client alone.
    fn answer(&self, publication: Publication) {
        let Some(publisher) = &self.publisher else { return };
        let recipient = Recipient::Client { client: publisher.client.clone(), epoch: Some(publisher.epoch) };
        if let Some(message) = self.stamp(publication) {
            self.setup.node.deliver(&message, &recipient);
        }
    }

    /// A SUBSCRIBE or UNSUBSCRIBE is answered in its turn, when what is awaited is settled.
    fn settle(&mut self, awaited: Awaited) {
        if awaited.is_nothing() && self.settling.is_empty() {
            self.connection.subscribed(self.setup.node.now());
        } else {
            self.settling.push_back(awaited);
        }
    }

    /// The session is this connection's, as far as the nodes among themselves are concerned; or not.
    fn taken(&mut self, admission: Box<Admission>, claim: Result<Claim, AttachError>) {
        let node = self.setup.node.clone();
        let attached = claim.and_then(|claim| {
            let attach = Attach {
                identity: admission.identity,
                client: admission.client,
                epoch: claim.epoch,
                clean_start: admission.clean_start,
                expiry_s: admission.expiry_s,
                will: admission.will,
                version: admission.version,
                peer: self.setup.peer.address,
                link: self.setup.link.clone(),
            };
            self.reserved = false;
            node.attach(attach, claim)
        });
        match attached {
            Ok(attached) => {
                node.telemetry.connected(&attached.publisher.client, self.setup.peer.address);
                self.session = Some(attached.session.clone());
                self.publisher = Some(attached.publisher.clone());
                if attached.awaited.is_nothing() {
                    self.connection.attached(attached, node.now());
                } else {
                    self.asking = Some(questions::settle(node, attached));
                }
            }
            Err(error) => self.connection.refused(error),
        }
    }

    /// The message a publication becomes; one span each while this process takes part in a trace.
    fn stamp(&self, publication: Publication) -> Option<Arc<Message>> {
        let publisher = self.publisher.as_ref()?;
        let span = tracing::debug_span!("publish", device = %publisher.device, topic = publication.topic.as_str());
        if let Some(parent) = publication.traceparent() {
            drover_host::trace::continue_from(&span, parent.as_str());
        }
        let traceparent = drover_host::trace::traceparent_of(&span);
        let node = &self.setup.node;
        Some(Arc::new(publication.stamp(publisher, node.stamp(node.now().unix_ms, traceparent))))
    }

    async fn event(&mut self) -> Event {
        let wants = !self.ended && self.appends.is_empty() && self.connection.wants_bytes(self.input.len());
        let deadline = self.deadline();
        let Self { setup, stream, connection, input, unflushed, asking, settling, appends, .. } = self;
        let answered = async {
            match asking {
                Some(answer) => answer.await,
                None => std::future::pending().await,
            }
        };
        let subscribed = async {
            match settling.front() {
                Some(awaited) => setup.node.settled(*awaited).await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let transfer = poll_fn(|cx| poll_transfer(stream, connection.output(), unflushed, input, wants, cx));
        tokio::select! {
            biased;
            signal = setup.link.signal() => Event::Signal(signal),
            settled = appends.next() => Event::Settled(settled),
            answer = answered => Event::Answered(answer),
            () = subscribed => Event::Subscribed,
            event = transfer => event,
            () = time => Event::Time,
        }
    }

    /// When the state machine or the patience with a peer that does not read wants to be asked again.
    fn deadline(&mut self) -> Option<Instant> {
        let now_ms = self.setup.node.now().monotonic_ms;
        let protocol = self
            .connection
            .deadline_ms()
            .map(|deadline_ms| Instant::now() + Duration::from_millis(deadline_ms.saturating_sub(now_ms)));
        let stalled = !self.connection.output().is_empty();
        let write = stalled.then(|| self.written + self.setup.write_timeout);
        protocol.into_iter().chain(write).min()
    }

    fn handle(&mut self, event: Event) {
        let now = self.setup.node.now();
        match event {
            Event::Signal(Signal::Deliveries) => self.deliver(),
            Event::Signal(Signal::Identity(identity)) => {
                self.connection.reauthorized(identity, now);
                self.deliver();
            }
            Event::Signal(Signal::Stop(stop)) => self.connection.stop(stop),
            Event::Answered(answer) => {
                self.asking = None;
                match answer {
                    Answer::Identity(answer) => {
                        self.reserved = answer.is_ok();
                        self.connection.authenticated(answer);
                    }
                    Answer::Owner(admission, claim) => self.taken(admission, claim),
                    Answer::Settled(attached) => self.connection.attached(*attached, now),
                }
            }
            Event::Subscribed => {
                self.settling.pop_front();
                self.connection.subscribed(now);
            }
            Event::Settled(Settled::Stored(count)) => self.connection.stored(count, now),
            Event::Settled(Settled::Failed(error)) => {
                self.setup.node.telemetry.not_stored(&error);
                self.connection.not_stored();
            }
            Event::Read(0) => self.ended = true,
            Event::Read(_) => {}
            Event::Written => {
                self.written = Instant::now();
                self.deliver();
            }
            Event::Lost => self.connection.lost(),
            Event::Time => {
                let stalled = !self.connection.output().is_empty();
                if stalled && self.written.elapsed() >= self.setup.write_timeout {
                    self.connection.lost();
                }
                if !self.appends.is_empty() {
                    self.connection.not_listening(now);
                }
                self.connection.tick(now);
            }
        }
    }

    fn deliver(&mut self) {
        if self.connection.output().is_empty() {
            self.written = Instant::now();
        }
        self.connection.deliver(self.setup.node.now());
    }

    /// Lets go of the session, writes the last packets, and stays until all messages taken are routed.
    async fn finish(mut self, close: &Close) {
        let (node, peer) = (&self.setup.node, self.setup.peer.address);
        match (self.connection.claims(), &close.fault) {
            (Some(claims), Some(fault)) => node.telemetry.connect_refused(claims, peer, fault),
            (Some(_), None) | (None, _) => {
                node.telemetry.ended(self.publisher.as_ref().map(|publisher| publisher.client.as_str()), peer, close);
            }
        }
        if let Some(publisher) = &self.publisher {
            self.setup.node.detach(publisher, close.expiry_s, close.will, close.reason);
        }
        if self.reserved {
            self.setup.node.reports.release();
        }
        self.stream.closing(close);
        let last = async {
            if close.reason != CloseReason::ConnectionLost {
                self.stream.write_all_buf(self.connection.output()).await?;
            }
            self.stream.shutdown().await
        };
        // Neither a slow nor a broken peer is worth more: the connection is closed either way.
        drop(tokio::time::timeout(FLUSH, last).await);
        drop(self.stream);
        self.setup.link.set_closed();
        while !self.appends.is_empty() {
            if let Settled::Failed(error) = self.appends.next().await {
                self.setup.node.telemetry.not_stored(&error);
            }
        }
    }
}

/// Writes what is there, and reads if that is wanted; whichever can be done first.
fn poll_transfer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    output: &mut BytesMut,
    unflushed: &mut bool,
    input: &mut BytesMut,
    wants: bool,
    cx: &mut Context<'_>,
) -> Poll<Event> {
    let mut stream = Pin::new(stream);
    if !output.is_empty()
        && let Poll::Ready(written) = stream.as_mut().poll_write(cx, output)
    {
        return Poll::Ready(match written {
            Ok(0) | Err(_) => Event::Lost,
            Ok(bytes) => {
                output.advance(bytes);
                if output.is_empty() {
                    *output = BytesMut::new();
                }
                *unflushed = true;
                Event::Written
            }
        });
    }
    if *unflushed && let Poll::Ready(flushed) = stream.as_mut().poll_flush(cx) {
        *unflushed = false;
        if flushed.is_err() {
            return Poll::Ready(Event::Lost);
        }
    }
    if !wants {
        return Poll::Pending;
    }
    poll_read(stream, input, cx).map(|read| read.map_or(Event::Lost, Event::Read))
}

fn poll_read(stream: Pin<&mut impl AsyncRead>, input: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    READ.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer);
        stream.poll_read(cx, &mut read).map_ok(|()| {
            input.extend_from_slice(read.filled());
            read.filled().len()
        })
    })
}
