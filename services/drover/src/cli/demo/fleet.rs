//! The fleet's connections: one MQTT client a device over TCP, publishing once a second.

use std::time::Duration;

use anyhow::Context;
use drover_host::SystemClock;
use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_mqtt::{Publish, Subscription, SubscriptionList, SubscriptionOptions, Version};
use drover_types::{Clock, Qos};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::thermostat::reading;
use crate::cli::snippet::Access;

/// Between two readings of a device.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the platform may take to accept a connection or to acknowledge what is still open at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once; answers to a thermostat are a few bytes long.
const READ_BYTES: usize = 4 * 1024;

/// Thermostats on their way.
pub struct Fleet {
    pub devices: Vec<Access>,
    pub seconds: u64,
}

/// What a device, or all of them, did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub published: u64,
    pub acknowledged: u64,
}

impl Fleet {
    /// Publishes for the time given; the first device that fails ends it.
    pub fn run(self) -> anyhow::Result<Told> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for (n, access) in self.devices.into_iter().enumerate() {
                running.spawn(device(n, access, self.seconds));
            }
            let mut told = Told::default();
            while let Some(one) = running.join_next().await {
                let one = one.context("a device panicked")??;
                told.published += one.published;
                told.acknowledged += one.acknowledged;
            }
            Ok(told)
        })
    }
}

/// One thermostat publishes until a message comes to it at the topic `back`; `false` if none has within `seconds`.
pub fn comes_back(access: Access, back: &str, seconds: u64) -> anyhow::Result<bool> {
    let at = format!("{} at {}", access.device, access.endpoints.mqtt);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(publish_until(access, back, seconds)).context(at)
}

async fn publish_until(access: Access, back: &str, seconds: u64) -> anyhow::Result<bool> {
    let topic = format!("demo/{}/climate", access.device);
    let mut connection = Connection::open(&access).await?;
    connection.subscribe(back).await?;
    let first = SystemClock.now_ms() / 1_000;
    for step in first..first.saturating_add(seconds) {
        connection.publish(&topic, reading(0, step).as_bytes()).await?;
        let deadline = Instant::now() + PAUSE;
        while connection.came == 0 && connection.receive(deadline).await? {}
        if connection.came > 0 {
            break;
        }
    }
    connection.close().await?;
    Ok(connection.came > 0)
}

async fn device(n: usize, access: Access, seconds: u64) -> anyhow::Result<Told> {
    let name = access.device.clone();
    let endpoint = access.endpoints.mqtt.clone();
    publish(n, access, seconds).await.with_context(|| format!("{name} at {endpoint}"))
}

async fn publish(n: usize, access: Access, seconds: u64) -> anyhow::Result<Told> {
    let topic = format!("demo/{}/climate", access.device);
    let mut connection = Connection::open(&access).await?;
    let mut published = 0;
    let first = SystemClock.now_ms() / 1_000;
    for step in first..first.saturating_add(seconds) {
        let payload = reading(n, step);
        connection.publish(&topic, payload.as_bytes()).await?;
        published += 1;
        connection.listen_until(Instant::now() + PAUSE, |_| false).await?;
    }
    connection.listen_until(Instant::now() + PATIENCE, |client| client.in_flight() == 0).await?;
    connection.close().await?;
    Ok(Told { published, acknowledged: connection.acknowledged })
}

/// One MQTT connection.
struct Connection {
    stream: TcpStream,
    client: Client,
    began: Instant,
    read: Vec<u8>,
    out: Vec<u8>,
    connected: bool,
    acknowledged: u64,
    /// Messages that came by its subscriptions.
    came: u64,
}

impl Connection {
    async fn open(access: &Access) -> anyhow::Result<Self> {
        let options = ClientOptions {
            user_name: Some(access.user_name()),
            password: Some(access.token.clone().into_bytes()),
            ..ClientOptions::new(Version::V5, access.device.clone())
        };
        let stream = TcpStream::connect(&access.endpoints.mqtt).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            client: Client::new(options),
            began: Instant::now(),
            read: Vec::new(),
            out: Vec::new(),
            connected: false,
            acknowledged: 0,
            came: 0,
        };
        let now_ms = connection.now_ms();
        connection.client.open(now_ms, &mut connection.out)?;
        connection.flush().await?;
        let deadline = Instant::now() + PATIENCE;
        while !connection.connected {
            anyhow::ensure!(connection.receive(deadline).await?, "no answer to CONNECT within {PATIENCE:?}");
        }
        Ok(connection)
    }

    async fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        let mut list = SubscriptionList::default();
        list.push(Subscription { filter, options: SubscriptionOptions::new(Qos::AtLeastOnce) })?;
        let now_ms = self.now_ms();
        self.client.subscribe(list.as_subscriptions(), now_ms, &mut self.out)?;
        self.flush().await
    }

    async fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        let message = Publish { qos: Qos::AtLeastOnce, ..Publish::new(topic, payload) };
        let now_ms = self.now_ms();
        self.client.publish(&message, now_ms, &mut self.out)?;
        self.flush().await
    }

    /// Takes what the platform sends until `deadline`, or until it is enough.
    async fn listen_until(&mut self, deadline: Instant, enough: impl Fn(&Client) -> bool) -> anyhow::Result<()> {
        while !enough(&self.client) && self.receive(deadline).await? {}
        Ok(())
    }

    /// One read; `false` if nothing came before `deadline`.
    async fn receive(&mut self, deadline: Instant) -> anyhow::Result<bool> {
        let mut chunk = [0; READ_BYTES];
        let Ok(read) = tokio::time::timeout_at(deadline, self.stream.read(&mut chunk)).await else { return Ok(false) };
        let read = read?;
        anyhow::ensure!(read > 0, "the platform closed the connection");
        self.read.extend_from_slice(&chunk[..read]);
        let now_ms = self.now_ms();
        let (mut acknowledged, mut came, mut connected, mut ended) = (0, 0, self.connected, None);
        let taken = self.client.receive(&self.read, now_ms, &mut self.out, |event| match event {
            Event::Connected { .. } => connected = true,
            Event::Acknowledged { reason, .. } if !reason.is_error() => acknowledged += 1,
            Event::Acknowledged { reason, .. } => ended = Some(format!("a message was refused: {reason}")),
            Event::Disconnected { reason, .. } => ended = Some(format!("the platform said goodbye: {reason}")),
            Event::Message(_) => came += 1,
            Event::Subscribed { reasons, .. } => {
                if let Some(reason) = reasons.iter().find(|reason| reason.is_error()) {
                    ended = Some(format!("a subscription was refused: {reason}"));
                }
            }
            Event::Unsubscribed { .. } | Event::Pong => {}
        })?;
        self.read.drain(..taken);
        self.acknowledged += acknowledged;
        self.came += came;
        self.connected = connected;
        if let Some(reason) = ended {
            anyhow::bail!(reason);
        }
        self.flush().await?;
        Ok(true)
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        self.client.disconnect(now_ms, &mut self.out)?;
        self.flush().await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
