//! One connection over a transport of the test's own: what it keeps, and what its peer can make it keep.

use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{Offset, TopicConfig, TopicPartition};
use drover_host::proxy::Balancers;
use drover_host::{Metrics, SystemClock, SystemRandom};
use drover_mqtt::{
    Connect, Packet, PacketId, Properties, Property, PropertyList, Publish, Subscribe, Subscription, SubscriptionList,
    SubscriptionOptions, Version, encode,
};
use drover_sim::{BusFaults, SimBus};
use drover_types::object::{Effect as Permission, PolicyAction, Statement};
use drover_types::{ClientId, DeviceId, Qos, TELEMETRY_TOPIC, TenantId};
use futures::FutureExt;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::*;
use crate::adapters::embedded;
use crate::adapters::owners::Embedded;
use crate::config::IngressConfig;
use crate::domain::authorize::Policy;
use crate::domain::connection::{Environment, Granted, Peer};
use crate::domain::identity::{AuthenticateError, Certificate, Identity, Proof};
use crate::domain::journal::Journal;
use crate::domain::node::{Node, NodePorts};
use crate::domain::peers::Peers;
use crate::domain::quotas::Quotas;
use crate::domain::reverify::Affected;
use crate::domain::router::Options;
use crate::domain::sessions::{Attach, Sessions};
use crate::ports::Authenticator;
use crate::server::loops::PIPE_PEER;
use crate::server::loops::appends::{Appends, Mailboxes};
use crate::server::loops::hands::{Doors, Shared};
use crate::server::loops::mailbox::{Mail, Mailbox};
use crate::server::loops::transport::Socket;
use crate::telemetry::Telemetry;

/// A peer that takes no byte for this long is gone.
const WRITE: Duration = Duration::from_secs(20);
/// Bytes that may wait to be written: the bound of the state machine, and the packet that goes beyond it.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 + 2;

/// A transport in memory.
struct Wire {
    /// From the peer, not read yet.
    sent: VecDeque<u8>,
    received: Vec<u8>,
    /// Bytes that the peer takes yet.
    takes: usize,
}

impl Transport for Wire {
    fn is_emptied_by(&self, _bytes: usize, _room: usize) -> bool {
        self.sent.is_empty()
    }

