//! An MQTT client for tests: connects over TCP or TLS, reconnects, and delivers again what was not acknowledged.
//!
//! One task owns the socket and the state machine; handles talk to it through bounded channels. Dropping the [`Client`]
//! and its publishers cuts the connection without a DISCONNECT, as a crash would; [`Client::disconnect`] says goodbye.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use drover_mqtt::client::{self, ClientOptions, Event, SendError};
use drover_mqtt::{EncodeError, PacketId, Publish, ReasonCode, Subscription, SubscriptionList, SubscriptionOptions};
use drover_types::Qos;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::target::{Stream, Target};

/// Commands waiting for the connection; what does not fit waits in the caller.
const COMMANDS_MAX: usize = 64;
/// Messages received and not taken by the test; beyond them the socket is not read.
const MESSAGES_MAX: usize = 10_000;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Pause before each attempt to connect again, in milliseconds; short, because tests wait for it.
const RECONNECT_PAUSE_MS: u64 = 50;
/// How long one attempt to connect may take, in seconds.
const CONNECT_SECONDS_MAX: u64 = 10;

/// How to connect.
#[derive(Clone)]
pub struct Options {
    pub target: Target,
    pub mqtt: ClientOptions,
    /// How long to try again after a lost connection; zero: never.
    pub reconnect_for: Duration,
}

impl Options {
    /// Connects to `target`, and for 30 s again whenever the connection is lost.
    pub fn new(target: Target, mqtt: ClientOptions) -> Self {
        Self { target, mqtt, reconnect_for: Duration::from_secs(30) }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("could not connect or lost the connection")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Mqtt(#[from] client::ClientError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("could not subscribe again")]
    Subscribe(#[from] SendError),
    #[error("server closed the connection")]
    Closed,
    #[error("server disconnected: {0}")]
    Disconnected(ReasonCode),
    #[error("server did not answer for {CONNECT_SECONDS_MAX} s")]
    Timeout,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("server refused: {0}")]
    Refused(ReasonCode),
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message may have been delivered or not.
    #[error("the connection is gone for good")]
    Gone,
}

/// A message received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
}

type Answer = oneshot::Sender<Result<(), RequestError>>;

enum Command {
    Publish { topic: String, payload: Vec<u8>, qos: Qos, retain: bool, answer: Answer },
    Subscribe { filter: String, qos: Qos, answer: Answer },
    Disconnect,
}

/// A message on its way; resolves when the server has acknowledged it.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(), RequestError>>);

impl Pending {
    /// Waits for the acknowledgement; at QoS 0 for the message to be written.
    pub async fn acknowledged(self) -> Result<(), RequestError> {
        self.0.await.unwrap_or(Err(RequestError::Gone))
    }
}

/// Publishes through a client's connection. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
}

impl Publisher {
    /// Publishes and waits for the acknowledgement, across reconnections.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: Qos) -> Result<(), RequestError> {
        self.start(topic, payload, qos).await?.acknowledged().await
    }

    /// Publishes without waiting for the acknowledgement; waits while the window and the queue are full. Messages
    /// started one after the other are sent in that order.
    pub async fn start(&self, topic: &str, payload: &[u8], qos: Qos) -> Result<Pending, RequestError> {
        self.request(|answer| {
            let (topic, payload) = (topic.to_owned(), payload.to_vec());
            Command::Publish { topic, payload, qos, retain: false, answer }
        })
        .await
    }

    /// Publishes a message the server shall keep for later subscribers.
    pub async fn publish_retained(&self, topic: &str, payload: &[u8], qos: Qos) -> Result<(), RequestError> {
        let pending = self
            .request(|answer| {
                let (topic, payload) = (topic.to_owned(), payload.to_vec());
                Command::Publish { topic, payload, qos, retain: true, answer }
            })
            .await?;
        pending.acknowledged().await
    }

    async fn request(&self, command: impl FnOnce(Answer) -> Command) -> Result<Pending, RequestError> {
        let (answer, pending) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| RequestError::Gone)?;
        Ok(Pending(pending))
    }
}

/// A connected client.
pub struct Client {
    publisher: Publisher,
    messages: mpsc::Receiver<Message>,
    driver: JoinHandle<ConnectionError>,
}

impl Client {
    /// Connects; the first connection is tried once.
    pub async fn connect(options: Options) -> Result<Self, ConnectionError> {
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (message_queue, messages) = mpsc::channel(MESSAGES_MAX);
        let mut driver = Driver::new(options, command_queue, message_queue);
        let stream = driver.establish().await?;
        let driver = tokio::spawn(driver.run(stream));
        Ok(Self { publisher: Publisher { commands }, messages, driver })
    }

