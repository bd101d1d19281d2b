//! CoAP for devices: `POST /t/{topic}` publishes, `GET /t/{filter}` with Observe subscribes, `GET /t/{topic}` reads what is
//! retained. The same identity, policy, limits and log as by HTTP; an answer of 2.04 says that the message is durable.
//!
//! Server layer: datagrams in and out, as they are or over DTLS. What a message means is in `domain/coap`, what it does in
//! [`requests`].

mod dtls;
mod ear;
mod endpoint;
mod observer;
mod observers;
mod requests;
mod telemetry;
mod transport;

use std::sync::Arc;

use anyhow::Context as _;
use drover_host::{Ports, Shutdown};

use crate::config::{COAP, COAPS, IngressConfig};
use crate::domain::node::Node;
use crate::ports::Keys;
use dtls::{Bounds, Dtls};
use endpoint::{Endpoint, Setup};
use observers::Observers;
use telemetry::Telemetry;
use transport::Transport;

/// CoAP on all its sockets, ready to be served.
pub struct Coap(Vec<Arc<Endpoint>>);

impl Coap {
    /// Takes the sockets. `boot` tells this start of the node from all others; `keys` says which keys devices have.
    pub fn new(
        node: &Arc<Node>,
        keys: &Arc<dyn Keys>,
        config: &IngressConfig,
        ports: &Ports,
        boot: u32,
    ) -> anyhow::Result<Self> {
        let (plain, secured) = (ports.sockets.take_udp(COAP)?, ports.sockets.take_udp(COAPS)?);
        if plain.is_empty() && secured.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let setup = Setup {
            node: node.clone(),
            patience: config.coap.request.as_std(),
            boot: u64::from(boot),
            observers: Arc::new(Observers::new(config.coap.observers)),
            telemetry: Arc::new(Telemetry::new(&ports.metrics)),
        };
        let bounds = Bounds { associations: config.coaps.associations, idle: config.coaps.idle.as_std() };
        let mut transports: Vec<Transport> = plain.into_iter().map(Transport::Plain).collect();
        for socket in secured {
            let dtls = Dtls::new(socket, bounds, setup.telemetry.clone()).context("DTLS")?;
            transports.push(Transport::Secured(Box::new(dtls), keys.clone()));
        }
        let endpoint = |transport| Arc::new(Endpoint::new(setup.clone(), transport));
        Ok(Self(transports.into_iter().map(endpoint).collect()))
    }

    /// Serves until `shutdown`, then until what is under way is answered and the observers are told.
    pub async fn serve(self, shutdown: Shutdown) {
        futures::future::join_all(self.0.into_iter().map(|endpoint| endpoint.serve(shutdown.clone()))).await;
    }
}
