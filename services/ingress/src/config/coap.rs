//! `[ingress.coap]`: messages by CoAP.

use std::net::SocketAddr;

use drover_host::Duration;
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

use super::loopback;

/// Name of the socket for CoAP over UDP.
pub const COAP: &str = "coap";
/// Most devices that may be configured to observe.
const OBSERVERS_MAX: usize = 100_000;

/// `[ingress.coap]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoapConfig {
    /// Addresses, UDP; none: no CoAP. On a machine of several addresses name them: answers to a wildcard may leave by another.
    pub listen: Vec<SocketAddr>,
    /// Devices that observe at once; 0 to 100,000.
    pub observers: usize,
    /// How long a message may take to become durable.
    pub request: Duration,
}

impl Default for CoapConfig {
    fn default() -> Self {
        Self { listen: loopback(5683), observers: 1_000, request: Duration::from_secs(30) }
    }
}

impl CoapConfig {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        in_range("ingress.coap.observers", self.observers, 0, OBSERVERS_MAX)
    }
}