    /// A handle that publishes through this connection.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Publishes and waits for the acknowledgement, across reconnections.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: Qos) -> Result<(), RequestError> {
        self.publisher.publish(topic, payload, qos).await
    }

    /// Subscribes, also on later connections.
    pub async fn subscribe(&self, filter: &str, qos: Qos) -> Result<(), RequestError> {
        let filter = filter.to_owned();
        let pending = self.publisher.request(|answer| Command::Subscribe { filter, qos, answer }).await?;
        pending.acknowledged().await
    }

    /// The next message; `None` once the connection is gone for good.
    pub async fn next_message(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Says goodbye after what was started before has been sent, and waits until the connection is closed.
    pub async fn disconnect(self) {
        let sent = self.publisher.commands.send(Command::Disconnect).await;
        if sent.is_ok() {
            self.closed().await;
        }
    }

    /// Waits until the connection is gone for good, and says why.
    pub async fn closed(self) -> ConnectionError {
        let Self { publisher, messages, driver } = self;
        drop(messages);
        let reason = driver.await.unwrap_or(ConnectionError::Closed);
        drop(publisher);
        reason
    }
}

/// The task that owns the connection.
struct Driver {
    options: Options,
    client: client::Client,
    commands: mpsc::Receiver<Command>,
    messages: mpsc::Sender<Message>,
    started: Instant,
    /// Messages decoded that the queue has no room for yet; at most those of one read.
    undelivered: VecDeque<Message>,
    /// Bytes to be written.
    out: Vec<u8>,
    /// Bytes read, up to the end of the last incomplete packet.
    unread: Vec<u8>,
    answers: HashMap<PacketId, Answer>,
    /// What the test has subscribed to, to be asked for again when the server has forgotten it or never answered.
    filters: Vec<Filter>,
    /// Whether the server forgot the session at the last CONNACK.
    is_new_session: bool,
    disconnected: Option<ReasonCode>,
}

/// A subscription, with the identifier it was last asked for by.
struct Filter {
    filter: String,
    qos: Qos,
    packet_id: Option<PacketId>,
}

/// What ends the driver's wait.
enum Wake {
    Read(usize),
    Command(Option<Command>),
    Deliver(Message),
    Tick,
}

