//! The section `kafka`: the Kafka-protocol listener over the embedded log.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::config::{ConfigError, Layers};
use drover_host::{Duration, ListenSpec, ServiceConfig, Transport};
use drover_kafka_listener::{ListenerConfig, Security};
use drover_types::ApiError;
use serde::{Deserialize, Serialize};

/// The name of its listener, and of its section.
pub const SOCKET: &str = "kafka";
/// Shortest time that offsets are kept; Kafka's is a minute as well.
const OFFSETS_RETENTION_MIN: Duration = Duration::from_secs(60);

/// What a client has to do before it is served, by Kafka's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Nothing: loopback only.
    #[default]
    #[serde(alias = "PLAINTEXT")]
    Plaintext,
    /// TLS, and a user name and a password.
    #[serde(alias = "SASL_SSL")]
    SaslSsl,
}

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Loopback addresses only, unless `security` is "sasl_ssl": whoever reaches the port reads and writes the topics of all
    /// tenants.
    pub listen: Vec<SocketAddr>,
    /// "plaintext", or "sasl_ssl": TLS with the certificate of `[ingress.tls]`, and SASL/PLAIN with a tenant and one of its API
    /// tokens; each tenant finds what is its own. `docs/kafka.md`.
    pub security: SecurityProtocol,
    /// `HOST:PORT` under which clients find this listener, where that is neither the name they call it by nor the address they
    /// connect to: behind a port that is forwarded, for example.
    pub advertised: Option<String>,
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
        let (security, connections_max) = (SecurityProtocol::default(), defaults.connections_max);
        Self { listen, security, advertised: None, connections_max, offsets_retention }
    }
}

impl KafkaConfig {
    /// Takes the section out of `layers`.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        layers.service(SOCKET)
    }

    /// As the listener wants it.
    pub fn listener(&self, security: Security) -> ListenerConfig {
        let (connections_max, offsets_retention) = (self.connections_max, self.offsets_retention.as_std());
        let advertised = self.advertised.as_deref().and_then(host_and_port);
        ListenerConfig { security, advertised, connections_max, offsets_retention, ..ListenerConfig::default() }
    }
}

/// The two parts of `HOST:PORT`; an IPv6 address stands in brackets, which are not part of it.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?)).filter(|(host, port)| !host.is_empty() && *port != 0)
}

impl ServiceConfig for KafkaConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let addresses = self.listen.clone();
        vec![ListenSpec { name: SOCKET, key: "kafka.listen", transport: Transport::Tcp, addresses }]
    }

    fn check(&self) -> Result<(), ApiError> {
        let open = self.listen.iter().find(|address| !address.ip().is_loopback());
        if let (SecurityProtocol::Plaintext, Some(open)) = (self.security, open) {
            let message = format!(
                "{open} is not a loopback address; the listener has no authentication, so only 127.0.0.1 and ::1 are allowed; \
                 kafka.security = \"sasl_ssl\" turns it on"
            );
            return Err(ApiError::invalid("kafka.listen", message));
        }
        if let Some(told) = self.advertised.as_deref().filter(|told| host_and_port(told).is_none()) {
            return Err(ApiError::invalid("kafka.advertised", format!("is {told:?}, allowed is HOST:PORT")));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_passwords_may_listen_off_loopback() {
        let open = vec![SocketAddr::from(([0, 0, 0, 0], 9092))];
        let plain = KafkaConfig { listen: open, ..KafkaConfig::default() };
        let refused = plain.check().expect_err("off loopback");
        assert_eq!(refused.field.as_deref(), Some("kafka.listen"));
        assert!(refused.message.contains("kafka.security = \"sasl_ssl\""), "{}", refused.message);
        assert_eq!(KafkaConfig { security: SecurityProtocol::SaslSsl, ..plain }.check(), Ok(()));
        assert_eq!(KafkaConfig::default().check(), Ok(()));
    }

    #[test]
    fn an_advertised_address_has_a_host_and_a_port() {
        assert_eq!(host_and_port("kafka.example:19092"), Some(("kafka.example".to_owned(), 19_092)));
        assert_eq!(host_and_port("[fd00::1]:9092"), Some(("fd00::1".to_owned(), 9_092)));
        for wrong in ["kafka.example", ":9092", "kafka.example:", "kafka.example:0", "kafka.example:70000"] {
            let config = KafkaConfig { advertised: Some(wrong.to_owned()), ..KafkaConfig::default() };
            let refused = config.check().expect_err(wrong);
            assert_eq!(refused.field.as_deref(), Some("kafka.advertised"), "{wrong}");
        }
    }
}
