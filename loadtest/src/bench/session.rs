//! One client of the generator with its connection.
//!
//! What is read and what is written are apart, so that a wait for something to read can be given up at any time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientError, ClientOptions, Event, Phase, SendError};
use drover_mqtt::{EncodeError, PacketId, Publish, ReasonCode, Subscription, SubscriptionList, SubscriptionOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Plan, Tally, numbered};
use crate::target::Stream;

/// Bytes of a connection's first read buffer: an acknowledgement has four.
const READ_BYTES: usize = 256;
/// At QoS 0 a ping follows this many bytes, and one ping may be unanswered before the next: no client has more than twice
/// this unread. Sockets alone would hold megabytes of each client, for which the server would take minutes.
const PING_AFTER_BYTES: usize = 32 * 1024;
const PINGS_MAX: u64 = 1;
/// What a subscriber subscribes to.
const EVERYTHING: &str = "#";
/// When all is published and nothing has come for so long, nothing more will.
const QUIET: Duration = Duration::from_secs(3);

/// Why a client stopped before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("connect or i/o: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Mqtt(#[from] ClientError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("server refused the subscription to {EVERYTHING}")]
    NotSubscribed,
    #[error("server closed the connection")]
    Closed,
    #[error("no answer for {0:?}")]
    Silent(Duration),
}

impl Stopped {
    /// Whether the server has no time for this client, and may have later.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Mqtt(ClientError::Refused(ReasonCode::ServerUnavailable | ReasonCode::ServerBusy)))
    }
}

/// One client with its connection.
pub(super) struct Session {
    client: Client,
    stream: Box<dyn Stream>,
    pub tally: Rc<RefCell<Tally>>,
    out: Vec<u8>,
    unread: Vec<u8>,
    /// Since when what was published and not acknowledged counts, oldest first: its publishing, or at a pace when it was due. At
    /// most the window.
    published: VecDeque<(PacketId, Instant)>,
    pongs: u64,
    /// Messages received.
    received: u64,
    /// What the server has made of the subscription, once it has answered.
    subscribed: Option<bool>,
}

impl Session {
    /// Connects client number `index`; a subscriber has subscribed then.
    pub async fn open(plan: &Plan, index: usize, tally: &Rc<RefCell<Tally>>) -> Result<Self, Stopped> {
        let mut options = ClientOptions::new(plan.version, numbered(&plan.client_id, index));
        options.window = plan.window;
        options.user_name = plan.user_name.as_ref().map(|name| numbered(name, index));
        options.password = plan.password.as_ref().map(|password| password.clone().into_bytes());
        let source = plan.sources.get(index % plan.sources.len().max(1)).copied();
        let stream = plan.target.connect_from(source).await?;
        let mut session = Self {
            client: Client::new(options),
            stream,
            tally: tally.clone(),
            out: Vec::new(),
            unread: Vec::new(),
            published: VecDeque::new(),
            pongs: 0,
            received: 0,
            subscribed: None,
        };
        session.client.open(0, &mut session.out)?;
        while session.client.phase() == Phase::Connecting {
            session.exchange().await?;
        }
        if index >= plan.clients + plan.idle {
            session.subscribe(SubscriptionOptions::new(plan.qos)).await?;
        }
        Ok(session)
    }

    async fn subscribe(&mut self, options: SubscriptionOptions) -> Result<(), Stopped> {
        let mut list = SubscriptionList::default();
        list.push(Subscription { filter: EVERYTHING, options })?;
        self.client.subscribe(list.as_subscriptions(), 0, &mut self.out)?;
        loop {
            self.exchange().await?;
            match self.subscribed {
                Some(true) => return Ok(()),
                Some(false) => return Err(Stopped::NotSubscribed),
                None => {}
            }
        }
    }

    /// Writes what is to be sent, and takes what has come; waits for at least one byte.
    async fn exchange(&mut self) -> Result<(), Stopped> {
        self.flush().await?;
        self.take().await
    }

