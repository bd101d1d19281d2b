//! Nodes that share their sessions, in memory and on virtual time: one is gone, or a client moves from one to another.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use drover_bus::{Bus, TopicConfig};
use drover_host::{Metrics, SystemRandom};
use drover_sim::{BusFaults, SimBus};
use drover_types::object::{Effect, PolicyAction, Statement};
use drover_types::{ClientId, DeviceId, FixedClock, Qos, RecordId, TELEMETRY_TOPIC, TenantId};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::IngressConfig;
use crate::domain::authorize::Policy;
use crate::domain::connection::{CloseReason, Environment, Granted};
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::journal::Journal;
use crate::domain::node::NodePorts;
use crate::domain::peers::Peers;
use crate::domain::quotas::Quotas;
use crate::domain::restore::{HELD_UP_MS, STUCK_MS};
use crate::domain::reverify::Affected;
use crate::domain::router::Options;
use crate::domain::session::Session;
use crate::domain::session::tests::message;
use crate::domain::sessions::{Attach, Attached, Protocol, Sessions, Will, WillFate};
use crate::ports::sessions::{Change, Head, Listed, Place, SessionStore, Stored, Subscription, What};
use crate::ports::{
    Answer, Authenticator, Batch, Former, Owner, Owners, OwnersError, PeerLink, RetainedPage, RetainedQuery,
    RetainedStore, Taken,
};
use crate::telemetry::Telemetry;

/// What all nodes share.
#[derive(Default)]
struct Database {
    sessions: Mutex<BTreeMap<Key, Rows>>,
    owners: Mutex<HashMap<Key, Owner>>,
    epochs: AtomicU64,
    /// No node can ask for the sessions of its own.
    is_away: AtomicBool,
    /// The session that cannot be read.
    unreadable: Mutex<Option<Key>>,
}

/// One session: its head with the node and stamp of the last write, and the rest.
#[derive(Default)]
struct Rows {
    head: Option<(Head, Box<str>, u64)>,
    subscriptions: Vec<Subscription>,
    inbox: BTreeMap<Place, Row>,
}

/// The database as one node has it.
#[derive(Clone)]
struct Client {
    database: Arc<Database>,
    node: &'static str,
}

impl Client {
    fn write_one(&self, Change { key, stamp, what }: &Change) {
        let mut sessions = self.database.sessions.lock().expect("no panic");
        let rows = sessions.entry((**key).clone()).or_default();
        match what {
            What::Head(head) if rows.head.as_ref().is_none_or(|(.., last)| last < stamp) => {
                rows.head = Some(((**head).clone(), self.node.into(), *stamp));
            }
            What::Head(_) | What::Received(_) | What::Left(_) => {}
            What::Subscriptions(all) => rows.subscriptions.clone_from(all),
            What::Put(row) => {
                rows.inbox.insert(row.place, row.clone());
            }
            What::Remove(place) => {
                rows.inbox.remove(place);
            }
            What::Passed { before, .. } => rows.inbox.retain(|place, _| place >= before),
            What::End => {
                sessions.remove(&**key);
            }
        }
    }
}

#[async_trait]
impl SessionStore for Client {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        changes.iter().for_each(|change| self.write_one(change));
        Ok(())
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        if self.database.unreadable.lock().expect("no panic").as_ref() == Some(key) {
            return Err(StoreError::Unavailable { reason: "as told".to_owned() });
        }
        let sessions = self.database.sessions.lock().expect("no panic");
        let Some(rows) = sessions.get(key) else { return Ok(None) };
        let Some((head, node, stamp)) = rows.head.clone() else { return Ok(None) };
        Ok(Some(Stored { head, subscriptions: rows.subscriptions.clone(), received: Vec::new(), stamp, node }))
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let sessions = self.database.sessions.lock().expect("no panic");
        let Some(rows) = sessions.get(key) else { return Ok(Vec::new()) };
        let behind = rows.inbox.values().filter(|row| after.is_none_or(|after| row.place > after));
        Ok(behind.take(rows_max).cloned().collect())
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        if self.database.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { reason: "as told".to_owned() });
        }
        self.left_by(self.node, after, sessions_max).await
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        let sessions = self.database.sessions.lock().expect("no panic");
        let of_node =
            |head: &Option<(Head, Box<str>, u64)>| head.as_ref().is_some_and(|(_, writer, _)| **writer == *node);
        let found = sessions.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        let found = found.filter(|(_, rows)| of_node(&rows.head));
        let listed = |(key, rows): (&Key, &Rows)| {
            let (head, node, stamp) = rows.head.clone().expect("it was just looked at");
            let stored = Stored { head, subscriptions: rows.subscriptions.clone(), received: Vec::new(), stamp, node };
            (key.clone(), Ok(stored))
        };
        Ok(found.take(sessions_max).map(listed).collect())
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        Ok(NAMES.map(str::to_owned).to_vec())
    }

    fn is_shared(&self) -> bool {
        true
    }
}

