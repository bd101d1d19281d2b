//! The `shadow` section of the configuration.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::{ByteSize, Duration, ListenSpec, ServiceConfig, Transport, grpc};
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

/// gRPC port of this service.
const PORT: u16 = 7072;
/// Least memory that a buffer of the store works with.
const KIB_64: ByteSize = ByteSize::from_bytes(64 << 10);

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// `[shadow]`. Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    pub store: StoreConfig,
    /// Name of this member in its consumer groups; unique among replicas, the same after a restart.
    pub member: String,
    /// Partitions of the topics this service makes. Set once: a topic that exists with another number is refused.
    pub partitions: u32,
    /// Services that hold device connections and hand out answers and deltas.
    pub ingress_nodes: Vec<String>,
    /// How long a request by gRPC waits for its answer.
    pub answer_timeout: Duration,
    /// How long the history of changes is kept, `30d` for example.
    pub changes_retention: Duration,
}

/// `[shadow.store]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreConfig {
    /// In the service's own directory, by one process.
    Embedded(EmbeddedLimits),
    /// In the database of section `[cassandra]`, shared with other processes.
    Cassandra,
}

/// Memory of the embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedLimits {
    /// Cached blocks of tables.
    pub cache: ByteSize,
    /// Rows kept in memory before they become a table.
    pub write_buffer: ByteSize,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self { cache: ByteSize::from_bytes(8 << 20), write_buffer: ByteSize::from_bytes(4 << 20) }
    }
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()],
            store: StoreConfig::Embedded(EmbeddedLimits::default()),
            member: "shadow-0".to_owned(),
            partitions: 8,
            ingress_nodes: vec!["ingress".to_owned()],
            answer_timeout: Duration::from_secs(10),
            changes_retention: days(30),
        }
    }
}

impl ServiceConfig for ShadowConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let addresses = self.listen.clone();
        vec![ListenSpec { name: grpc::SOCKET, key: "shadow.listen", transport: Transport::Tcp, addresses }]
    }

    fn check(&self) -> Result<(), ApiError> {
        in_range("shadow.partitions", self.partitions, 1, 1_024)?;
        in_range("shadow.answer_timeout", self.answer_timeout, Duration::from_millis(1), Duration::from_secs(300))?;
        in_range("shadow.changes_retention", self.changes_retention, days(1), days(3_650))?;
        match self.store {
            StoreConfig::Embedded(limits) => {
                in_range("shadow.store.cache", limits.cache, KIB_64, ByteSize::from_bytes(1 << 40))?;
                in_range("shadow.store.write_buffer", limits.write_buffer, KIB_64, ByteSize::from_bytes(1 << 30))?;
            }
            StoreConfig::Cassandra => {}
        }
        if self.member.is_empty() {
            return Err(ApiError::invalid("shadow.member", "is empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_unknown_keys_and_values_out_of_range_are_refused() {
        let config: ShadowConfig = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!((config.check(), &config), (Ok(()), &ShadowConfig::default()));
        assert!(serde_json::from_str::<ShadowConfig>(r#"{"listne": []}"#).is_err());
        assert!(serde_json::from_str::<ShadowConfig>(r#"{"store": {"kind": "embedded", "cache": "64KiB"}}"#).is_ok());
        let shared: ShadowConfig = serde_json::from_str(r#"{"store": {"kind": "cassandra"}}"#).expect("a kind alone");
        assert_eq!((shared.store.clone(), shared.check()), (StoreConfig::Cassandra, Ok(())));
        let refused = ShadowConfig { partitions: 1_025, ..Default::default() }.check().expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("shadow.partitions"));
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("1024"), Some("1025")));
    }
}
