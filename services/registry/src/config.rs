//! The registry's section of the configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use drover_host::config::JwtIssuer;
use drover_host::{ByteSize, Duration, ListenSpec, ServiceConfig, Transport};
use drover_types::limits::{POLICIES_PER_TENANT_MAX, RULES_PER_TENANT_MAX};
use drover_types::{ApiError, TenantId, in_range};
use serde::{Deserialize, Serialize};

/// Least memory that a buffer of the store works with.
const KIB_64: ByteSize = ByteSize::from_bytes(64 << 10);

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// `[registry]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    pub store: StoreConfig,
    /// Directory of the platform's certificate authority; absent: `pki` in the service's own directory.
    pub pki: Option<PathBuf>,
    /// Directory of the master keys that pre-shared keys of devices are sealed with: `current` and, while they are changed,
    /// `previous`; each 32 random bytes as base64, the same for all registry processes over one store. Without `current`
    /// no pre-shared key is issued. Read at the start.
    pub master_keys: Option<PathBuf>,
    /// Partitions of the topics this service makes. Set once: a topic that exists with another number is refused.
    pub partitions: u32,
    /// Name of this process in its consumer group; unique among replicas, the same after a restart.
    pub member: String,
    /// Services of the network that hold device connections; every replica of each hears of revocations.
    pub ingress_nodes: Vec<String>,
    /// How long an ingress node may take to confirm a revocation, `1s` for example.
    pub revoke_timeout: Duration,
    /// Whether clients without credentials may be devices of the tenant `default`. Listeners decide who may try.
    pub anonymous: bool,
    /// Who may vouch for devices by JSON Web Tokens; absent: those of `[[security.jwt]]`.
    pub jwt: Vec<JwtIssuer>,
    pub rules_per_tenant_max: usize,
    /// The built-in one not among them.
    pub policies_per_tenant_max: usize,
    /// Whether rules write to Kafka topics named `TENANT.…` only, and to those of `kafka_topics`; else to any that no other
    /// tenant has. Looked at when a rule is put.
    pub own_topics_only: bool,
    /// Further topics, by tenant: names, or beginnings of names with `*` behind them.
    pub kafka_topics: BTreeMap<String, Vec<String>>,
    /// How long lifecycle events are kept, and how long a device that is away is remembered; `30d` for example.
    pub events_retention: Duration,
}

/// `[registry.store]`.
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
    /// Rows kept in memory before they become a table. Connections write to it, so that it is full now and then at any size. A
    /// store keeps the one that it was made with.
    pub write_buffer: ByteSize,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self { cache: ByteSize::from_bytes(8 << 20), write_buffer: ByteSize::from_bytes(1 << 20) }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        Self {
            listen: loopback.map(|ip| SocketAddr::new(ip, 7071)).to_vec(),
            store: StoreConfig::Embedded(EmbeddedLimits::default()),
            pki: None,
            master_keys: None,
            partitions: 8,
            member: "registry-0".to_owned(),
            ingress_nodes: vec!["ingress".to_owned()],
            revoke_timeout: Duration::from_secs(1),
            anonymous: true,
            jwt: Vec::new(),
            rules_per_tenant_max: RULES_PER_TENANT_MAX,
            policies_per_tenant_max: POLICIES_PER_TENANT_MAX,
            own_topics_only: false,
            kafka_topics: BTreeMap::new(),
            events_retention: days(30),
        }
    }
}

impl ServiceConfig for RegistryConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        vec![ListenSpec {
            name: drover_host::grpc::SOCKET,
            key: "registry.listen",
            transport: Transport::Tcp,
            addresses: self.listen.clone(),
        }]
    }

    fn check(&self) -> Result<(), ApiError> {
        in_range("registry.partitions", self.partitions, 1, 1_024)?;
        in_range("registry.revoke_timeout", self.revoke_timeout, Duration::from_millis(1), Duration::from_secs(60))?;
        in_range("registry.events_retention", self.events_retention, days(1), days(3_650))?;
        match self.store {
            StoreConfig::Embedded(limits) => {
                in_range("registry.store.cache", limits.cache, KIB_64, ByteSize::from_bytes(1 << 40))?;
                in_range("registry.store.write_buffer", limits.write_buffer, KIB_64, ByteSize::from_bytes(1 << 30))?;
            }
            StoreConfig::Cassandra => {}
        }
        JwtIssuer::check_all(&self.jwt).map_err(|reason| ApiError::invalid("registry.jwt", reason))?;
        for tenant in self.kafka_topics.keys() {
            TenantId::new(tenant).map_err(|error| ApiError::invalid("registry.kafka_topics", error.to_string()))?;
        }
        if self.member.is_empty() {
            return Err(ApiError::invalid("registry.member", "is empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_unknown_keys_are_refused() {
        let config: RegistryConfig = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!((config.check(), &config), (Ok(()), &RegistryConfig::default()));
        assert!(serde_json::from_str::<RegistryConfig>(r#"{"listne": []}"#).is_err());
        assert!(serde_json::from_str::<RegistryConfig>(r#"{"store": {"kind": "embedded", "cash": "1MiB"}}"#).is_err());
        let sized = r#"{"store": {"kind": "embedded", "cache": "64KiB"}}"#;
        assert!(serde_json::from_str::<RegistryConfig>(sized).is_ok());
        let shared: RegistryConfig = serde_json::from_str(r#"{"store": {"kind": "cassandra"}}"#).expect("a kind alone");
        assert_eq!((shared.store.clone(), shared.check()), (StoreConfig::Cassandra, Ok(())));
        assert!(serde_json::from_str::<RegistryConfig>(r#"{"store": {"kind": "casandra"}}"#).is_err());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_limit() {
        let refused = RegistryConfig { partitions: 1_025, ..Default::default() }.check().expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("registry.partitions"));
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("1024"), Some("1025")));
        let kafka_topics = [("No Tenant".to_owned(), Vec::new())].into();
        let refused = RegistryConfig { kafka_topics, ..Default::default() }.check().expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("registry.kafka_topics"));
    }
}
