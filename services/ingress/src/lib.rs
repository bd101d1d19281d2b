//! MQTT, HTTP and CoAP in, log out; and back to the subscribers of this node.
//!
//! Opens the adapters, builds the node, starts the servers, and drains them. All decisions are in [`domain`].

mod adapters;
pub mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod domain;
pub mod ports;
mod server;
pub mod telemetry;
mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Ready, Service, Shutdown, Tls, grpc};
use tokio_util::task::TaskTracker;

pub use adapters::owners::Scylla;
#[cfg(feature = "conformance")]
pub use adapters::{embedded, scylla};
#[cfg(any(test, feature = "conformance"))]
pub use adapters::{
    memory,
    owners::{Embedded as SoleOwner, NodeOwners, SharedOwners},
};

use adapters::changes::{self, Freshness};
use adapters::functions::RegisteredFunctions;
use adapters::keys::RegisteredKeys;
use adapters::owners::Opened;
use adapters::registry::Registry;
use adapters::stores::Stores;
use adapters::{alive, events, peers};
use config::{IngressConfig, MQTT, MQTTS};
use domain::connection::Environment;
use domain::journal::Journal;
use domain::node::{Node, NodePorts};
use domain::peers::Peers;
use domain::presence::Reports;
use domain::quotas::Quotas;
use domain::restore::RestoreError;
use domain::reverify;
use domain::sessions::Sessions;
use ports::sessions::SessionStore;
use ports::{Keys, OwnHeir, Owners, RetainedStore};
use server::coap::Coap;
use server::http::DeviceHttp;
use server::loops::{Listening, Loops, PIPE_PEER, Pace, Setup};
use telemetry::Telemetry;

/// How often sessions and wills are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How often retained messages whose time is over are removed, until when they are only not sent, and sessions of long
/// connections are written anew where that is due.
const SWEEP: Duration = Duration::from_secs(60);

/// The ingress service.
pub struct Ingress;

#[async_trait]
impl Service for Ingress {
    const NAME: &'static str = "ingress";
    type Config = IngressConfig;
    const NEEDS: &'static [&'static str] = &["registry"];

    async fn run(config: IngressConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let boot = adapters::boot::next(&ports.data).context("boot number")?;
        let owners = Opened::new(&config.owners, &config.node, boot, &ports);
        let stores = Stores::new(&config, &ports)?;
        Box::pin(run_with(config, ports, shutdown, Backing { boot, owners, stores })).await
    }
}

/// What a node keeps and shares with others, and the number of its start.
#[doc(hidden)]
pub struct Backing {
    boot: u32,
    owners: Opened,
    stores: Stores,
}

impl Backing {
    /// Of stores and owners that are open.
    pub fn of(
        boot: u32,
        owners: Arc<dyn Owners>,
        retained: Arc<dyn RetainedStore>,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        Self { boot, owners: Opened::already(owners), stores: Stores::already(retained, sessions) }
    }
}