    fn secure(&mut self) -> io::Result<Option<Box<Certificate>>> {
        Ok(None)
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let bytes = room.len().min(self.sent.len());
        self.sent.drain(..bytes).zip(room).for_each(|(sent, room)| *room = sent);
        if bytes > 0 { Ok(bytes) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.takes);
        self.takes -= taken;
        self.received.extend_from_slice(&bytes[..taken]);
        if taken > 0 { Ok(taken) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn closing(&mut self, _close: &Close) -> bool {
        false
    }

    fn close(&mut self, _room: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Takes everybody for the same device.
struct Anyone;

#[async_trait]
impl Authenticator for Anyone {
    async fn authenticate(&self, _proof: Proof, _generation: u64) -> Result<Arc<Identity>, AuthenticateError> {
        let statement = Statement {
            effect: Permission::Allow,
            actions: vec![PolicyAction::Connect, PolicyAction::Publish, PolicyAction::Subscribe],
            resources: vec!["d".to_owned(), "#".to_owned()],
        };
        Ok(Arc::new(Identity {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("d").expect("valid"),
            credential: Box::default(),
            policy: Policy::compile(Box::default(), &[statement]),
            expires_ms: 0,
            generation: 0,
        }))
    }

    fn forget(&self, _affected: &Affected) {}
}

fn node(data: &TempDir) -> Arc<Node> {
    let (config, random, started) = (IngressConfig::default(), Arc::new(SystemRandom), Instant::now());
    let opened = embedded::open(&data.path().join("store"), config.limits.retained_bounds());
    let ((retained, sessions), clock) = (opened.expect("an empty store"), Arc::new(SystemClock));
    let ports = NodePorts {
        bus: Arc::new(SimBus::new(1, BusFaults::default())),
        clock: clock.clone(),
        random: random.clone(),
        authenticator: Arc::new(Anyone),
        owners: Arc::new(Embedded::new(1)),
        ownership_patience: config.timeouts.ownership.as_std(),
        peers: Peers::new("n", Vec::new(), started),
        retained: Arc::new(retained),
        journal: Arc::new(Journal::new(Arc::new(sessions), clock)),
        started,
    };
    let (limits, quotas) = (config.connection_limits(), Quotas::default());
    let environment = Environment { limits, random, methods: Vec::new(), quotas };
    Arc::new(Node::new(ports, environment, Sessions::new(1), Telemetry::new(&Metrics::default())))
}

/// A connected client at the other end of a wire, and what its loop does for it.
struct Stage {
    slot: Slot<Wire>,
    hands: Hands,
    _data: TempDir,
}

impl Stage {
    /// A client that has its CONNACK.
    async fn new() -> Self {
        let mut stage = Self::open();
        stage.send(&encoded(&Packet::Connect(Connect::new(Version::V5, "d"))));
        assert_eq!(stage.hears().await[..1], [0x20], "a CONNACK");
        stage
    }

    /// A client that asks for a session which outlives it, while the store does not answer.
    async fn untold() -> Self {
        let mut stage = Self::open();
        let mut properties = PropertyList::default();
        properties.push(Property::SessionExpiry(60)).expect("short");
        let properties = properties.as_properties();
        stage.send(&encoded(&Packet::Connect(Connect { properties, ..Connect::new(Version::V5, "d") })));
        while !matches!(stage.slot.stage, super::Stage::Attached(..)) {
            stage.idle().await;
        }
        stage
    }

    /// A client that has said nothing. Of its node the store does not answer before [`Stage::keep`].
    fn open() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let node = node(&data);
        let write_ms = u64::try_from(WRITE.as_millis()).expect("seconds");
        let (doors, balancers, runtime) = (Doors::new(1), Balancers::default(), Handle::current());
        let shared = Arc::new(Shared { node: node.clone(), write_ms, doors, balancers, runtime });
        let mailbox = Mailbox::new(0, || ());
        let boxes: Mailboxes = [mailbox.clone()].into();
        let appends = Appends::new(node.clone(), Arc::default(), boxes, 0);
        let hands = Hands::new(shared, mailbox.clone(), appends);
        let peer = Peer { address: PIPE_PEER, certificate: None, anonymous: true, over_limit: false };
        let connection = Connection::new(node.environment.clone(), peer, hands.now);
        let place = Place { slot: 0, life: 0 };
        let wire = Wire { sent: VecDeque::new(), received: Vec::new(), takes: usize::MAX };
        let slot = Slot::new(wire, connection, Arc::new(Link::new(mailbox, place)), place);
        Self { slot, hands, _data: data }
    }

    fn node(&self) -> Arc<Node> {
        self.hands.shared.node.clone()
    }

    /// The store answers from now on.
    fn keep(&self) {
        let node = self.node();
        tokio::spawn(async move { node.journal.run(&node.telemetry).await });
    }

    /// A turn, and what others do for it.
    async fn idle(&mut self) {
        assert_eq!(self.turn(), Outcome::Idle);
        tokio::task::yield_now().await;
    }

    /// What the client is sent next.
    async fn hears(&mut self) -> Vec<u8> {
        while self.slot.transport.received.is_empty() {
            self.idle().await;
        }
        std::mem::take(&mut self.slot.transport.received)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.slot.transport.sent.extend(bytes);
    }

    /// What a loop does with its one connection.
    fn turn(&mut self) -> Outcome {
        (self.hands.now, self.hands.instant) = (self.hands.shared.node.now(), Instant::now());
        for mail in self.hands.mailbox.take(Vec::new()) {
            match mail {
                Mail::Rung(_) => self.slot.signalled(&self.hands),
                Mail::Answered(_, answer) => {
                    assert!(self.slot.answered(answer, &mut self.hands).is_none(), "it has asked")
                }
                Mail::Settled(_) => self.slot.settled(&self.hands),
                Mail::GoOn(step) => self.hands.appends.go_on(step, &mut self.hands.stored),
                Mail::Stored(_) | Mail::Room(_) | Mail::Shut | Mail::Close(_) | Mail::Drain => {}
            }
        }
        for (_, count) in std::mem::take(&mut self.hands.stored) {
            self.slot.stored(count, &mut self.hands);
        }
        while let Some((step, _)) = self.hands.wheel.take_due(self.hands.now.monotonic_ms) {
            self.slot.due(step, &self.hands);
        }
        self.slot.stir(Readiness::ALL);
        let outcome = loop {
            match self.slot.work(&mut self.hands) {
                Outcome::Again => {}
                outcome @ (Outcome::Idle | Outcome::Gone) => break outcome,
            }
        };
        self.hands.hand_over();
        outcome
    }

    fn owns_nothing(&mut self) -> bool {
        let Slot { connection, input, waiting, settling, .. } = &mut self.slot;
        input.is_none() && waiting.is_none() && settling.is_none() && connection.is_idle()
    }
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, Version::V5, &mut bytes).expect("valid");
    bytes
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut list = SubscriptionList::default();
    list.push(Subscription { filter, options: SubscriptionOptions::new(Qos::AtMostOnce) }).expect("short");
    let (properties, subscriptions) = (Properties::default(), list.as_subscriptions());
    encoded(&Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties, subscriptions }))
}

