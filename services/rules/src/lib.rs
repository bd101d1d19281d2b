//! SQL over the log, exactly once into topics.
//!
//! [`Rules`] runs four loops over the Bus port: the feed of rule definitions, the engine (telemetry in, outputs and
//! offsets out in one transaction), and two over the outbox, at least once: `republish`, and all other actions that are
//! not Kafka outputs; two more follow what rules look up, where rules do. What rules make of a record is decided in
//! `domain`, synchronously; the loops only read, commit and wait.

mod actions;
mod append;
mod config;
mod domain;
mod engine;
mod feed;
mod follow;
mod functions;
mod lag;
mod mail;
mod outbox;
mod platform;
mod replay;
mod restore;
mod server;
mod telemetry;
mod topics;
mod turns;
mod webhook;

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, grpc};
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::rules::v1::rules_server::RulesServer;
use drover_proto::shadow::v1::commands_client::CommandsClient;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::storage::v1::storage_client::StorageClient;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use actions::{ACTIONS_GROUP, ClusterConfig};
pub use config::RulesConfig;
pub use domain::{ERRORS_TOPIC, OUTBOX_TOPIC, RETRY_TOPIC, STATE_TOPIC};
pub use engine::GROUP;
pub use feed::CHANGES_TOPIC;
pub use mail::{SmtpConfig, SmtpTls};
pub use outbox::OUTBOX_GROUP;

use crate::actions::{Actions, Carrier, Clusters};
use crate::domain::{Board, InForce, Views};
use crate::engine::Engine;
use crate::feed::Feed;
use crate::follow::Follow;
use crate::functions::Functions;
use crate::lag::Lag;
use crate::mail::Mailer;
use crate::outbox::Outbox;
use crate::replay::Replayer;
use crate::telemetry::Telemetry;
use crate::turns::Turns;
use crate::webhook::{InternalHosts, Secrets, Webhooks};

/// The rules service.
pub struct Rules;

#[async_trait]
impl Service for Rules {
    const NAME: &'static str = "rules";
    type Config = RulesConfig;

    async fn run(config: RulesConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let board = Arc::new(Board::default());
        let telemetry = ports.metrics.register(Telemetry::register);
        let (known, lag) = watch::channel(None);
        let (replaying, replayer) = watch::channel(None);
        let in_force = Arc::new(InForce::default());
        let server = server::Server { board: board.clone(), in_force: in_force.clone(), lag, replayer };
        let routes = grpc::Routes::new(RulesServer::new(server));
        let (sockets, network) = (ports.sockets.clone(), ports.network.clone());
        let serving = async {
            grpc::serve(routes, Self::NAME, &sockets, &network, shutdown.clone()).await?;
            anyhow::Ok(())
        };
        let told = Told { board, in_force, lag: known, replayer: replaying };
        tokio::try_join!(serving, work(config, ports, told, telemetry, shutdown.clone()))?;
        Ok(())
    }
}

/// What the server is told by the loops.
struct Told {
    board: Arc<Board>,
    in_force: Arc<InForce>,
    lag: watch::Sender<Option<Lag>>,
    replayer: watch::Sender<Option<Arc<Replayer>>>,
}

/// The loops, once the topics they live on are there.
async fn work(
    config: RulesConfig,
    ports: Ports,
    told: Told,
    telemetry: Telemetry,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let Told { board, in_force, lag, replayer } = told;
    if topics::prepare(&ports, &config, &shutdown).await?.is_none() {
        return Ok(());
    }
    let views = Arc::new(Views::default());
    // Ends with this function, if not before.
    let mut following = JoinSet::new();
    for follow in [Follow::devices, Follow::shadows] {
        let follow = follow(ports.bus.clone(), views.clone(), telemetry.clone());
        following.spawn(follow.run(shutdown.clone()));
    }
    let internal = InternalHosts::new(config.internal_hosts.clone());
    let webhooks = Webhooks::new(internal.clone(), config.webhook_ca.as_deref())?;
    let mailer = config.smtp.as_ref().map(Mailer::new).transpose()?;
    let clusters = Arc::new(Clusters::open(&config.clusters)?);
    let (bus, clock, outside) = (ports.bus.clone(), ports.clock.clone(), (internal, clusters.clone()));
    let feed = Feed::new(bus, clock, board.clone(), views.clone(), &config, outside);
    let Some(mut tails) = feed.start(&ports.ready, &shutdown).await else { return Ok(()) };
    replayer.send_replace(Some(Arc::new(Replayer {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        rules: feed.rules(),
        functions: Functions::new(ports.functions.apart(), telemetry.clone()),
        views: views.clone(),
        board: board.clone(),
        window: tokio::sync::Mutex::default(),
    })));
    let engine = Engine {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        rules: feed.rules(),
        board: board.clone(),
        in_force,
        functions: Functions::new(ports.functions.apart(), telemetry.clone()),
        views: views.clone(),
        telemetry: telemetry.clone(),
        ready: ports.ready.clone(),
        member: config.member.clone(),
        missing: feed.missing(),
    };
    tails.spawn(crate::lag::watch(ports.bus.clone(), ports.clock.clone(), telemetry.clone(), lag, shutdown.clone()));
    let outbox = Outbox {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        ingress: IngressClient::new(ports.network.client("ingress")),
        member: config.member.clone(),
        rules: feed.rules(),
        views: views.clone(),
        board: board.clone(),
        telemetry: telemetry.clone(),
    };
    let carrier = Carrier {
        webhooks,
        mailer,
        secrets: Secrets::new(config.secrets.unwrap_or_else(|| ports.data.join("secrets"))),
        clusters,
        shadow: ShadowClient::new(ports.network.client("shadow")),
        commands: CommandsClient::new(ports.network.client("shadow")),
        storage: StorageClient::new(ports.network.client("storage")),
        ingress: IngressClient::new(ports.network.client("ingress")),
        functions: Arc::new(Functions::new(ports.functions.apart(), telemetry.clone())),
        calls: Turns::default(),
        rules: feed.rules(),
        clock: ports.clock.clone(),
    };
    let actions = Actions {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        random: ports.random.clone(),
        member: config.member,
        carrier: Arc::new(carrier),
        rules: feed.rules(),
        views,
        board,
        telemetry,
    };
    tails.spawn(engine.run(shutdown.clone()));
    let stop = shutdown.clone();
    tails.spawn(async move {
        outbox.run(stop).await;
        Ok(())
    });
    tails.spawn(async move {
        actions.run(shutdown).await;
        Ok(())
    });
    while let Some(ended) = tails.join_next().await {
        ended.context("a loop of the rules service panicked")??;
    }
    Ok(())
}
