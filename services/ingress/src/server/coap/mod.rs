//! CoAP for devices: `POST /t/{topic}` publishes, `GET /t/{filter}` with Observe subscribes, `GET /t/{topic}` reads what is
//! retained. The same identity, policy, limits and log as by HTTP; an answer of 2.04 says that the message is durable.
//!
//! Server layer: datagrams in and out. What a message means is in `domain/coap`, what it does in [`requests`].

mod ear;
mod endpoint;
mod observer;
mod observers;
mod requests;
mod telemetry;

use std::sync::Arc;

use drover_host::{Ports, Shutdown};

use crate::config::{COAP, IngressConfig};
use crate::domain::node::Node;
use endpoint::{Endpoint, Setup};
use observers::Observers;
use telemetry::Telemetry;

/// CoAP on all its sockets, ready to be served.
pub struct Coap(Vec<Arc<Endpoint>>);

impl Coap {
    /// Takes the sockets. `boot` tells this start of the node from all others.
    pub fn new(node: &Arc<Node>, config: &IngressConfig, ports: &Ports, boot: u32) -> std::io::Result<Self> {
        let sockets = ports.sockets.take_udp(COAP)?;
        if sockets.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let setup = Setup {
            node: node.clone(),
            patience: config.coap.request.as_std(),
            boot: u64::from(boot),
            observers: Arc::new(Observers::new(config.coap.observers)),
            telemetry: Arc::new(Telemetry::new(&ports.metrics)),
        };
        Ok(Self(sockets.into_iter().map(|socket| Arc::new(Endpoint::new(setup.clone(), socket))).collect()))
    }

    /// Serves until `shutdown`, then until what is under way is answered and the observers are told.
    pub async fn serve(self, shutdown: Shutdown) {
        futures::future::join_all(self.0.into_iter().map(|endpoint| endpoint.serve(shutdown.clone()))).await;
    }
}
