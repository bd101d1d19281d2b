//! `[ingress.quotas]`: what one device and one tenant may do on this node, and how fast clients may come and go.

use serde::{Deserialize, Serialize};

use crate::domain::bucket::Rate;
use crate::domain::quotas::Rates;
use crate::domain::sessions::ConnectionQuotas;

/// `[ingress.quotas]`: each is of one node, so that several nodes together allow as many times that; 0: any. Of what is
/// so many a second, what comes in one second may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotasConfig {
    /// Messages of one device a second, by whatever protocol. Beyond it QoS 1 and 2 of MQTT 5 are answered with 0x97, HTTP
    /// with 429, CoAP with 4.29; a client of MQTT 3.1.1, and QoS 0, is not read until its time has come.
    pub device_messages: u32,
    /// The same for all devices of a tenant.
    pub tenant_messages: u32,
    /// Connections of one device: it has several where its policies allow it other client ids. More are answered with 0x97.
    pub device_connections: u32,
    /// Connections of one tenant.
    pub tenant_connections: u32,
    /// CONNECTs a second. More are answered with 0x9F, and nobody is asked about them.
    pub connects: u32,
    /// Connections closed a second when the node stops; what is left when nine tenths of `ingress.timeouts.drain` are over
    /// is closed at once.
    pub closes: u32,
}

impl QuotasConfig {
    pub fn rates(&self) -> Rates {
        Rates {
            device_messages: Rate::new(self.device_messages),
            tenant_messages: Rate::new(self.tenant_messages),
            connects: Rate::new(self.connects),
        }
    }

    pub fn connections(&self) -> ConnectionQuotas {
        ConnectionQuotas { device: self.device_connections, tenant: self.tenant_connections }
    }
}
