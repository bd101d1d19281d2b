//! One ingress on free ports over an embedded log, and clients that speak packets to it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig, TopicPartition};
use drover_host::{
    Health, Metrics, Network, Ports, Service, ServiceConfig, Shutdown, Sockets, SystemClock, SystemRandom,
};
use drover_ingress::Ingress;
use drover_ingress::config::IngressConfig;
use drover_mqtt::{
    Connect, Decoder, Packet, PacketId, Property, PropertyList, Publish, ReasonCode, Side, Version, encode,
};
use drover_proto::ingress::v1::PresenceReport;
use drover_proto::registry::v1::Change;
use drover_proto::registry::v1::object::Object;
use drover_proto::types::v1::{Meta, Policy};
use drover_sim::{Broken, BrokenBus, BusFaults, SimBus, disk};
use drover_types::{Qos, TELEMETRY_TOPIC};
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bus::GatedBus;
use crate::registry::{FakeRegistry, POLICY};

pub struct Stage {
    pub mqtt: SocketAddr,
    pub mqtts: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub coap: Option<SocketAddr>,
    pub coaps: Option<SocketAddr>,
    pub bus: Arc<GatedBus>,
    pub registry: FakeRegistry,
    pub network: Network,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    pub running: JoinHandle<anyhow::Result<()>>,
    /// Whether HTTP has a socket of its own.
    http_socket: bool,
    config: IngressConfig,
    broken: Broken,
    data: TempDir,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut IngressConfig)) -> Self {
        Self::with_sockets(change, Broken::default(), true).await
    }

    /// An ingress that sees a broken log.
    pub async fn broken(broken: Broken) -> Self {
        Self::with_sockets(|_| (), broken, true).await
    }

    /// An ingress whose HTTP addresses belong to another listener of the process.
    pub async fn without_http_socket() -> Self {
        Self::with_sockets(|_| (), Broken::default(), false).await
    }

    async fn with_sockets(change: impl FnOnce(&mut IngressConfig), broken: Broken, http: bool) -> Self {
        let free = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let mut config = IngressConfig { listen: Vec::new(), ..IngressConfig::default() };
        config.mqtt.listen = free.clone();
        config.http.listen = free.clone();
        config.https.listen = free.clone();
        config.coap.listen = free.clone();
        config.coaps.listen = free.clone();
        config.mqtts.listen = free;
        change(&mut config);
        config.check().expect("a valid configuration");
        let data = tempfile::tempdir().expect("a directory");
        let (bus, _) = EmbeddedBus::open(&data.path().join("bus"), EmbeddedOptions::default()).expect("a log");
        Self::over(Arc::new(bus), config, broken, http, data).await
    }

    /// An ingress over a simulated log, for virtual time: only [`Stage::pipe`] reaches it.
    pub async fn simulated() -> Self {
        let bus = SimBus::new(1, BusFaults::default());
        let mut config = IngressConfig { listen: Vec::new(), ..IngressConfig::default() };
        config.mqtt.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.http.listen = Vec::new();
        (config.coap.listen, config.coaps.listen) = (Vec::new(), Vec::new());
        let data = tempfile::tempdir().expect("a directory");
        Self::over(Arc::new(bus), config, Broken::default(), false, data).await
    }

    /// An ingress over a log whose telemetry has several partitions.
    pub async fn with_partitions(partitions: u32) -> Self {
        let free = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let mut config = IngressConfig { listen: Vec::new(), ..IngressConfig::default() };
        config.mqtt.listen = free;
        (config.http.listen, config.coap.listen, config.coaps.listen) = (Vec::new(), Vec::new(), Vec::new());
        let data = tempfile::tempdir().expect("a directory");
        let (bus, _) = EmbeddedBus::open(&data.path().join("bus"), EmbeddedOptions::default()).expect("a log");
        make_topic(&bus, TELEMETRY_TOPIC, partitions).await;
        Self::over(Arc::new(bus), config, Broken::default(), false, data).await
    }

    async fn over(bus: Arc<dyn Bus>, config: IngressConfig, broken: Broken, http_socket: bool, data: TempDir) -> Self {
        make_topics(&*bus).await;
        let bus = Arc::new(GatedBus::new(bus));
        let registry = FakeRegistry { anonymous: true, ..FakeRegistry::default() };
        registry.allow(&["#"], &["#"]);
        let mut stage = Self {
            mqtt: SocketAddr::from(([127, 0, 0, 1], 0)),
            mqtts: None,
            http: None,
            https: None,
            coap: None,
            coaps: None,
            http_socket,
            bus,
            registry,
            network: Network::default(),
            metrics: Metrics::default(),
            shutdown: Shutdown::new(),
            running: tokio::spawn(async { Ok(()) }),
            config,
            broken,
            data,
        };
        stage.registry.serve(&stage.network);
        stage.start();
        stage
    }

    /// Starts the ingress, on other ports than before.
    fn start(&mut self) {
        let mut specs = self.config.listeners();
        specs.retain(|spec| self.http_socket || spec.name != "ingress.http");
        let sockets = Sockets::bind(&specs).expect("free ports");
        let address = |name| sockets.addresses(name).first().copied();
        (self.mqtt, self.mqtts) = (address("mqtt").expect("bound"), address("mqtts"));
        (self.http, self.https) = (address("ingress.http"), address("ingress.https"));
        (self.coap, self.coaps) = (address("coap"), address("coaps"));
        let ports = Ports {
            bus: Arc::new(BrokenBus::new(self.bus.clone(), self.broken)),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            network: self.network.clone(),
            sockets,
            data: self.data.path().join("ingress"),
            metrics: self.metrics.clone(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: Health::default().service(Ingress::NAME),
        };
        let (config, shutdown) = (self.config.clone(), self.shutdown.clone());
        self.running = tokio::spawn(Ingress::run(config, ports, shutdown));
    }

    /// Stops the ingress.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.expect("no panic").expect("drained");
    }

    /// Stops the ingress and starts it again on the same log, its metrics at zero.
    pub async fn restart(&mut self) {
        self.stop().await;
        (self.shutdown, self.metrics) = (Shutdown::new(), Metrics::default());
        self.start();
    }

    /// Starts another ingress with the log, and what of the disk was written up to now, of one that stops here and now.
    pub async fn killed(mut self) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        disk::copy(&self.data.path().join("ingress"), &data.path().join("ingress")).expect("copied");
        let before = std::mem::replace(&mut self.data, data);
        let running = std::mem::replace(&mut self.running, tokio::spawn(async { Ok(()) }));
        let shutdown = std::mem::replace(&mut self.shutdown, Shutdown::new());
        // It is not heard of any more: its network is another's.
        self.network = Network::default();
        self.registry.serve(&self.network);
        self.metrics = Metrics::default();
        self.start();
        shutdown.cancel();
        running.await.expect("no panic").expect("drained");
        drop(before);
        self
    }

    /// Appends a record with this value.
    pub async fn append(&self, topic: &str, value: impl Into<bytes::Bytes>) {
        let record = Record { value: Some(value.into()), ..Record::default() };
        let receipt = self.bus.append(vec![Outgoing::keyed(topic, record)]).await.expect("taken");
        receipt.await.expect("durable");
    }

    /// Tells of a change in the registry.
    pub async fn change(&self, before: Option<Object>, after: Option<Object>) {
        let wire = |object| drover_proto::registry::v1::Object { object: Some(object) };
        let change = Change { before: before.map(wire), after: after.map(wire), time_ms: 7, ..Change::default() };
        self.append("drover.registry.changes", change.encode_to_vec()).await;
    }

    /// Tells that the policy of every device is another now.
    pub async fn policy_changed(&self) {
        let meta = Some(Meta { tenant: "default".into(), name: POLICY.into(), ..Meta::default() });
        let policy = Object::Policy(Policy { meta, ..Policy::default() });
        self.change(Some(policy.clone()), Some(policy)).await;
    }

    /// A connection that has said nothing yet.
    pub async fn open(&self, version: Version) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.mqtt).await.expect("listening"), version)
    }

    /// A connected client without credentials and without a socket.
    pub async fn pipe(&self, version: Version, id: &str) -> Client<DuplexStream> {
        let mut client = Client::new(self.network.open("mqtt").await.expect("listening"), version);
        client.send(&Packet::Connect(Connect::new(version, id))).await;
        client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
        client
    }

    /// A connected client without credentials.
    pub async fn connect(&self, version: Version, id: &str) -> Client<TcpStream> {
        let mut client = self.open(version).await;
        client.send(&Packet::Connect(Connect::new(version, id))).await;
        client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
        client
    }

    /// Payloads in the log.
    pub async fn payloads(&self) -> Vec<String> {
        let at = TopicPartition::new(TELEMETRY_TOPIC, 0);
        let stored = self.bus.read(&at, 0, 64 << 20, std::time::Duration::ZERO).await.expect("readable");
        stored.into_iter().map(|s| String::from_utf8_lossy(&s.record.value.expect("payload")).into_owned()).collect()
    }

    /// Waits until `count` reports of presence beside the node's own are there.
    pub async fn reports(&self, count: usize) -> Vec<PresenceReport> {
        let at = TopicPartition::new("drover.presence", 0);
        loop {
            let stored = self.bus.read(&at, 0, 64 << 20, std::time::Duration::from_millis(50)).await.expect("readable");
            if stored.len() > count {
                let read =
                    |s: drover_bus::Stored| PresenceReport::decode(s.record.value.expect("report")).expect("valid");
                return stored.into_iter().map(read).collect();
            }
            tokio::task::yield_now().await;
        }
    }

    /// A client with a session that outlives it; whether the session was there.
    pub async fn resume(&self, id: &str) -> (Client<TcpStream>, bool) {
        let mut client = self.open(Version::V5).await;
        let mut properties = PropertyList::default();
        properties.push(Property::SessionExpiry(60)).expect("short");
        let properties = properties.as_properties();
        let connect = Connect { clean_start: false, properties, ..Connect::new(Version::V5, id) };
        client.send(&Packet::Connect(connect)).await;
        let read = |packet: Packet<'_>| match packet {
            Packet::ConnAck(ack) if !ack.reason.is_error() => ack.session_present,
            other => panic!("unexpected {other:?}"),
        };
        let present = client.read(read).await.expect("a packet");
        (client, present)
    }

    /// Waits until a metric's line is there.
    pub async fn metric(&self, line: &str) {
        while !self.metrics.encode().lines().any(|l| l == line) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn make_topics(bus: &dyn Bus) {
    let made = bus.topics().await.expect("known");
    for topic in [TELEMETRY_TOPIC, "drover.presence", "drover.registry.changes", "drover.events"] {
        if made.iter().all(|made| &*made.topic != topic) {
            make_topic(bus, topic, 1).await;
        }
    }
}

async fn make_topic(bus: &dyn Bus, topic: &str, partitions: u32) {
    let (topic, compact) = (topic.into(), false);
    let config = TopicConfig { topic, partitions, compact, retention_ms: None, retention_bytes: None };
    bus.create_topic(config).await.expect("created");
}

/// The other end of a connection.
pub struct Client<S> {
    pub stream: S,
    version: Version,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S, version: Version) -> Self {
        Self { stream, version, input: BytesMut::new() }
    }

    pub fn encode(&self, packets: &[Packet<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| encode(packet, self.version, &mut bytes).expect("valid"));
        bytes
    }

    pub async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = self.encode(&[*packet]);
        self.stream.write_all(&bytes).await.expect("connected");
    }

    /// Publishes at QoS 1.
    pub async fn publish(&mut self, id: u16, topic: &str, payload: &str) {
        self.send(&Packet::Publish(qos1(id, topic, payload))).await;
    }

    /// Publishes what it has subscribed to, and reads its message and the acknowledgement, in either order.
    pub async fn publish_and_hear(&mut self, id: u16, topic: &str, payload: &str) {
        self.publish(id, topic, payload).await;
        for _ in 0..2 {
            let read = |packet: Packet<'_>| match packet {
                Packet::Publish(publish) => publish.payload.len(),
                Packet::PubAck(ack) => usize::from(ack.packet_id.get()),
                other => panic!("unexpected {other:?}"),
            };
            let seen = self.read(read).await.expect("a packet");
            assert!(seen == payload.len() || seen == usize::from(id), "{seen}");
        }
    }

    /// Reads one packet and hands it to `see`; `None` at the end of the stream.
    pub async fn read<T>(&mut self, see: impl FnOnce(Packet<'_>) -> T) -> Option<T> {
        let decoder = Decoder::new(Side::Server, self.version);
        let len = loop {
            if let Some(len) = decoder.packet_len(&self.input).expect("valid").filter(|len| *len <= self.input.len()) {
                break len;
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        };
        let bytes = self.input.split_to(len);
        decoder.decode(&bytes).expect("valid").map(|(packet, _)| see(packet))
    }

    /// Reads one packet, which has to be as `wanted` says.
    pub async fn expect(&mut self, wanted: impl FnOnce(&Packet<'_>) -> bool) {
        let seen = self.read(|packet| (wanted(&packet), format!("{packet:?}"))).await.expect("a packet");
        assert!(seen.0, "unexpected {}", seen.1);
    }

    /// Reads PUBACKs with these ids, in this order.
    pub async fn expect_acks(&mut self, ids: impl IntoIterator<Item = u16>) {
        for id in ids {
            self.expect(|p| matches!(p, Packet::PubAck(ack) if ack.packet_id.get() == id && !ack.reason.is_error()))
                .await;
        }
    }

    /// Subscribes to one filter at `qos`, which is granted.
    pub async fn subscribe(&mut self, filter: &str, qos: Qos) {
        assert!(!self.try_subscribe(filter, qos).await.is_error(), "{filter} was refused");
    }

    /// Subscribes to one filter at `qos`; the reason of the answer.
    pub async fn try_subscribe(&mut self, filter: &str, qos: Qos) -> ReasonCode {
        let mut list = drover_mqtt::SubscriptionList::default();
        let options = drover_mqtt::SubscriptionOptions::new(qos);
        list.push(drover_mqtt::Subscription { filter, options }).expect("short");
        let properties = drover_mqtt::Properties::default();
        let subscriptions = list.as_subscriptions();
        let subscribe = drover_mqtt::Subscribe { packet_id: PacketId::MIN, properties, subscriptions };
        self.send(&Packet::Subscribe(subscribe)).await;
        let read = |packet: Packet<'_>| match packet {
            Packet::SubAck(ack) => ack.reasons.iter().next().expect("a reason"),
            other => panic!("unexpected {other:?}"),
        };
        self.read(read).await.expect("a packet")
    }

    /// Publishes until the answer is `wanted`.
    pub async fn publish_until(&mut self, topic: &str, wanted: ReasonCode) {
        for id in 1.. {
            self.publish(id, topic, "x").await;
            let read = |packet: Packet<'_>| match packet {
                Packet::PubAck(ack) => ack.reason,
                other => panic!("unexpected {other:?}"),
            };
            if self.read(read).await.expect("a packet") == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits for the server's goodbye; its reason.
    pub async fn goodbye(&mut self) -> ReasonCode {
        let read = |packet: Packet<'_>| match packet {
            Packet::Disconnect(disconnect) => disconnect.reason,
            other => panic!("unexpected {other:?}"),
        };
        self.read(read).await.expect("a packet")
    }

    /// The payload of the next packet, which is a PUBLISH; acknowledged if it asks for it.
    pub async fn message(&mut self) -> String {
        let read = |packet: Packet<'_>| match packet {
            Packet::Publish(publish) => (String::from_utf8_lossy(publish.payload).into_owned(), publish.packet_id),
            other => panic!("unexpected {other:?}"),
        };
        let (payload, packet_id) = self.read(read).await.expect("a message");
        if let Some(packet_id) = packet_id {
            self.send(&Packet::PubAck(drover_mqtt::Ack::new(packet_id, drover_mqtt::ReasonCode::Success))).await;
        }
        payload
    }

    /// Reads to the end; whether a PUBACK was among it.
    pub async fn rest_has_ack(&mut self) -> bool {
        let mut acked = false;
        while let Some(ack) = self.read(|packet| matches!(packet, Packet::PubAck(_))).await {
            acked |= ack;
        }
        acked
    }
}

/// A message at QoS 1.
pub fn qos1<'a>(id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { qos: Qos::AtLeastOnce, packet_id: PacketId::new(id), ..Publish::new(topic, payload.as_bytes()) }
}