    /// Writes what is to be sent.
    async fn flush(&mut self) -> Result<(), Stopped> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Takes what has come; waits for at least one byte, and loses none if it is given up.
    async fn take(&mut self) -> Result<(), Stopped> {
        self.unread.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.unread).await? == 0 {
            return Err(Stopped::Closed);
        }
        self.digest()
    }

    fn digest(&mut self) -> Result<(), Stopped> {
        let Self { client, tally, out, unread, published, pongs, received, subscribed, .. } = self;
        let (mut tally, now) = (tally.borrow_mut(), Instant::now());
        let taken = client.receive(unread, 0, out, |event| match event {
            Event::Acknowledged { packet_id, reason } => {
                let at = published.iter().position(|(id, _)| *id == packet_id);
                if let Some((_, since)) = at.and_then(|at| published.remove(at)) {
                    tally.latency_us.saturating_record((now - since).as_micros() as u64);
                }
                if reason.is_error() { tally.refused += 1 } else { tally.acknowledged += 1 }
            }
            Event::Pong => *pongs += 1,
            Event::Message(_) => {
                *received += 1;
                tally.delivered += 1;
                tally.last_delivery = Some(now);
            }
            Event::Subscribed { reasons, .. } => *subscribed = Some(reasons.iter().all(|reason| !reason.is_error())),
            Event::Connected { .. } | Event::Unsubscribed { .. } | Event::Disconnected { .. } => {}
        })?;
        unread.drain(..taken);
        if self.client.phase() == Phase::Closed { Err(Stopped::Closed) } else { Ok(()) }
    }

    /// Publishes whenever half of the window is free, so that one write carries several messages; after `stop_at` waits
    /// for what is in flight.
    pub async fn publish_acknowledged(mut self, message: &Publish<'_>, stop_at: Instant) -> Result<(), Stopped> {
        let worth_a_write = usize::from(self.client.window()).div_ceil(2);
        loop {
            let (now, room) = (Instant::now(), self.client.capacity());
            if room >= worth_a_write && now < stop_at {
                for _ in 0..room {
                    let packet_id = self.client.publish(message, 0, &mut self.out)?;
                    self.published.extend(packet_id.map(|packet_id| (packet_id, now)));
                }
                self.tally.borrow_mut().sent += room as u64;
            }
            if self.client.in_flight() == 0 {
                return self.close().await;
            }
            self.exchange().await?;
        }
    }

    /// Publishes one message every `pace` from `first` on, and counts those that the window has no room for then; after
    /// `stop_at` waits for what is in flight. Latency begins when a message is due, so that it has the waits of a generator or
    /// a server that is late.
    pub async fn publish_at_pace(
        mut self,
        message: &Publish<'_>,
        first: Instant,
        pace: Duration,
        stop_at: Instant,
    ) -> Result<(), Stopped> {
        let mut due = first;
        loop {
            let now = Instant::now();
            if now >= stop_at && self.client.in_flight() == 0 {
                return self.close().await;
            }
            if now < stop_at && now >= due {
                let was_due = due;
                due += pace;
                if self.client.capacity() > 0 {
                    let packet_id = self.client.publish(message, 0, &mut self.out)?;
                    self.published.extend(packet_id.map(|packet_id| (packet_id, was_due)));
                    self.tally.borrow_mut().sent += 1;
                } else {
                    self.tally.borrow_mut().skipped += 1;
                }
                continue;
            }
            self.flush().await?;
            let next = if now < stop_at { due.min(stop_at) } else { now + QUIET };
            if let Ok(taken) = timeout_at(next, self.take()).await {
                taken?;
            }
        }
    }

    /// Writes `window` messages at a time, as long as pings behind earlier ones are answered; they count when the last ping
    /// has been.
    pub async fn publish_at_most_once(
        mut self,
        message: &Publish<'_>,
        window: NonZeroU16,
        stop_at: Instant,
    ) -> Result<(), Stopped> {
        let (mut sent, mut pings, mut behind) = (0, 0, 0);
        while Instant::now() < stop_at {
            for _ in 0..window.get() {
                self.client.publish(message, 0, &mut self.out)?;
            }
            sent += u64::from(window.get());
            self.tally.borrow_mut().sent += u64::from(window.get());
            behind += self.out.len();
            if behind >= PING_AFTER_BYTES {
                self.client.ping(0, &mut self.out)?;
                (pings, behind) = (pings + 1, 0);
            }
            self.flush().await?;
            while self.pongs + PINGS_MAX < pings {
                self.exchange().await?;
            }
        }
        self.client.ping(0, &mut self.out)?;
        while self.pongs <= pings {
            self.exchange().await?;
        }
        self.tally.borrow_mut().acknowledged += sent;
        self.close().await
    }

    /// Stays connected until `stop_at` without sending anything.
    pub async fn stay(mut self, stop_at: Instant) -> Result<(), Stopped> {
        loop {
            match timeout_at(stop_at, self.exchange()).await {
                Ok(exchanged) => exchanged?,
                Err(_) => return self.close().await,
            }
        }
    }

    /// Receives until all is published, and all that was acknowledged is here or nothing has come for a while.
    pub async fn receive(mut self) -> Result<(), Stopped> {
        loop {
            let (publishing, acknowledged) = {
                let tally = self.tally.borrow();
                (tally.publishing > 0, tally.acknowledged)
            };
            if !publishing && self.received >= acknowledged {
                return self.close().await;
            }
            self.flush().await?;
            match timeout(QUIET, self.take()).await {
                Ok(taken) => taken?,
                Err(_) if !publishing => return self.close().await,
                Err(_) => {}
            }
        }
    }

    async fn close(mut self) -> Result<(), Stopped> {
        self.client.disconnect(0, &mut self.out)?;
        self.stream.write_all(&self.out).await?;
        Ok(())
    }
}
