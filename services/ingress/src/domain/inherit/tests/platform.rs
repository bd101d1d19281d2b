//! Three nodes over one database, and the ways between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{Bus, TopicConfig};
use drover_host::{Metrics, SystemRandom};
use drover_sim::{BusFaults, SimBus};
use drover_types::object::{Effect, PolicyAction, Statement};
use drover_types::{ClientId, DeviceId, FixedClock, Qos, RecordId, TELEMETRY_TOPIC, TenantId};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::database::{Client, Database};
use crate::config::IngressConfig;
use crate::domain::authorize::Policy;
use crate::domain::connection::{CloseReason, Environment, Granted};
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::journal::Journal;
use crate::domain::message::Message;
use crate::domain::node::{Node, NodePorts};
use crate::domain::peers::Peers;
use crate::domain::quotas::Quotas;
use crate::domain::reverify::Affected;
use crate::domain::router::Options;
use crate::domain::session::Session;
use crate::domain::session::tests::message;
use crate::domain::sessions::{Attach, Attached, Key, Protocol, Sessions, Will, WillFate};
use crate::ports::{
    Answer, Authenticator, Batch, Claimed, Heir, OwnHeir, PeerLink, RetainedPage, RetainedQuery, RetainedStore,
    StoreError,
};
use crate::telemetry::Telemetry;

/// No message is retained, and nobody is asked who anybody is.
struct Nothing;

#[async_trait]
impl RetainedStore for Nothing {
    async fn keep(&self, _: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn matching(&self, _: RetainedQuery) -> Result<RetainedPage, StoreError> {
        Ok(RetainedPage::default())
    }

    async fn sweep(&self, _: u64) -> Result<usize, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl Authenticator for Nothing {
    async fn authenticate(&self, _: Proof, _: u64) -> Result<Arc<Identity>, AuthenticateError> {
        Ok(identity())
    }

    fn forget(&self, _: &Affected) {}
}

fn identity() -> Arc<Identity> {
    let statement = Statement {
        effect: Effect::Allow,
        actions: vec![PolicyAction::Connect, PolicyAction::Publish, PolicyAction::Subscribe],
        resources: vec!["#".to_owned()],
    };
    Arc::new(Identity {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("d").expect("valid"),
        credential: Box::default(),
        policy: Policy::compile(Box::default(), &[statement]),
        expires_ms: 0,
        generation: 0,
    })
}

/// The way from one node to another.
struct Way {
    from: &'static str,
    to: OnceLock<Arc<Node>>,
    /// Of each end whether it is gone.
    cut: [AtomicBool; 2],
}

impl Way {
    fn node(&self) -> Result<&Arc<Node>, String> {
        if self.cut.iter().any(|cut| cut.load(Ordering::Relaxed)) {
            return Err("nobody is there".to_owned());
        }
        self.to.get().ok_or_else(|| "it has not started".to_owned())
    }
}

#[async_trait]
impl Heir for Way {
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String> {
        self.node()?.claim(gone, live).await
    }

    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        self.node()?.inherit(messages).await
    }
}

#[async_trait]
impl PeerLink for Way {
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String> {
        let node = self.node()?;
        let gapped = !node.peers.hear(self.from, 1, batch.news.clone());
        if let Some(groups) = batch.groups {
            node.peers.groups.hear(self.from, groups.to_vec());
        }
        let starting = node.peers.is_starting();
        let mut refused = Vec::new();
        if !batch.messages.is_empty() && !starting {
            refused = node.take_batch((self.from, 1), batch.sequence, batch.messages, batch.shares).await;
        }
        self.node()?; // else nobody hears the answer
        let completed = node.peers.taken.completed(self.from, 1);
        Ok(Answer { node: node.peers.node().to_owned(), boot: 1, gapped, refused, completed, starting })
    }