#[test]
fn what_a_connection_holds_is_small() {
    for (what, bytes, limit) in [
        ("a socket", size_of::<Socket>(), 24),
        ("a connection of a loop", size_of::<Slot<Socket>>(), 200),
        ("its link", size_of::<Link>(), 64),
    ] {
        println!("{what}: {bytes} B");
        assert!(bytes <= limit, "{what} has {bytes} bytes, limit is {limit}");
    }
}

#[tokio::test]
async fn what_came_with_the_end_of_a_handshake_is_read_though_nothing_more_is_announced() {
    let mut stage = Stage::open();
    stage.send(&encoded(&Packet::Connect(Connect::new(Version::V5, "d"))));
    while stage.slot.work(&mut stage.hands) == Outcome::Again {}
    assert!(stage.slot.transport.sent.is_empty() && matches!(stage.slot.stage, super::Stage::Asking(_)));
}

#[tokio::test]
async fn a_connection_that_ends_while_its_session_is_taken_gets_none() {
    let mut stage = Stage::open();
    stage.send(&encoded(&Packet::Connect(Connect::new(Version::V5, "d"))));
    while !stage.slot.reserved {
        stage.idle().await;
    }
    assert!(matches!(stage.slot.stage, super::Stage::Asking(_)), "whose its session is");
    stage.slot.connection.lost();
    assert_eq!(stage.turn(), Outcome::Gone);
    assert_eq!((stage.node().sessions.counts(), stage.slot.reserved), ((0, 0), false));
}

