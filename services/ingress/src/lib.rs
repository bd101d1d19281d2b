//! MQTT in, log out; and back to the subscribers of this node.
//!
//! Opens the adapters, builds the node, starts the servers, and drains them. All decisions are in [`domain`].

mod adapters;
pub mod config;
pub mod domain;
pub mod ports;
mod server;
pub mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, grpc};
use tokio_util::task::TaskTracker;

use adapters::changes::{self, Freshness};
use adapters::events;
use adapters::registry::Registry;
use config::{IngressConfig, MQTT, MQTTS};
use domain::connection::Environment;
use domain::node::{Node, NodePorts};
use domain::reverify;
use domain::sessions::Sessions;
use server::http::DeviceHttp;
use server::loops::{Listening, Loops, PIPE_PEER, Setup};
use server::tls::Tls;
use telemetry::Telemetry;

/// How often sessions and wills are looked at.
const TICK: Duration = Duration::from_millis(500);

/// The ingress service.
pub struct Ingress;

/// Ways to break the ingress, so that the tests of its promises can show that they would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct IngressFaults {
    /// PUBACK before the message is durable (P1).
    pub ack_before_append: bool,
    /// The messages of one device go to several partitions (P2).
    pub scatter_devices: bool,
}

#[async_trait]
impl Service for Ingress {
    const NAME: &'static str = "ingress";
    type Config = IngressConfig;
    const NEEDS: &'static [&'static str] = &["registry"];

    async fn run(config: IngressConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        Self::run_with_faults(config, ports, shutdown, IngressFaults::default()).await
    }
}

impl Ingress {
    /// As [`Service::run`], broken on purpose.
    #[doc(hidden)]
    pub async fn run_with_faults(
        config: IngressConfig,
        ports: Ports,
        shutdown: Shutdown,
        faults: IngressFaults,
    ) -> anyhow::Result<()> {
        let tls = Tls::open(&config.tls)?;
        let boot = adapters::boot::next(&ports.data).context("boot number")?;
        let fresh = Arc::<Freshness>::default();
        let node = node(&config, &ports, boot, fresh.clone());
        let loops = Loops::start(Setup {
            node: node.clone(),
            timeouts: config.timeouts.clone(),
            connections_max: config.limits.connections,
            faults,
            listening: listening(&config, &ports, tls.clone())?,
            pipes: (ports.network.listen(MQTT), config.anonymous.at(PIPE_PEER)),
            shutdown: shutdown.clone(),
        })?;
        let device_http = DeviceHttp::new(node.clone(), &config.http, config.timeouts.drain.as_std(), &ports)?;

        let (background, stop) = (TaskTracker::new(), Shutdown::new());
        background.spawn(report(node.clone(), config.node.clone(), boot, stop.clone()));
        background.spawn(changes::follow(node.clone(), fresh, stop.clone()));
        background.spawn(events::follow(node.clone(), stop.clone()));
        background.spawn(reverify::run(node.clone(), stop.clone()));
        background.spawn(tick(node.clone(), stop.clone()));
        background.spawn(follow(tls, stop.clone()));
        background.spawn(device_http.serve(shutdown.clone()));
        ports.ready.ready();

        let routes = server::grpc::routes(node.clone());
        let served = grpc::serve(routes, Self::NAME, &ports.sockets, &ports.network, shutdown.clone()).await;
        ports.ready.waiting("draining");
        shutdown.cancel(); // also when the gRPC server has failed: nothing goes on without it
        let drained = tokio::time::timeout(config.timeouts.drain.as_std(), async {
            loops.drain().await;
            node.finish_wills().await;
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
        Ok(served?)
    }
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

async fn report(node: Arc<Node>, name: String, boot: u32, stop: Shutdown) {
    node.reports.run(node.bus.clone(), node.clock.clone(), &name, boot, stop).await;
}

fn node(config: &IngressConfig, ports: &Ports, boot: u32, fresh: Arc<Freshness>) -> Arc<Node> {
    let timeouts = &config.timeouts;
    let (deadline, keep) = (timeouts.authenticate.as_std(), timeouts.identity_cache.as_std());
    let registry = Registry::new(&ports.network, deadline, keep, fresh, ports.clock.clone());
    let node_ports = NodePorts {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        random: ports.random.clone(),
        authenticator: Arc::new(registry),
        started: tokio::time::Instant::now(),
    };
    let environment = Environment { limits: config.connection_limits(), random: ports.random.clone() };
    let sessions = Sessions::new(boot, config.limits.persistent_sessions);
    Arc::new(Node::new(node_ports, environment, sessions, Telemetry::new(&ports.metrics)))
}

async fn tick(node: Arc<Node>, stop: Shutdown) {
    let mut ticks = tokio::time::interval(TICK);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        node.tick();
    }
}
