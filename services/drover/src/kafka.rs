//! The section `kafka`: the Kafka-protocol listener over the embedded log.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::config::{ConfigError, Layers};
use drover_host::{Duration, ListenSpec, ServiceConfig, Transport};
use drover_kafka_listener::ListenerConfig;
use drover_types::ApiError;
use serde::{Deserialize, Serialize};

/// The name of its listener, and of its section.
pub const SOCKET: &str = "kafka";
/// Shortest time that offsets are kept; Kafka's is a minute as well.
const OFFSETS_RETENTION_MIN: Duration = Duration::from_secs(60);

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Loopback addresses only: whoever reaches the port reads and writes the topics of all tenants.
    pub listen: Vec<SocketAddr>,
    /// Most connections at a time.
    pub connections_max: usize,
    /// How long committed offsets of a group without members and commits stay, 1m or more: Kafka's
    /// `offsets.retention.minutes`. Counted anew from each start.
    pub offsets_retention: Duration,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        let listen = vec![(Ipv4Addr::LOCALHOST, 9092).into(), (Ipv6Addr::LOCALHOST, 9092).into()];
        let defaults = ListenerConfig::default();
        let offsets_retention = Duration::from_secs(defaults.offsets_retention.as_secs());
        Self { listen, connections_max: defaults.connections_max, offsets_retention }
    }
}

impl KafkaConfig {
    /// Takes the section out of `layers`.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        layers.service(SOCKET)
    }

    /// As the listener wants it.
    pub fn listener(&self) -> ListenerConfig {
        let offsets_retention = self.offsets_retention.as_std();
        ListenerConfig { connections_max: self.connections_max, offsets_retention, ..ListenerConfig::default() }
    }
}

impl ServiceConfig for KafkaConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let addresses = self.listen.clone();
        vec![ListenSpec { name: SOCKET, key: "kafka.listen", transport: Transport::Tcp, addresses }]
    }

    fn check(&self) -> Result<(), ApiError> {
        if let Some(open) = self.listen.iter().find(|address| !address.ip().is_loopback()) {
            let message = format!(
                "{open} is not a loopback address; the listener has no authentication, so only 127.0.0.1 and ::1 are allowed"
            );
            return Err(ApiError::invalid("kafka.listen", message));
        }
        if self.connections_max == 0 {
            return Err(ApiError::invalid("kafka.connections_max", "is 0, allowed is 1 or more"));
        }
        if self.offsets_retention < OFFSETS_RETENTION_MIN {
            let message = format!("is {}, allowed is {OFFSETS_RETENTION_MIN} or more", self.offsets_retention);
            return Err(ApiError::invalid("kafka.offsets_retention", message));
        }
        Ok(())
    }
}
