//! MQTT in, log out; and back to the subscribers of this node.
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

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, grpc};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

pub use adapters::owners::Scylla;

use adapters::changes::{self, Freshness};
use adapters::embedded::Retained;
use adapters::functions::RegisteredFunctions;
use adapters::owners::Opened;
use adapters::registry::Registry;
use adapters::{alive, events, peers};
use config::{IngressConfig, MQTT, MQTTS};
use domain::connection::Environment;
use domain::node::{Node, NodePorts};
use domain::peers::Peers;
use domain::presence::Reports;
use domain::reverify;
use domain::sessions::Sessions;
use server::http::DeviceHttp;
use server::listener::{Listeners, Listening, PIPE_PEER};
use telemetry::Telemetry;

/// How often sessions and wills are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How often retained messages whose time is over are removed; until then they are only not sent.
const SWEEP: Duration = Duration::from_secs(60);

/// The ingress service.
pub struct Ingress;

#[async_trait]
impl Service for Ingress {
    const NAME: &'static str = "ingress";
    type Config = IngressConfig;
    const NEEDS: &'static [&'static str] = &["registry"];

    async fn run(config: IngressConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let tls = server::tls::acceptor(&config.tls)?;
        let boot = adapters::boot::next(&ports.data).context("boot number")?;
        let fresh = Arc::<Freshness>::default();
        let owners = Opened::new(&config.owners, &config.node, boot, &ports);
        let node = node(&config, &ports, boot, fresh.clone(), &owners)?;
        let listeners = Listeners::new(node.clone(), config.timeouts.clone(), config.limits.connections);
        let listening = listening(&config, &ports, tls)?;
        let patience = config.timeouts.authenticate.as_std();
        let functions = Arc::new(RegisteredFunctions::new(&ports.network, ports.functions.clone(), patience));
        let device_http = DeviceHttp::new(listeners.clone(), functions, &config, &ports)?;

        let (background, stop) = (TaskTracker::new(), Shutdown::new());
        let work = Work { node: node.clone(), fresh, name: config.node.clone(), boot, ports: ports.clone() };
        work.start(&background, &stop);
        let serving = async {
            let routes = server::grpc::routes(node.clone(), boot);
            grpc::serve(routes, Self::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
            anyhow::Ok(())
        };
        let accepting = async {
            // Whoever subscribes here gets what other nodes log: they have to know of this one first.
            let greeted = shutdown.run_until_cancelled(node.peers.greeted()).await;
            if greeted.is_none() {
                return anyhow::Ok(());
            }
            let pipes = ports.network.listen(MQTT);
            background.spawn(listeners.clone().accept_pipes(pipes, config.anonymous.at(PIPE_PEER), shutdown.clone()));
            background.spawn(device_http.serve(shutdown.clone()));
            for listening in listening {
                background.spawn(listeners.clone().accept(listening, shutdown.clone()));
            }
            if let Some(opened) = shutdown.run_until_cancelled(owners.open(&ports.ready)).await {
                opened?;
                ports.ready.ready();
            }
            Ok(())
        };
        let served = tokio::try_join!(serving, accepting);
        ports.ready.waiting("draining");
        shutdown.cancel(); // also when one of them has failed: nothing goes on without it
        let drained = tokio::time::timeout(config.timeouts.drain.as_std(), async {
            listeners.drain().await;
            node.release_wills().await;
            node.finish_tasks().await;
            stop.cancel();
            background.close();
            background.wait().await;
        });
        if drained.await.is_err() {
            stop.cancel();
            let deadline = config.timeouts.drain;
            tracing::warn!(%deadline, "connections or messages were left when the time to drain was over");
        }
        node.stop();
        served.map(drop)
    }
}

/// The bound sockets, each with what it speaks.
fn listening(config: &IngressConfig, ports: &Ports, tls: Option<TlsAcceptor>) -> anyhow::Result<Vec<Listening>> {
    let mut all = Vec::new();
    for (name, tls) in [(MQTT, None), (MQTTS, tls)] {
        for listener in ports.sockets.take_tcp(name)? {
            let anonymous = config.anonymous.at(listener.local_addr()?);
            all.push(Listening { listener, tls: tls.clone(), anonymous });
        }
    }
    Ok(all)
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
        background.spawn(sweep(node.clone(), stop.clone()));
        background.spawn(tick(node, stop.clone()));
    }
}

async fn report(node: Arc<Node>, name: String, boot: u32, stop: Shutdown) {
    node.reports.run(node.bus.clone(), node.clock.clone(), &name, boot, stop).await;
}

async fn talk(node: Arc<Node>, stop: Shutdown) {
    node.peers.run(&node.telemetry, stop).await;
}

fn node(
    config: &IngressConfig,
    ports: &Ports,
    boot: u32,
    fresh: Arc<Freshness>,
    owners: &Opened,
) -> anyhow::Result<Arc<Node>> {
    let timeouts = &config.timeouts;
    let (deadline, keep) = (timeouts.authenticate.as_std(), timeouts.identity_cache.as_std());
    let registry = Registry::new(&ports.network, deadline, keep, fresh, ports.clock.clone());
    let retained = Retained::open(&ports.data.join("store"), config.limits.retained_bounds()).context("store")?;
    let started = tokio::time::Instant::now();
    let node_ports = NodePorts {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        random: ports.random.clone(),
        authenticator: Arc::new(registry),
        owners: owners.owners.clone(),
        ownership_patience: timeouts.ownership.as_std(),
        peers: Peers::new(&config.node, peers::links(&ports.network, &config.node, boot), started),
        retained: Arc::new(retained),
        started,
    };
    let environment =
        Environment { limits: config.connection_limits(), random: ports.random.clone(), methods: Vec::new() };
    let sessions = Sessions::new(config.limits.persistent_sessions);
    let mut node = Node::new(node_ports, environment, sessions, Telemetry::new(&ports.metrics));
    node.reports = Reports::of(config.limits.connections);
    Ok(Arc::new(node))
}

async fn tick(node: Arc<Node>, stop: Shutdown) {
    let mut ticks = tokio::time::interval(TICK);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        node.tick();
    }
}

async fn sweep(node: Arc<Node>, stop: Shutdown) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
        node.sweep_retained().await;
    }
}
