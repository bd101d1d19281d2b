//! Three nodes, and the members of a shared subscription on two of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Metrics, SystemClock, SystemRandom};
use drover_mqtt::Version;
use drover_sim::{BusFaults, SimBus};
use drover_types::{ClientId, DeviceId, Qos, TenantId};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::adapters::embedded;
use crate::adapters::owners::Embedded;
use crate::config::IngressConfig;
use crate::domain::authorize::Policy;
use crate::domain::connection::{CloseReason, Environment, Granted};
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::journal::Journal;
use crate::domain::node::NodePorts;
use crate::domain::peers::Peers;
use crate::domain::quotas::Quotas;
use crate::domain::reverify::Affected;
use crate::domain::router::Options;
use crate::domain::session::tests::message;
use crate::domain::session::{Answer as SessionAnswer, Next};
use crate::domain::sessions::{Attach, Attached, Sessions, WillFate};
use crate::ports::{Answer, Authenticator, Batch, Claimed, Heir, PeerLink};
use crate::telemetry::Telemetry;

const SHARED: &str = "$share/g/t";
const NAMES: [&str; 3] = ["a", "b", "c"];
/// The number of the start of each.
const BOOT: u64 = 1;
/// What a lease (3 s) and a loaded machine take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node, and whether it is there.
#[derive(Default)]
struct Place {
    node: OnceLock<Arc<Node>>,
    lost: AtomicBool,
}

/// The way from one node to another, as gRPC is.
struct Line {
    from: Arc<Place>,
    to: Arc<Place>,
}

#[async_trait]
impl PeerLink for Line {
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String> {
        let there =
            [&self.from, &self.to].map(|place| place.node.get().filter(|_| !place.lost.load(Ordering::Relaxed)));
        let [Some(from), Some(node)] = there else { return Err("lost".to_owned()) };
        let from = from.peers.node();
        let whole = node.peers.hear(from, BOOT, batch.news.clone());
        if let Some(groups) = batch.groups {
            node.peers.groups.hear(from, groups.to_vec());
        }
        let mut refused = Vec::new();
        if !batch.messages.is_empty() {
            refused = node.take_batch((from, BOOT), batch.sequence, batch.messages, batch.shares).await;
        }
        let completed = node.peers.taken.completed(from, BOOT);
        let name = node.peers.node().to_owned();
        Ok(Answer { node: name, boot: BOOT, gapped: !whole, refused, completed, starting: false })
    }

    async fn take_over(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<Option<u64>, String> {
        Ok(None)
    }

    async fn flush(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Sessions are not shared.
#[async_trait]
impl Heir for Line {
    async fn claim(&self, _: &str, _: &[String]) -> Result<Claimed, String> {
        Ok(Claimed::Never)
    }

    async fn inherit(&self, _: &[Arc<Message>]) -> Result<(), String> {
        Ok(())
    }
}

struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _proof: Proof, _generation: u64) -> Result<Arc<Identity>, AuthenticateError> {
        Err(AuthenticateError::Unavailable { reason: "nobody asks".to_owned() })
    }

    fn forget(&self, _affected: &Affected) {}
}

struct Stage {
    places: [Arc<Place>; 3],
    _data: TempDir,
}

impl Stage {
    /// Nodes that know each other.
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let places: [Arc<Place>; 3] = Default::default();
        for (place, name) in places.iter().zip(NAMES) {
            let others = places.iter().filter(|other| !Arc::ptr_eq(other, place));
            let line =
                |to: &Arc<Place>| -> Arc<dyn PeerLink> { Arc::new(Line { from: place.clone(), to: to.clone() }) };
            let node = node(&data, name, others.map(line).collect());
            tokio::spawn({
                let node = node.clone();
                async move { node.peers.run(None, &node.telemetry, CancellationToken::new()).await }
            });
            tokio::spawn({
                let node = node.clone();
                async move { node.place_again().await }
            });
            assert!(place.node.set(node).is_ok());
        }
        let stage = Self { places, _data: data };
        for name in NAMES {
            stage.node(name).peers.greeted().await;
        }
        stage
    }

    fn place(&self, name: &str) -> &Arc<Place> {
        let at = NAMES.iter().position(|known| *known == name).expect("one of them");
        &self.places[at]
    }

    fn node(&self, name: &str) -> &Arc<Node> {
        self.place(name).node.get().expect("it was started")
    }

    /// A client on this node that is a member.
    async fn member(&self, name: &str) -> Attached {
        self.subscriber(name, SHARED).await
    }

    /// A client on this node with this subscription.
    async fn subscriber(&self, name: &str, filter: &str) -> Attached {
        let node = self.node(name);
        let client = ClientId::new(format!("at-{name}-{}", filter.len())).expect("valid");
        let tenant = TenantId::default_tenant();
        let identity = Arc::new(Identity {
            tenant: tenant.clone(),
            device: DeviceId::new("d").expect("valid"),
            credential: Box::default(),
            policy: Policy::default(),
            expires_ms: 0,
            generation: 0,
        });
        node.reports.reserve().await;
        let Ok(claim) = node.clone().take((tenant, client.clone())).await else { panic!("nobody else has it") };
        let attach = Attach {
            identity,
            client,
            epoch: claim.epoch,
            clean_start: true,
            expiry_s: 0,
            will: None,
            version: Version::V5.into(),
            peer: ([127, 0, 0, 1], 1).into(),
            link: Arc::default(),
        };
        let attached = node.attach(attach, claim).expect("there is room");
        attached.session.add_filter(filter, 1).expect("there is room");
        let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
        let granted = vec![Granted { filter: filter.into(), options, retained: false }];
        node.settled(node.subscribe(&attached.session, granted)).await;
        attached
    }