/// [`Ingress::run`] over what somebody else has opened.
#[doc(hidden)]
pub async fn run_with(config: IngressConfig, ports: Ports, shutdown: Shutdown, backing: Backing) -> anyhow::Result<()> {
    let tls = Tls::open(&config.tls)?;
    let balancers = config.balancers()?;
    let Backing { boot, owners, stores } = backing;
    let fresh = Arc::<Freshness>::default();
    let node = node(&config, &ports, boot, fresh.clone(), &owners, &stores);
    let listening = listening(&config, &ports, tls.clone())?;
    let loops = OnceLock::new();
    let patience = config.timeouts.authenticate.as_std();
    let functions = Arc::new(RegisteredFunctions::new(&ports.network, ports.functions.clone(), patience));
    let device_http = DeviceHttp::new(node.clone(), functions, &config, balancers.clone(), tls.as_ref(), &ports)?;
    let keys: Arc<dyn Keys> = Arc::new(RegisteredKeys::new(&ports.network, patience));
    let coap = Coap::new(&node, &keys, &config, &ports, boot)?;

    let (datagrams, background) = (TaskTracker::new(), TaskTracker::new());
    let (stop, last, calls) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
    // Whatever has still to end may wait for the store.
    let keeping = tokio::spawn(keep(node.clone(), last.clone()));
    let work = Work { node: node.clone(), fresh, name: config.node.clone(), boot, ports: ports.clone() };
    work.start(&background, &stop);
    background.spawn(follow(tls, stop.clone()));
    let routes = server::grpc::routes(node.clone(), boot);
    let mut serving = tokio::spawn(serve(routes, ports.clone(), calls.clone(), shutdown.clone()));
    let accepting = async {
        // What earlier connections have subscribed to is routed by before anything is published here.
        let opened = shutdown.run_until_cancelled(Box::pin(open(&node, owners, stores, &ports.ready))).await;
        let Some(opened) = opened else { return anyhow::Ok(()) };
        opened?;
        let started = Loops::start(Setup {
            node: node.clone(),
            timeouts: config.timeouts.clone(),
            connections_max: config.limits.connections,
            listening,
            balancers,
            websockets: device_http.is_wanted(),
            pipes: (ports.network.listen(MQTT), config.anonymous.at(PIPE_PEER)),
            shutdown: shutdown.clone(),
        })?;
        background.spawn(device_http.serve(started.entrance(), shutdown.clone()));
        datagrams.spawn(coap.serve(shutdown.clone()));
        // They are started once.
        loops.set(started).ok();
        ports.ready.ready();
        shutdown.cancelled().await;
        Ok(())
    };
    let accepted = Box::pin(accepting).await;
    ports.ready.waiting("draining");
    shutdown.cancel(); // also when it has failed: nothing goes on without it
    let pace = Pace { closes: config.quotas.closes, patience: config.timeouts.drain.as_std() };
    let ended = loops.get().map(|loops| loops.drain(pace));
    let drained = tokio::time::timeout(config.timeouts.drain.as_std(), async {
        if let Some(ended) = ended {
            ended.await;
        }
        datagrams.close();
        datagrams.wait().await; // observers are connections, too
        // Until then peers have sent what those who are still connected want, and taken sessions over.
        calls.cancel();
        let served = (&mut serving).await;
        node.finish_tasks().await;
        stop.cancel();
        background.close();
        background.wait().await;
        served
    });
    let served = drained.await;
    if served.is_err() {
        stop.cancel();
        calls.cancel();
        serving.abort();
        let deadline = config.timeouts.drain;
        tracing::warn!(%deadline, "connections or messages were left when the time to drain was over");
    }
    let failed = match loops.into_inner() {
        Some(loops) => loops.end().await, // no connection is driven on while its session ends
        None => false,
    };
    last.cancel();
    keeping.await.context("sessions")?;
    node.stop();
    accepted?;
    if let Ok(served) = served {
        served.context("calls")??;
    }
    anyhow::ensure!(!failed, "a loop of connections has failed");
    Ok(())
}

/// Answers the calls of other nodes and services until `calls` is cancelled. When that fails, the node stops.
async fn serve(routes: grpc::Routes, ports: Ports, calls: Shutdown, shutdown: Shutdown) -> anyhow::Result<()> {
    let served = grpc::serve(routes, Ingress::NAME, &ports.sockets, &ports.network, calls).await;
    shutdown.cancel();
    Ok(served?)
}

/// The bound sockets, each with what it speaks.
fn listening(config: &IngressConfig, ports: &Ports, tls: Option<Arc<Tls>>) -> anyhow::Result<Vec<Listening>> {
    let mut all = Vec::new();
    for (name, tls) in [(MQTT, None), (MQTTS, tls)] {
        for listener in ports.sockets.take_tcp(name)? {
            let anonymous = config.anonymous.at(listener.local_addr()?);
            all.push(Listening { listener: listener.into_std()?, tls: tls.clone(), anonymous });
        }
    }
    Ok(all)
}

async fn follow(tls: Option<Arc<Tls>>, stop: Shutdown) {
    if let Some(tls) = tls {
        stop.run_until_cancelled(tls.follow()).await;
    }
}

/// What a node does besides serving.
struct Work {
    node: Arc<Node>,
    fresh: Arc<Freshness>,
    name: String,
    boot: u32,
    ports: Ports,
}

