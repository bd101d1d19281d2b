//! Accepts connections within a bound and ends them all at shutdown.
//!
//! Adapter layer: owns the sockets and the tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::embedded::EmbeddedBus;
use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::{ListenerConfig, ListenerError, Security};
use crate::connection;
use crate::dispatch::{Listener, Peer};
use crate::groups;
use crate::metrics::Metrics;

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the Kafka protocol on `listeners` over `bus` until `shutdown` resolves; then every connection is closed.
/// What was acknowledged until then is durable.
///
/// Without authentication it refuses to start on an address off loopback, before accepting anything.
pub async fn serve(
    listeners: Vec<TcpListener>,
    bus: EmbeddedBus,
    config: ListenerConfig,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ListenerError> {
    check_addresses(&listeners, &config.security)?;
    let shared = Arc::new(Listener::new(bus, config, metrics));
    let mut connections = JoinSet::new();
    tokio::select! {
        () = shutdown => {}
        () = shared.coordinator.run() => {}
        () = groups::expire(&shared) => {}
        () = accept_all(&listeners, &shared, &mut connections) => {}
    }
    connections.shutdown().await;
    Ok(())
}

fn check_addresses(listeners: &[TcpListener], security: &Security) -> Result<(), ListenerError> {
    if listeners.is_empty() {
        return Err(ListenerError::NoSocket);
    }
    for listener in listeners {
        let address = listener.local_addr().map_err(ListenerError::Address)?;
        match security {
            Security::Plaintext if !address.ip().to_canonical().is_loopback() => {
                return Err(ListenerError::NotLoopback { address });
            }
            Security::Plaintext | Security::SaslSsl(_) => {}
        }
        tracing::info!(%address, "kafka listener bound");
    }
    Ok(())
}

async fn accept_all(listeners: &[TcpListener], shared: &Arc<Listener>, connections: &mut JoinSet<()>) {
    loop {
        let accepts: Vec<BoxFuture<'_, _>> = listeners.iter().map(|l| l.accept().boxed()).collect();
        let (accepted, ..) = select_all(accepts).await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, remote)) if connections.len() >= shared.config.connections_max => {
                drop(stream);
                shared.metrics.connections_refused.inc();
                tracing::warn!(%remote, limit = shared.config.connections_max, "kafka connection refused: too many");
            }
            Ok((stream, _)) => admit(stream, shared, connections),
            Err(error) => {
                tracing::warn!(%error, "kafka connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(stream: TcpStream, shared: &Arc<Listener>, connections: &mut JoinSet<()>) {
    match Peer::of(&stream, &shared.config) {
        Ok(peer) => {
            connections.spawn(connection::run(stream, peer, shared.clone()));
        }
        Err(error) => tracing::debug!(%error, "kafka connection ended before it began"),
    }
}
