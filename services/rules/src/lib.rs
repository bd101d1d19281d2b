//! SQL over the log, exactly once into topics.
//!
//! [`Rules`] runs three loops over the Bus port: the feed of rule definitions, the engine (telemetry in, outputs and
//! offsets out in one transaction) and the outbox (actions that are not Kafka outputs, at least once); two more follow
//! what rules look up, where rules do. What rules make of a record is decided in `domain`, synchronously; the loops only
//! read, commit and wait.

mod config;
mod domain;
mod engine;
mod feed;
mod follow;
mod functions;
mod lag;
mod outbox;
mod restore;
mod server;
mod telemetry;
mod topics;

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, grpc};
use drover_proto::rules::v1::rules_server::RulesServer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use config::RulesConfig;
pub use domain::{ERRORS_TOPIC, OUTBOX_TOPIC, STATE_TOPIC};
pub use engine::GROUP;
pub use feed::CHANGES_TOPIC;
pub use outbox::OUTBOX_GROUP;

use crate::domain::{Board, Views};
use crate::engine::Engine;
use crate::feed::Feed;
use crate::follow::Follow;
use crate::functions::Functions;
use crate::lag::Lag;
use crate::outbox::Outbox;
use crate::telemetry::Telemetry;

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
        let server = server::Server { board: board.clone(), lag };
        let routes = Routes::new(RulesServer::new(server));
        let (sockets, network) = (ports.sockets.clone(), ports.network.clone());
        let serving = async {
            grpc::serve(routes, Self::NAME, &sockets, &network, shutdown.clone()).await?;
            anyhow::Ok(())
        };
        tokio::try_join!(serving, work(config, ports, board, telemetry, known, shutdown.clone()))?;
        Ok(())
    }
}

/// The three loops, once the topics they live on are there.
async fn work(
    config: RulesConfig,
    ports: Ports,
    board: Arc<Board>,
    telemetry: Telemetry,
    known: watch::Sender<Option<Lag>>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    if topics::prepare(&ports, &config, &shutdown).await.is_none() {
        return Ok(());
    }
    let views = Arc::new(Views::default());
    // Ends with this function, if not before.
    let mut following = JoinSet::new();
    for follow in [Follow::devices, Follow::shadows] {
        let follow = follow(ports.bus.clone(), views.clone(), telemetry.clone());
        following.spawn(follow.run(shutdown.clone()));
    }
    let (bus, clock) = (ports.bus.clone(), ports.clock.clone());
    let feed = Feed::new(bus, clock, board.clone(), views.clone(), &config);
    let Some(mut tails) = feed.start(&ports.ready, &shutdown).await else { return Ok(()) };
    let engine = Engine {
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        rules: feed.rules(),
        board,
        functions: Functions::new(ports.functions.apart(), telemetry.clone()),
        views,
        telemetry: telemetry.clone(),
        ready: ports.ready.clone(),
        member: config.member.clone(),
        missing: feed.missing(),
    };
    tails.spawn(lag::watch(ports.bus.clone(), ports.clock.clone(), telemetry.clone(), known, shutdown.clone()));
    let outbox = Outbox::new(ports.bus.clone(), ports.network.client("ingress"), config.member, telemetry);
    tails.spawn(engine.run(shutdown.clone()));
    let stop = shutdown.clone();
    tails.spawn(async move {
        outbox.run(stop).await;
        Ok(())
    });
    while let Some(ended) = tails.join_next().await {
        ended.context("a loop of the rules service panicked")??;
    }
    Ok(())
}
