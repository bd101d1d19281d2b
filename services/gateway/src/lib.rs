//! REST and live streams over the services.
//!
//! Service crate: no state of its own. `server` decodes, asks the registry, the rules service or the log, and encodes;
//! `domain` knows the declared shape of objects and what a live stream shows.

mod config;
pub mod domain;
mod server;
mod telemetry;

use std::io;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, Tls};
use tokio::task::JoinSet;

pub use config::GatewayConfig;
pub use domain::declared;
pub use server::routes::openapi_json;

/// The service.
pub struct Gateway;

#[async_trait]
impl Service for Gateway {
    const NAME: &'static str = "gateway";
    type Config = GatewayConfig;
    const NEEDS: &'static [&'static str] = &["registry"];

    async fn run(config: GatewayConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let (plain, secure) = (ports.sockets.take_tcp(config::HTTP)?, ports.sockets.take_tcp(config::HTTPS)?);
        // Without a listener nobody looks at the files, which need not be there.
        let tls = if secure.is_empty() { None } else { Tls::open(&config.tls)? };
        let token = ports.network.admin_token().context("the gateway needs the administrator's token")?;
        anyhow::ensure!(!token.matches(""), "the administrator's token is empty");
        let api = Arc::new(server::Api::new(config, &ports, token, shutdown.clone()));
        let mut servers = JoinSet::new();
        for listener in plain {
            servers.spawn(server::serve(listener, None, api.clone(), shutdown.clone()));
        }
        if let Some(tls) = tls {
            for listener in secure {
                servers.spawn(server::serve(listener, Some(tls.clone()), api.clone(), shutdown.clone()));
            }
            servers.spawn(follow(tls, shutdown.clone()));
        }
        ports.ready.ready();
        shutdown.cancelled().await;
        ports.ready.waiting("draining");
        while let Some(served) = servers.join_next().await {
            served.context("an HTTP server panicked")??;
        }
        Ok(())
    }
}

/// Reads certificates again that have changed.
async fn follow(tls: Arc<Tls>, shutdown: Shutdown) -> io::Result<()> {
    shutdown.run_until_cancelled(tls.follow()).await;
    Ok(())
}
