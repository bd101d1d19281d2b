//! `[ingress.coaps]`: messages by CoAP over DTLS, from devices with a pre-shared key.

use std::net::SocketAddr;

use drover_host::Duration;
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

use super::loopback;

/// Name of the socket for CoAP over DTLS.
pub const COAPS: &str = "coaps";
/// Most associations that may be configured.
const ASSOCIATIONS_MAX: usize = 100_000;
/// How long a silent association may be kept, at least and at most.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));

/// `[ingress.coaps]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoapsConfig {
    /// Addresses, UDP; none: no CoAP over DTLS. On a machine of several addresses name them.
    pub listen: Vec<SocketAddr>,
    /// Associations of each address at once, 1 to 100,000; for one more the longest silent one goes.
    pub associations: usize,
    /// An association that was silent for this long is closed; 1s to 7d.
    pub idle: Duration,
}

impl Default for CoapsConfig {
    fn default() -> Self {
        Self { listen: loopback(5684), associations: 10_000, idle: Duration::from_secs(3600) }
    }
}

impl CoapsConfig {
    pub(super) fn check(&self) -> Result<(), ApiError> {
        in_range("ingress.coaps.associations", self.associations, 1, ASSOCIATIONS_MAX)?;
        in_range("ingress.coaps.idle", self.idle, IDLE.0, IDLE.1)
    }
}