#[tokio::test]
async fn of_a_packet_that_is_half_there_its_bytes_are_kept_and_nothing_else() {
    let mut stage = Stage::new().await;
    assert!(stage.owns_nothing());
    let packet = subscribe(&"x".repeat(100));
    let (first, second) = packet.split_at(60);
    stage.send(first);
    assert_eq!(stage.turn(), Outcome::Idle);
    let input = stage.slot.input.as_ref().expect("the half packet");
    assert_eq!((&input[..], input.capacity()), (first, first.len()));
    stage.send(second);
    assert_eq!(stage.turn(), Outcome::Idle);
    assert_eq!(stage.slot.transport.received[..1], [0x90], "a SUBACK");
    assert!(stage.owns_nothing());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_not_read_and_gone_in_time() {
    let mut stage = Stage::new().await;
    stage.slot.transport.takes = 1_000;
    stage.send(&encoded(&Packet::PingReq).repeat(OUTPUT_BYTES_MAX));
    assert_eq!(stage.turn(), Outcome::Idle);
    assert_eq!(stage.slot.transport.received.len(), 1_000);
    let waiting = stage.slot.connection.output().len();
    assert!((OUTPUT_BYTES_MAX - 2..=OUTPUT_BYTES_MAX).contains(&waiting), "{waiting} bytes wait");
    let unread = stage.slot.transport.sent.len();
    assert!(unread > 0, "the rest stays in the socket");

    tokio::time::advance(WRITE / 2).await;
    stage.slot.transport.takes = 10;
    assert_eq!(stage.turn(), Outcome::Idle, "a byte in time is enough");
    tokio::time::advance(WRITE * 3 / 4).await;
    assert_eq!(stage.turn(), Outcome::Idle);
    tokio::time::advance(WRITE / 2).await;
    assert_eq!(stage.turn(), Outcome::Gone);
}

#[tokio::test]
async fn a_client_is_told_when_the_store_has_its_session_and_its_subscription() {
    let mut stage = Stage::untold().await;
    stage.send(&subscribe("t"));
    for _ in 0..100 {
        stage.idle().await;
    }
    assert!(stage.slot.transport.received.is_empty(), "nothing is said while the store does not answer");
    stage.keep();
    assert_eq!(stage.hears().await[..1], [0x20], "a CONNACK");
    assert_eq!(stage.hears().await[..1], [0x90], "a SUBACK");
    assert!(stage.owns_nothing());
}

#[tokio::test]
async fn a_client_that_goes_before_it_is_told_leaves_the_session_it_asked_for() {
    let mut stage = Stage::untold().await;
    stage.slot.connection.lost();
    assert_eq!(stage.turn(), Outcome::Gone);
    assert_eq!(stage.node().sessions.counts(), (0, 1));
}

#[tokio::test]
async fn a_question_that_panics_ends_its_connection_and_no_other_question() {
    let mut stage = Stage::untold().await;
    let place = Place { slot: 1, life: 0 };
    let question = |panics: bool| async move {
        tokio::task::yield_now().await;
        assert!(!panics, "as the test wants it");
        Answer::Identity(Err(AuthenticateError::Unavailable { reason: "away".to_owned() }))
    };
    let _asked = [true, false].map(|panics| stage.hands.ask(place, question(panics).boxed()));
    stage.hands.hand_over();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        tokio::task::yield_now().await;
        let posted = stage.hands.mailbox.take(Vec::new()).into_iter();
        answers.extend(posted.filter(|mail| matches!(mail, Mail::Answered(..))));
    }
    let failed = answers.iter().filter(|mail| matches!(mail, Mail::Answered(_, Answer::Failed)));
    assert_eq!(failed.count(), 1);

    assert!(stage.slot.answered(Answer::Failed, &mut stage.hands).is_none(), "it has asked");
    assert_eq!(stage.turn(), Outcome::Gone);
    assert_eq!(stage.node().sessions.counts(), (0, 1));
}

/// Another client's session, which is kept and subscribes to `t`.
async fn kept_subscriber(node: &Arc<Node>) {
    let (tenant, client) = (TenantId::default_tenant(), ClientId::new("s").expect("valid"));
    let identity = Anyone.authenticate(Proof::Anonymous { client: client.clone() }, 0).await.expect("anyone");
    node.reports.reserve().await;
    let Ok(claim) = node.clone().take((tenant, client.clone())).await else { panic!("nobody else has it") };
    let attach = Attach {
        identity,
        client,
        epoch: claim.epoch,
        clean_start: true,
        expiry_s: 60,
        will: None,
        version: Version::V5.into(),
        peer: PIPE_PEER,
        link: Arc::default(),
    };
    let attached = node.attach(attach, claim).expect("there is room");
    attached.session.add_filter("t", 1).expect("there is room");
    let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
    node.subscribe(&attached.session, vec![Granted { filter: "t".into(), options, retained: false }]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_back_receipts_and_not_the_log() {
    let mut stage = Stage::new().await;
    let (node, at) = (stage.node(), TopicPartition::new(TELEMETRY_TOPIC, 0));
    let topic = TELEMETRY_TOPIC.into();
    let config = TopicConfig { topic, partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
    node.bus.create_topic(config).await.expect("created");
    kept_subscriber(&node).await;
    for id in 1..=3 {
        let (qos, packet_id) = (Qos::AtLeastOnce, PacketId::new(id));
        stage.send(&encoded(&Packet::Publish(Publish { qos, packet_id, ..Publish::new("t", b"x") })));
        while node.bus.bounds(&at).await.expect("readable").end < Offset::from(id) {
            stage.idle().await;
        }
    }
    for _ in 0..100 {
        stage.idle().await;
    }
    assert!(stage.slot.transport.received.is_empty(), "none is acknowledged before it is in the inbox for good");
    stage.keep();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 3 * 4 {
        acknowledged.extend(stage.hears().await);
    }
    assert_eq!(acknowledged, [0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3]);
}