    /// Has a node hand out messages with these numbers, and waits until they are where they belong.
    async fn publish(&self, name: &str, numbers: std::ops::Range<u8>) {
        let messages: Vec<_> = numbers.map(|number| message(vec![number])).collect();
        self.node(name).route_all(&messages).await;
    }
}

fn node(data: &TempDir, name: &str, links: Vec<Arc<dyn PeerLink>>) -> Arc<Node> {
    let (config, random, started) = (IngressConfig::default(), Arc::new(SystemRandom), Instant::now());
    let opened = embedded::open(&data.path().join(name), config.limits.retained_bounds());
    let ((retained, sessions), clock) = (opened.expect("an empty store"), Arc::new(SystemClock));
    let ports = NodePorts {
        bus: Arc::new(SimBus::new(1, BusFaults::default())),
        clock: clock.clone(),
        random: random.clone(),
        authenticator: Arc::new(Nobody),
        owners: Arc::new(Embedded::new(1)),
        ownership_patience: config.timeouts.ownership.as_std(),
        peers: Peers::new(name, links, started),
        retained: Arc::new(retained),
        journal: Arc::new(Journal::new(Arc::new(sessions), clock)),
        started,
    };
    let (limits, quotas) = (config.connection_limits(), Quotas::default());
    let environment = Environment { limits, random, methods: Vec::new(), quotas };
    Arc::new(Node::new(ports, environment, Sessions::new(1), Telemetry::new(&Metrics::default())))
}

/// What a member is sent, and does not acknowledge yet.
fn sent(member: &Attached) -> Vec<u8> {
    let mut numbers = Vec::new();
    while let Next::Send { delivery, .. } = member.session.next(member.publisher.epoch, 1_000) {
        numbers.push(delivery.message.telemetry.payload[0]);
    }
    numbers
}

/// What a member is sent until it has these, in whatever order.
async fn sent_until(member: &Attached, expected: &[u8]) {
    let (mut seen, began) = (Vec::new(), Instant::now());
    while !expected.iter().all(|number| seen.contains(number)) {
        assert!(began.elapsed() < PATIENCE, "{seen:?} are there of {expected:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen.extend(sent(member));
    }
    seen.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn each_message_goes_to_one_member_of_all_nodes_and_to_one_here_if_there_is_one() {
    let stage = Stage::new().await;
    let (at_a, at_b) = (stage.member("a").await, stage.member("b").await);
    stage.publish("a", 0..4).await;
    stage.publish("b", 4..8).await;
    assert_eq!((sent(&at_a), sent(&at_b)), ((0..4).collect(), (4..8).collect()));
    stage.publish("c", 10..20).await;
    let (of_a, of_b) = (sent(&at_a), sent(&at_b));
    assert_eq!((of_a.len(), of_b.len()), (5, 5), "nodes take turns");
    let mut all = [of_a, of_b].concat();
    all.sort_unstable();
    assert_eq!(all, (10..20).collect::<Vec<u8>>());
}

#[tokio::test]
async fn what_a_member_leaves_goes_to_one_on_another_node() {
    let stage = Stage::new().await;
    let at_a = stage.member("a").await;
    stage.publish("a", 0..3).await;
    assert_eq!(sent(&at_a), [0, 1, 2]);
    let at_b = stage.member("b").await;
    stage.node("a").detach(&at_a.publisher, 0, WillFate::Discard, CloseReason::ConnectionLost);
    sent_until(&at_b, &[0, 1, 2]).await;
    stage.publish("a", 3..4).await;
    assert_eq!(sent(&at_b), [3]);
}

#[tokio::test]
async fn what_a_member_has_not_acknowledged_when_its_node_is_lost_goes_to_another() {
    let stage = Stage::new().await;
    let at_b = stage.member("b").await;
    stage.publish("c", 0..2).await;
    let epoch = at_b.publisher.epoch;
    while let Next::Send { packet_id: Some(packet_id), .. } = at_b.session.next(epoch, 1_000) {
        at_b.session.answer(epoch, packet_id, SessionAnswer::Acknowledged);
    }
    stage.publish("c", 2..5).await;
    assert_eq!(sent(&at_b), [2, 3, 4]);
    let at_a = stage.member("a").await;
    stage.place("b").lost.store(true, Ordering::Relaxed);
    sent_until(&at_a, &[2, 3, 4]).await;
}

#[tokio::test]
async fn who_has_subscribed_alone_does_not_get_again_what_goes_to_another_member() {
    let stage = Stage::new().await;
    let (at_b, alone_at_a) = (stage.member("b").await, stage.subscriber("a", "t").await);
    stage.publish("c", 0..2).await;
    assert_eq!((sent(&at_b), sent(&alone_at_a)), (vec![0, 1], vec![0, 1]));
    let at_a = stage.member("a").await;
    stage.place("b").lost.store(true, Ordering::Relaxed);
    sent_until(&at_a, &[0, 1]).await;
    assert!(sent(&alone_at_a).is_empty());
}

#[tokio::test]
async fn a_message_for_which_nobody_is_left_holds_nobody_up() {
    let stage = Stage::new().await;
    let at_b = stage.member("b").await;
    assert!(at_b.session.remove_filter(SHARED));
    let filters: [Box<str>; 1] = [SHARED.into()];
    stage.node("b").unsubscribe(&at_b.session, &filters); // of which the others hear later
    let published = tokio::time::timeout(PATIENCE, stage.publish("c", 0..1)).await;
    assert!(published.is_ok() && sent(&at_b).is_empty());
}