impl Work {
    /// Starts all of it; each part ends with `stop`.
    fn start(self, background: &TaskTracker, stop: &Shutdown) {
        let Self { node, fresh, name, boot, ports } = self;
        if alive::is_awaited(&ports.network) {
            background.spawn(alive::tell(ports.bus, ports.clock, name.clone(), boot, stop.clone()));
        }
        background.spawn(report(node.clone(), name, boot, stop.clone()));
        background.spawn(changes::follow(node.clone(), fresh, stop.clone()));
        background.spawn(events::follow(node.clone(), stop.clone()));
        background.spawn(reverify::run(node.clone(), stop.clone()));
        background.spawn(talk(node.clone(), stop.clone()));
        background.spawn(place(node.clone(), stop.clone()));
        background.spawn(sweep(node.clone(), stop.clone()));
        background.spawn(tick(node, stop.clone()));
    }
}

async fn report(node: Arc<Node>, name: String, boot: u32, stop: Shutdown) {
    node.reports.run(node.bus.clone(), node.clock.clone(), &name, boot, stop).await;
}

async fn keep(node: Arc<Node>, stop: Shutdown) {
    stop.run_until_cancelled(node.journal.run(&node.telemetry)).await;
}

async fn talk(node: Arc<Node>, stop: Shutdown) {
    let heir = node.journal.store().is_shared().then_some(&node as &dyn OwnHeir);
    node.peers.run(heir, &node.telemetry, stop).await;
}

async fn place(node: Arc<Node>, stop: Shutdown) {
    stop.run_until_cancelled(node.place_again()).await;
}

/// Returns when the databases are there, and what they have of before is taken back. Other nodes know of this one between the
/// two: so none takes what this one is about to take, and whoever subscribes here gets what they log.
async fn open(node: &Arc<Node>, owners: Opened, stores: Stores, ready: &Ready) -> anyhow::Result<()> {
    owners.open(ready).await?;
    stores.open(ready).await?;
    node.peers.admit();
    node.peers.greeted().await;
    let waiting = |why: &RestoreError| ready.waiting(why.to_string());
    let count = node.restore_all(waiting).await.context("sessions of before")?;
    if count > 0 {
        tracing::info!(count, "sessions of before taken back");
    }
    node.peers.opened();
    Ok(())
}

fn node(
    config: &IngressConfig,
    ports: &Ports,
    boot: u32,
    fresh: Arc<Freshness>,
    owners: &Opened,
    stores: &Stores,
) -> Arc<Node> {
    let timeouts = &config.timeouts;
    let (deadline, keep) = (timeouts.authenticate.as_std(), timeouts.identity_cache.as_std());
    let telemetry = Telemetry::new(&ports.metrics);
    let questions = telemetry.registry_questions();
    let registry = Registry::new(&ports.network, deadline, keep, fresh, ports.clock.clone(), questions);
    let started = tokio::time::Instant::now();
    let node_ports = NodePorts {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        random: ports.random.clone(),
        authenticator: Arc::new(registry),
        owners: owners.owners.clone(),
        ownership_patience: timeouts.ownership.as_std(),
        peers: Peers::new(&config.node, peers::links(&ports.network, &config.node, boot), started).starting().closed(),
        retained: stores.retained.clone(),
        journal: Arc::new(Journal::new(stores.sessions.clone(), ports.clock.clone())),
        started,
    };
    let environment = Environment {
        limits: config.connection_limits(),
        random: ports.random.clone(),
        methods: Vec::new(),
        quotas: Quotas::new(config.quotas.rates()),
    };
    let sessions = Sessions::new(config.limits.persistent_sessions).within(config.quotas.connections());
    let mut node = Node::new(node_ports, environment, sessions, telemetry);
    node.reports = Reports::of(config.limits.connections);
    Arc::new(node)
}

async fn tick(node: Arc<Node>, stop: Shutdown) {
    let mut ticks = tokio::time::interval(TICK);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        node.tick();
    }
}

async fn sweep(node: Arc<Node>, stop: Shutdown) {
    let mut renewed_ms = node.now().unix_ms;
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        node.sweep_retained().await;
        node.sessions.refresh();
        let now_ms = node.now().unix_ms;
        stop.run_until_cancelled(node.renew_owners(renewed_ms, now_ms)).await;
        renewed_ms = now_ms;
    }
}