    async fn take_over(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<Option<u64>, String> {
        Ok(self.node()?.give_up(&(tenant.clone(), client.clone()), epoch).await)
    }

    async fn flush(&self) -> Result<(), String> {
        self.node()?.peers.flushed().await;
        Ok(())
    }
}

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes.
pub(super) struct Platform {
    pub(super) nodes: Vec<Arc<Node>>,
    ways: Vec<(usize, usize, Arc<Way>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Platform {
    pub(super) async fn new() -> Self {
        Self::over(Arc::default(), None).await
    }

    /// The nodes start over what is in the database, but for `gone`.
    pub(super) async fn over(database: Arc<Database>, gone: Option<usize>) -> Self {
        let started = Instant::now();
        let bus = bus().await;
        let mut platform = Self { nodes: Vec::new(), ways: Vec::new(), tasks: Vec::new() };
        for (at, name) in NAMES.into_iter().enumerate() {
            let others: Vec<usize> = (0..NAMES.len()).filter(|other| *other != at).collect();
            let ways: Vec<Arc<Way>> = others
                .iter()
                .map(|_| Arc::new(Way { from: name, to: OnceLock::new(), cut: Default::default() }))
                .collect();
            let links = ways.iter().cloned().map(|way| way as Arc<dyn PeerLink>).collect();
            platform.ways.extend(others.into_iter().zip(ways).map(|(other, way)| (at, other, way)));
            let client = Client { database: database.clone(), node: name };
            let (node, tasks) = node(name, client, bus.clone(), links, Arc::new(Nothing), started);
            platform.nodes.push(node);
            platform.tasks.extend(tasks);
        }
        for (_, to, way) in &platform.ways {
            way.to.set(platform.nodes[*to].clone()).ok();
        }
        gone.into_iter().for_each(|node| platform.cut(node, true));
        for node in &platform.nodes {
            node.peers.greeted().await;
        }
        platform
    }

    /// The node is gone from one moment to the next, or there again.
    pub(super) fn cut(&self, node: usize, gone: bool) {
        for (from, to, way) in &self.ways {
            let ends = [*from == node, *to == node];
            way.cut.iter().zip(ends).filter(|(_, end)| *end).for_each(|(cut, _)| cut.store(gone, Ordering::Relaxed));
        }
    }

    pub(super) async fn connect(&self, node: usize, client: &str, will: Option<Will>) -> Attached {
        let node = &self.nodes[node];
        node.reports.reserve().await;
        let client = ClientId::new(client).expect("valid");
        let claim = node.clone().take((TenantId::default_tenant(), client.clone())).await.expect("taken");
        let attach = Attach {
            identity: identity(),
            client,
            epoch: claim.epoch,
            clean_start: false,
            expiry_s: 600,
            will,
            version: Protocol::Coap,
            peer: ([127, 0, 0, 1], 1).into(),
            link: Arc::default(),
        };
        let attached = node.attach(attach, claim).expect("attached");
        node.settled(attached.awaited).await;
        attached
    }

    pub(super) async fn subscribe(&self, node: usize, attached: &Attached, filter: &str) {
        attached.session.add_filter(filter, 10).expect("room");
        let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
        let granted = vec![Granted { filter: filter.into(), options, retained: false }];
        let awaited = self.nodes[node].subscribe(&attached.session, granted);
        self.nodes[node].settled(awaited).await;
    }

    pub(super) fn leave(&self, node: usize, attached: &Attached) {
        let lost = CloseReason::ConnectionLost;
        self.nodes[node].detach(&attached.publisher, 600, WillFate::Publish, lost);
    }

    /// The session of this client at this node.
    pub(super) fn session(&self, node: usize, client: &str) -> Option<Arc<Session>> {
        self.nodes[node].sessions.session(&key(client))
    }

    pub(super) async fn publish(&self, node: usize, number: u8) {
        let mut message = (*message(vec![number])).clone();
        message.telemetry.id = RecordId([number; 16]);
        self.nodes[node].publish(Arc::new(message)).await.expect("kept");
    }
}

/// A node without peers, over this store of retained messages.
pub(crate) async fn alone(retained: Arc<dyn RetainedStore>) -> Arc<Node> {
    let client = Client { database: Arc::default(), node: "a" };
    // Its tasks end with the runtime of the test.
    node("a", client, bus().await, Vec::new(), retained, Instant::now()).0
}

/// A log with the topic of telemetry.
async fn bus() -> Arc<SimBus> {
    let topic = TELEMETRY_TOPIC.into();
    let config = TopicConfig { topic, partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
    let bus = Arc::new(SimBus::new(1, BusFaults::default()));
    bus.create_topic(config).await.expect("created");
    bus
}

pub(super) fn key(client: &str) -> Key {
    (TenantId::default_tenant(), ClientId::new(client).expect("valid"))
}

fn node(
    name: &'static str,
    client: Client,
    bus: Arc<dyn Bus>,
    links: Vec<Arc<dyn PeerLink>>,
    retained: Arc<dyn RetainedStore>,
    started: Instant,
) -> (Arc<Node>, [JoinHandle<()>; 3]) {
    let (config, random) = (IngressConfig::default(), Arc::new(SystemRandom));
    let clock = Arc::new(FixedClock::at(1_795_000_000_000));
    let ports = NodePorts {
        bus,
        clock: clock.clone(),
        random: random.clone(),
        authenticator: Arc::new(Nothing),
        owners: Arc::new(client.clone()),
        ownership_patience: Duration::from_secs(4),
        peers: Peers::new(name, links, started),
        retained,
        journal: Arc::new(Journal::new(Arc::new(client), clock)),
        started,
    };
    let (limits, quotas) = (config.connection_limits(), Quotas::default());
    let environment = Environment { limits, random, methods: Vec::new(), quotas };
    let node = Arc::new(Node::new(ports, environment, Sessions::new(1_000), Telemetry::new(&Metrics::default())));
    let (keeping, talking, placing) = (node.clone(), node.clone(), node.clone());
    let keeping = tokio::spawn(async move { keeping.journal.run(&keeping.telemetry).await });
    let talking = tokio::spawn(async move {
        talking.peers.run(Some(&talking as &dyn OwnHeir), &talking.telemetry, CancellationToken::new()).await;
    });
    let placing = tokio::spawn(async move { placing.place_again().await });
    (node, [keeping, talking, placing])
}
