//! One connection of a client, step by step.

use std::sync::Arc;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_mqtt::{Publish, ReasonCode, Subscription, SubscriptionList, SubscriptionOptions};
use drover_sim::VirtualClock;
use drover_types::{Clock, Qos};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::switchboard::Switchboard;

/// A server that says nothing for this long has nothing to say.
const QUIET: Duration = Duration::from_secs(20);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(200);

/// A client that is connected.
pub struct Peer {
    pub client: Client,
    stream: DuplexStream,
    input: Vec<u8>,
    /// Of the messages that have come.
    payloads: Vec<String>,
    clock: Arc<VirtualClock>,
}

/// What has come at once.
#[derive(Default)]
pub struct Heard {
    /// Nothing has come.
    pub is_quiet: bool,
    pub acknowledged: Vec<ReasonCode>,
    connected: bool,
    subscribed: bool,
}

impl Peer {
    /// Connects to the node at `host`, as often as that takes.
    pub async fn come(board: &Switchboard, host: &str, clock: &Arc<VirtualClock>, options: &ClientOptions) -> Self {
        loop {
            if let Ok(peer) = Self::connect(board, host, clock.clone(), options.clone()).await {
                return peer;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(
        board: &Switchboard,
        host: &str,
        clock: Arc<VirtualClock>,
        options: ClientOptions,
    ) -> anyhow::Result<Self> {
        let (mut client, mut out) = (Client::new(options), Vec::new());
        client.open(clock.now_ms(), &mut out)?;
        let stream = board.open(host, "mqtt").await?;
        let mut peer = Self { client, stream, input: Vec::new(), payloads: Vec::new(), clock };
        peer.send(&out).await?;
        let heard = peer.hear().await?;
        anyhow::ensure!(heard.connected, "no answer to a CONNECT");
        Ok(peer)
    }

    /// Says what it wants, at QoS 1; returns when that is acknowledged.
    pub async fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        let (mut list, mut out) = (SubscriptionList::default(), Vec::new());
        list.push(Subscription { filter, options: SubscriptionOptions::new(Qos::AtLeastOnce) })?;
        self.client.subscribe(list.as_subscriptions(), self.clock.now_ms(), &mut out)?;
        self.send(&out).await?;
        while !self.hear().await?.subscribed {}
        Ok(())
    }

    /// Publishes a message of QoS 1; returns when it is accepted.
    pub async fn publish(&mut self, topic: &str, payload: &str) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let message = Publish { qos: Qos::AtLeastOnce, ..Publish::new(topic, payload.as_bytes()) };
        self.client.publish(&message, self.clock.now_ms(), &mut out)?;
        self.send(&out).await?;
        while self.client.in_flight() > 0 {
            let refused = self.hear().await?.acknowledged.into_iter().find(|reason| reason.is_error());
            anyhow::ensure!(refused.is_none(), "refused: {refused:?}");
        }
        Ok(())
    }

    /// All payloads that have come when nothing comes any more.
    pub async fn collect(mut self) -> anyhow::Result<Vec<String>> {
        while !self.hear().await?.is_quiet {}
        Ok(self.payloads)
    }

    /// Says goodbye.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let mut out = Vec::new();
        self.client.disconnect(self.clock.now_ms(), &mut out)?;
        self.send(&out).await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// What the next bytes bring; quiet, if none come. The error: the connection has ended.
    pub async fn hear(&mut self) -> anyhow::Result<Heard> {
        let mut heard = Heard::default();
        let Ok(read) = tokio::time::timeout(QUIET, self.stream.read_buf(&mut self.input)).await else {
            return Ok(Heard { is_quiet: true, ..heard });
        };
        anyhow::ensure!(read? > 0, "the connection was closed");
        let payloads = &mut self.payloads;
        let on_event = |event: Event<'_>| match event {
            Event::Connected { .. } => heard.connected = true,
            Event::Subscribed { .. } => heard.subscribed = true,
            Event::Acknowledged { reason, .. } => heard.acknowledged.push(reason),
            Event::Message(message) => payloads.push(String::from_utf8_lossy(message.payload).into_owned()),
            Event::Unsubscribed { .. } | Event::Pong | Event::Disconnected { .. } => {}
        };
        let mut out = Vec::new();
        let taken = self.client.receive(&self.input, self.clock.now_ms(), &mut out, on_event)?;
        self.input.drain(..taken);
        self.send(&out).await?;
        Ok(heard)
    }
}
