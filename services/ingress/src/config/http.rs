//! `[ingress.http]`: messages by HTTP, and MQTT over WebSocket.

use std::net::SocketAddr;

use drover_host::Duration;
use drover_types::ApiError;
use serde::{Deserialize, Serialize};

use super::loopback;

/// Name of the socket for HTTP.
pub const HTTP: &str = "ingress.http";

/// `[ingress.http]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Addresses; none: no HTTP. Where the gateway of the same process has the same ones, it shares its listener.
    pub listen: Vec<SocketAddr>,
    /// Host names besides `localhost` and loopback addresses by which a loopback listener may be called.
    pub allowed_hosts: Vec<String>,
    /// Connections at once on a listener of its own; more wait to be accepted. 1 to 1,000,000. Those that have become a
    /// WebSocket count in `ingress.limits.connections` instead.
    pub connections: usize,
    /// How long a body may take to come, and a message to become durable.
    pub request: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: loopback(8080), allowed_hosts: Vec::new(), connections: 1_024, request: Duration::from_secs(30) }
    }
}

impl HttpConfig {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let connections = self.connections;
        if (1..=1_000_000).contains(&connections) {
            return Ok(());
        }
        Err(ApiError::invalid("ingress.http.connections", "out of range").over("1 to 1000000", connections))
    }
}