impl Driver {
    fn new(options: Options, commands: mpsc::Receiver<Command>, messages: mpsc::Sender<Message>) -> Self {
        Self {
            client: client::Client::new(options.mqtt.clone()),
            options,
            commands,
            messages,
            started: Instant::now(),
            undelivered: VecDeque::new(),
            out: Vec::new(),
            unread: Vec::new(),
            answers: HashMap::new(),
            filters: Vec::new(),
            is_new_session: true,
            disconnected: None,
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Runs until the connection is gone for good.
    async fn run(mut self, mut stream: Box<dyn Stream>) -> ConnectionError {
        loop {
            let Err(lost) = self.converse(&mut stream).await else { return ConnectionError::Closed };
            self.client.lost();
            match self.reconnect(lost).await {
                Ok(new) => stream = new,
                Err(lost) => return lost,
            }
        }
    }

    /// Tries again until it works or the time is up; hands back the reason of the loss then.
    async fn reconnect(&mut self, lost: ConnectionError) -> Result<Box<dyn Stream>, ConnectionError> {
        let give_up_at = Instant::now() + self.options.reconnect_for;
        while Instant::now() < give_up_at && !self.commands.is_closed() {
            sleep(Duration::from_millis(RECONNECT_PAUSE_MS)).await;
            if let Ok(stream) = self.establish().await {
                return Ok(stream);
            }
        }
        Err(lost)
    }

    /// One connection up to its CONNACK, with redelivery and lost subscriptions waiting in `out`.
    async fn establish(&mut self) -> Result<Box<dyn Stream>, ConnectionError> {
        let deadline = Instant::now() + Duration::from_secs(CONNECT_SECONDS_MAX);
        timeout_at(deadline, self.handshake()).await.map_err(|_| ConnectionError::Timeout)?
    }

    async fn handshake(&mut self) -> Result<Box<dyn Stream>, ConnectionError> {
        let mut stream = self.options.target.connect().await?;
        self.out.clear();
        self.unread.clear();
        self.disconnected = None;
        self.client.open(self.now_ms(), &mut self.out)?;
        stream.write_all(&self.out).await?;
        self.out.clear();
        while self.client.phase() == client::Phase::Connecting {
            if stream.read_buf(&mut self.unread).await? == 0 {
                return Err(ConnectionError::Closed);
            }
            self.digest()?;
        }
        self.subscribe_again()?;
        Ok(stream)
    }

    /// Asks again for what a former connection has not been granted, and for everything in a new session.
    fn subscribe_again(&mut self) -> Result<(), SendError> {
        for mut filter in std::mem::take(&mut self.filters) {
            let waiting = filter.packet_id.and_then(|packet_id| self.answers.remove(&packet_id));
            if self.is_new_session || waiting.is_some() {
                filter.packet_id = Some(self.put_subscribe(&filter.filter, filter.qos)?);
            }
            self.answers.extend(filter.packet_id.zip(waiting));
            self.filters.push(filter);
        }
        Ok(())
    }

    /// Moves bytes, commands and messages until the connection is lost (an error) or no longer wanted.
    async fn converse(&mut self, stream: &mut Box<dyn Stream>) -> Result<(), ConnectionError> {
        loop {
            if !self.out.is_empty() {
                stream.write_all(&self.out).await?;
                self.out.clear();
            }
            if self.client.phase() == client::Phase::Closed {
                stream.shutdown().await?;
                return self.disconnected.map_or(Ok(()), |reason| Err(ConnectionError::Disconnected(reason)));
            }
            match self.wait(stream).await? {
                Wake::Read(0) => return Err(ConnectionError::Closed),
                Wake::Read(_) => self.digest()?,
                Wake::Command(None) => return Ok(()),
                Wake::Command(Some(command)) => self.obey(command),
                Wake::Deliver(message) => {
                    // A test that drops the receiver does not want the messages.
                    self.messages.try_send(message).ok();
                }
                Wake::Tick => {
                    let now_ms = self.now_ms();
                    self.client.tick(now_ms, &mut self.out)?;
                }
            }
        }
    }

    /// Waits for the next thing to do. The socket is not read while messages wait for the test, and commands are not
    /// taken while the window is full.
    async fn wait(&mut self, stream: &mut Box<dyn Stream>) -> std::io::Result<Wake> {
        let tick_at = self.client.deadline_ms().map(|ms| self.started + Duration::from_millis(ms));
        let may_read = self.undelivered.is_empty();
        let may_take = self.client.capacity() > 0;
        self.unread.reserve(READ_BYTES);
        tokio::select! {
            permit = self.messages.reserve(), if !may_read => {
                drop(permit);
                Ok(self.undelivered.pop_front().map_or(Wake::Tick, Wake::Deliver))
            }
            read = stream.read_buf(&mut self.unread), if may_read => read.map(Wake::Read),
            command = self.commands.recv(), if may_take => Ok(Wake::Command(command)),
            () = sleep_until(tick_at.unwrap_or(self.started)), if tick_at.is_some() => Ok(Wake::Tick),
        }
    }

    /// Decodes what has been read.
    fn digest(&mut self) -> Result<(), ConnectionError> {
        let now_ms = self.now_ms();
        let Self { client, unread, out, undelivered, answers, is_new_session, disconnected, .. } = self;
        let mut answer = |packet_id, result| {
            // An answer nobody waits for any more is of no use.
            answers.remove(&packet_id).map(|answer: Answer| answer.send(result).ok());
        };
        let taken = client.receive(unread, now_ms, out, |event| match event {
            Event::Connected { session_present, .. } => *is_new_session = !session_present,
            Event::Message(message) => undelivered.push_back(Message {
                topic: message.topic.to_owned(),
                payload: message.payload.to_vec(),
                qos: message.qos,
                retain: message.retain,
                dup: message.dup,
            }),
            Event::Acknowledged { packet_id, reason } => answer(packet_id, result(reason)),
            Event::Subscribed { packet_id, reasons } => {
                let refusal = reasons.iter().find(|reason| reason.is_error());
                answer(packet_id, refusal.map_or(Ok(()), result));
            }
            Event::Disconnected { reason, .. } => *disconnected = Some(reason),
            Event::Unsubscribed { .. } | Event::Pong => {}
        })?;
        unread.drain(..taken);
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish { topic, payload, qos, retain, answer } => {
                let message = Publish { qos, retain, ..Publish::new(&topic, &payload) };
                let sent = self.client.publish(&message, self.now_ms(), &mut self.out);
                self.expect(sent, answer);
            }
            Command::Subscribe { filter, qos, answer } => {
                let sent = self.put_subscribe(&filter, qos);
                self.filters.push(Filter { filter, qos, packet_id: sent.ok() });
                self.expect(sent.map(Some), answer);
            }
            Command::Disconnect => {
                // Without a connection there is nobody to say goodbye to.
                self.client.disconnect(self.now_ms(), &mut self.out).ok();
            }
        }
    }

    /// Keeps `answer` until the packet is acknowledged, or gives it now.
    fn expect(&mut self, sent: Result<Option<PacketId>, SendError>, answer: Answer) {
        match sent {
            Ok(Some(packet_id)) => {
                self.answers.insert(packet_id, answer);
            }
            Ok(None) => {
                answer.send(Ok(())).ok();
            }
            Err(error) => {
                answer.send(Err(error.into())).ok();
            }
        }
    }

    fn put_subscribe(&mut self, filter: &str, qos: Qos) -> Result<PacketId, SendError> {
        let mut list = SubscriptionList::default();
        list.push(Subscription { filter, options: SubscriptionOptions::new(qos) })?;
        self.client.subscribe(list.as_subscriptions(), self.now_ms(), &mut self.out)
    }
}

fn result(reason: ReasonCode) -> Result<(), RequestError> {
    if reason.is_error() { Err(RequestError::Refused(reason)) } else { Ok(()) }
}