#[async_trait]
impl Owners for Client {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        let epoch = self.database.epochs.fetch_add(1_000, Ordering::Relaxed) + 1_000;
        let owner = Owner { node: self.node.to_owned(), epoch };
        let former = self.database.owners.lock().expect("no panic").insert((tenant.clone(), client.clone()), owner);
        let former = former.filter(|former| former.node != self.node);
        Ok(Taken { epoch, former: former.map_or(Former::Here, |former| Former::Node(former.node)) })
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        Ok(self.database.owners.lock().expect("no panic").get(&(tenant.clone(), client.clone())).cloned())
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        if self.owner(tenant, client).await? != owner {
            return Ok(None);
        }
        Ok(Some(self.take(tenant, client).await?.epoch))
    }

    async fn renew(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<(), OwnersError> {
        Ok(())
    }
}

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
        credential: String::new(),
        policies: Arc::default(),
        policy: Policy::compile(&[statement], "d"),
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

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes.
struct Platform {
    nodes: Vec<Arc<Node>>,
    ways: Vec<(usize, usize, Arc<Way>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Platform {
    async fn new() -> Self {
        Self::over(Arc::default(), None).await
    }

    /// The nodes start over what is in the database, but for `gone`.
    async fn over(database: Arc<Database>, gone: Option<usize>) -> Self {
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
    fn cut(&self, node: usize, gone: bool) {
        for (from, to, way) in &self.ways {
            let ends = [*from == node, *to == node];
            way.cut.iter().zip(ends).filter(|(_, end)| *end).for_each(|(cut, _)| cut.store(gone, Ordering::Relaxed));
        }
    }

    async fn connect(&self, node: usize, client: &str, will: Option<Will>) -> Attached {
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

    async fn subscribe(&self, node: usize, attached: &Attached, filter: &str) {
        attached.session.add_filter(filter, 10).expect("room");
        let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
        let granted = vec![Granted { filter: filter.into(), options, retained: false }];
        let awaited = self.nodes[node].subscribe(&attached.session, granted);
        self.nodes[node].settled(awaited).await;
    }

    fn leave(&self, node: usize, attached: &Attached) {
        let lost = CloseReason::ConnectionLost;
        self.nodes[node].detach(&attached.publisher, 600, WillFate::Publish, lost);
    }

    /// The session of this client at this node.
    fn session(&self, node: usize, client: &str) -> Option<Arc<Session>> {
        self.nodes[node].sessions.session(&key(client))
    }

    async fn publish(&self, node: usize, number: u8) {
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

fn key(client: &str) -> Key {
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

#[test]
fn sessions_are_spread_over_the_live_nodes_and_only_those_of_one_that_goes_change_hands() {
    let keys: Vec<Key> = (0..3_000).map(|n| key(&format!("c-{n}"))).collect();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (three, two) = (names(&NAMES), names(&["c", "a"]));
    for node in &three {
        let share = keys.iter().filter(|key| heir(key, &three) == Some(node.as_str())).count();
        assert!((800..1_200).contains(&share), "{node} has {share}");
    }
    for key in &keys {
        let (before, after) = (heir(key, &three), heir(key, &two));
        assert!(before == Some("b") || before == after, "{key:?}");
    }
    assert_eq!(heir(&keys[0], &[]), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_a_node_is_gone_reaches_its_sessions_at_the_others() {
    let platform = Platform::new().await;
    let clients: Vec<String> = (0..20).map(|n| format!("c-{n}")).collect();
    for client in &clients {
        let attached = platform.connect(1, client, None).await;
        platform.subscribe(1, &attached, "t").await;
        platform.leave(1, &attached);
    }
    platform.publish(0, 1).await;
    platform.cut(1, true);
    platform.publish(0, 2).await;
    platform.publish(2, 3).await;
    let mut shares = [0, 0];
    for client in &clients {
        let heirs = [0, 2].map(|node| platform.session(node, client));
        let at = heirs.iter().position(Option::is_some).expect("somebody has taken it");
        assert!(heirs[1 - at].is_none(), "one has it");
        assert_eq!(heirs[at].as_ref().map(|session| session.depth()), Some((3, 0)), "each message once");
        shares[at] += 1;
        // Its client comes back, at the other one.
        let attached = platform.connect([2, 0][at], client, None).await;
        assert!(attached.present);
        assert_eq!(attached.session.depth(), (3, 0));
    }
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn the_will_of_a_connection_whose_node_is_gone_is_published_once() {
    let platform = Platform::new().await;
    let watcher = platform.connect(0, "watcher", None).await;
    platform.subscribe(0, &watcher, "t").await;
    let publication = crate::domain::message::Publication {
        topic: drover_types::TopicName::new("t").expect("valid"),
        payload: bytes::Bytes::from_static(b"w"),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: 0,
        properties: None,
    };
    platform.connect(1, "c", Some(Will { publication, delay_s: 0 })).await;
    platform.cut(1, true);
    platform.publish(0, 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(watcher.session.depth(), (2, 0), "the message and the will");
    assert!(platform.session(0, "c").is_some() != platform.session(2, "c").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_only_slow_gives_up_what_others_have_taken() {
    let platform = Platform::new().await;
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    platform.cut(1, true);
    platform.publish(0, 1).await;
    assert!(platform.session(1, "c").is_some(), "it knows nothing of that");
    platform.publish(1, 2).await; // to its own session, which it takes for its own
    platform.cut(1, false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(platform.session(1, "c").is_none());
    let heir = platform.session(0, "c").or_else(|| platform.session(2, "c")).expect("taken");
    assert_eq!(heir.depth(), (2, 0), "what came late to the former owner as well");
    platform.publish(2, 3).await;
    assert_eq!(heir.depth(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moves_while_its_client_is_written_to_misses_nothing_and_has_nothing_twice() {
    let platform = Arc::new(Platform::new().await);
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    let publishing = platform.clone();
    let published = tokio::spawn(async move {
        for number in 1..=200 {
            publishing.publish(0, number).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut session = attached.session;
    for turn in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let attached = platform.connect([2, 1][turn % 2], "c", None).await;
        assert!(attached.present);
        session = attached.session;
    }
    published.await.expect("no panic");
    assert_eq!(session.depth(), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_though_the_first_connect_has_only_taken_its_ownership() {
    let platform = Platform::new().await;
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    let (tenant, client) = key("c");
    platform.nodes[2].owners.take(&tenant, &client).await.expect("taken");
    assert!(platform.connect(2, "c", None).await.present);
    assert!(platform.session(1, "c").is_none(), "it has ended there");
    platform.publish(0, 1).await;
    assert_eq!(platform.session(2, "c").map(|session| session.depth()), Some((1, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_sessions_of_a_node_that_nobody_has_heard_since_the_start_are_taken() {
    let database = Arc::<Database>::default();
    let before = Platform::over(database.clone(), None).await;
    let attached = before.connect(1, "c", None).await;
    before.subscribe(1, &attached, "t").await;
    before.leave(1, &attached);
    before.nodes[1].journal.durable(before.nodes[1].journal.position()).await;
    (0..NAMES.len()).for_each(|node| before.cut(node, true));
    drop(before);
    let platform = Platform::over(database, Some(1)).await;
    platform.publish(0, 1).await;
    let heir = platform.session(0, "c").or_else(|| platform.session(2, "c")).expect("taken");
    assert_eq!(heir.depth(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn members_of_a_shared_subscription_are_members_where_their_sessions_are_claimed() {
    let platform = Platform::new().await;
    let members = ["c-0", "c-1", "c-2"];
    for member in members {
        let attached = platform.connect(1, member, None).await;
        platform.subscribe(1, &attached, "$share/g/t").await;
        platform.leave(1, &attached);
    }
    for number in 1..=6 {
        platform.publish(0, number).await;
    }
    platform.cut(1, true);
    for number in 7..=9 {
        platform.publish(0, number).await;
        platform.publish(2, number + 3).await;
    }
    let heirs = members.map(|member| platform.session(0, member).or_else(|| platform.session(2, member)));
    let depths = heirs.map(|heir| heir.expect("somebody has taken it").depth());
    let waiting: usize = depths.iter().map(|(waiting, _)| waiting).sum();
    assert_eq!(waiting, 12, "each message once: {depths:?}");
    assert!(depths.iter().all(|(waiting, _)| *waiting > 1), "nodes and their members take turns: {depths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_no_further_with_its_sessions_gives_up_where_others_wait_for_it() {
    let database = Arc::<Database>::default();
    let platform = Platform::over(database.clone(), None).await;
    database.is_away.store(true, Ordering::Relaxed);
    let (stuck, began) = (Duration::from_millis(STUCK_MS), Instant::now());
    let told = AtomicU64::new(0);
    let tell = |_: &RestoreError| {
        told.fetch_add(1, Ordering::Relaxed);
    };
    let error = platform.nodes[0].restore_all(tell).await.expect_err("they wait for it");
    assert!(error.may_pass() && told.load(Ordering::Relaxed) > 10, "{error}");
    assert!(began.elapsed() >= stuck && began.elapsed() < 2 * stuck, "{:?}", began.elapsed());

    // Nobody hears of this one, so that nobody waits for it.
    platform.cut(1, true);
    while platform.nodes[1].peers.any_is_there() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let waiting = tokio::time::timeout(3 * stuck, platform.nodes[1].restore_all(|_| ()));
    assert!(waiting.await.is_err(), "it has given up");
    database.is_away.store(false, Ordering::Relaxed);
    assert_eq!(platform.nodes[1].restore_all(|_| ()).await.expect("it is there again"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_read_holds_the_others_up_for_a_while_only() {
    let database = Arc::<Database>::default();
    let platform = Platform::over(database.clone(), None).await;
    // More than one of them for each heir.
    let clients: Vec<String> = (0..20).map(|n| format!("c-{n}")).collect();
    for client in &clients {
        let attached = platform.connect(1, client, None).await;
        platform.subscribe(1, &attached, "t").await;
        platform.leave(1, &attached);
    }
    platform.publish(0, 1).await;
    let broken = "c-7";
    *database.unreadable.lock().expect("no panic") = Some(key(broken));
    platform.cut(1, true);
    let (held_up, began) = (Duration::from_millis(HELD_UP_MS), Instant::now());
    platform.publish(0, 2).await;
    assert!(began.elapsed() >= held_up && began.elapsed() < 2 * held_up, "{:?}", began.elapsed());
    let depths = |client: &str| [0, 2].map(|node| platform.session(node, client).map(|session| session.depth()));
    for client in clients.iter().filter(|client| *client != broken) {
        let depths = depths(client.as_str());
        assert!(depths.contains(&Some((2, 0))) && depths.contains(&None), "{client}: {depths:?}");
    }
    assert_eq!(depths(broken), [None, None]);

    // It is left as it is, and its client finds it when it can be read.
    *database.unreadable.lock().expect("no panic") = None;
    let attached = platform.connect(2, broken, None).await;
    assert!(attached.present);
    assert_eq!(attached.session.depth(), (1, 0), "what was kept before its node was gone");
    platform.publish(0, 3).await;
    assert_eq!(attached.session.depth(), (2, 0));
}
