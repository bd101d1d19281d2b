//! `[ingress.http]`: messages by HTTP, and MQTT over WebSocket.

use std::net::SocketAddr;

use drover_host::{ByteSize, Duration};
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

use super::loopback;

/// Name of the socket for HTTP.
pub const HTTP: &str = "ingress.http";
/// Name of the socket for HTTP over TLS.
pub const HTTPS: &str = "ingress.https";

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
    /// Rows of a `POST /v1/batch`; 1 to 100,000.
    pub batch_rows: usize,
    /// Its body; up to 256 MiB, and never in memory as a whole.
    pub batch_bytes: ByteSize,
}

/// What can be configured at most.
const BATCH_ROWS_MAX: usize = 100_000;
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            allowed_hosts: Vec::new(),
            connections: 1_024,
            request: Duration::from_secs(30),
            batch_rows: 10_000,
            batch_bytes: ByteSize::from_bytes(16 * 1024 * 1024),
        }
    }
}

impl HttpConfig {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let connections = self.connections;
        if !(1..=1_000_000).contains(&connections) {
            return Err(ApiError::invalid("ingress.http.connections", "out of range").over("1 to 1000000", connections));
        }
        in_range("ingress.http.batch_rows", self.batch_rows, 1, BATCH_ROWS_MAX)?;
        in_range("ingress.http.batch_bytes", self.batch_bytes.as_len(), 1, BATCH_BYTES_MAX)
    }
}
