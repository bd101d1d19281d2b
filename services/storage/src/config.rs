//! The storage service's section of the configuration.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::{ByteSize, Duration, ListenSpec, ServiceConfig, Transport, grpc};
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

/// gRPC port of this service.
const PORT: u16 = 7074;
/// Least memory that a buffer of the store works with.
const BUFFER_MIN: ByteSize = ByteSize::from_bytes(64 << 10);
/// Shortest retention: what the log may deliver late is not gone before it arrives.
const RETENTION_MIN: Duration = Duration::from_secs(60);
/// Longest retention, a hundred years.
const RETENTION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Most fields of a device that may be configured: their newest points are one partition, of 55 MB at the very most.
const FIELDS_PER_DEVICE_MAX: usize = 10_000;
/// Longest retention in Cassandra, ten years: a time to live is at most 20, and older servers end in 2038.
const CASSANDRA_RETENTION_MAX: Duration = Duration::from_secs(3_650 * 24 * 3600);

/// `[storage]`. Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    pub store: StoreConfig,
    /// Name of this member in its consumer group; unique among running members, the same after a restart.
    pub member: String,
    /// How long points and messages are kept, `365d` for example; absent: for ever.
    pub retention: Option<Duration>,
    /// Fields of one device that are kept as points, 1 to 10,000; values of further ones are in their message only.
    pub fields_per_device_max: usize,
}

/// `[storage.store]`.
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
    /// Rows of each of three tables kept in memory before they are written out.
    pub write_buffer: ByteSize,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self { cache: ByteSize::from_bytes(8 << 20), write_buffer: ByteSize::from_bytes(8 << 20) }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()],
            store: StoreConfig::Embedded(EmbeddedLimits::default()),
            member: "storage".to_owned(),
            retention: None,
            fields_per_device_max: 1_000,
        }
    }
}

impl ServiceConfig for StorageConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let addresses = self.listen.clone();
        vec![ListenSpec { name: grpc::SOCKET, key: "storage.listen", transport: Transport::Tcp, addresses }]
    }

    fn check(&self) -> Result<(), ApiError> {
        let retention_max = match self.store {
            StoreConfig::Embedded(limits) => {
                in_range("storage.store.cache", limits.cache, BUFFER_MIN, ByteSize::from_bytes(1 << 40))?;
                in_range("storage.store.write_buffer", limits.write_buffer, BUFFER_MIN, ByteSize::from_bytes(1 << 30))?;
                RETENTION_MAX
            }
            StoreConfig::Cassandra => CASSANDRA_RETENTION_MAX,
        };
        if let Some(retention) = self.retention {
            in_range("storage.retention", retention, RETENTION_MIN, retention_max)?;
        }
        in_range("storage.fields_per_device_max", self.fields_per_device_max, 1, FIELDS_PER_DEVICE_MAX)?;
        if self.member.is_empty() {
            return Err(ApiError::invalid("storage.member", "is empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_keeps_for_ever_and_unknown_keys_are_refused() {
        let config: StorageConfig = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!((config.check(), config.retention, &config), (Ok(()), None, &StorageConfig::default()));
        assert!(serde_json::from_str::<StorageConfig>(r#"{"retentoin": "1d"}"#).is_err());
        assert!(serde_json::from_str::<StorageConfig>(r#"{"store": {"kind": "embedded", "cash": "1MiB"}}"#).is_err());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_limit() {
        let with = |retention| StorageConfig { retention: Some(retention), ..StorageConfig::default() };
        assert_eq!((with(RETENTION_MIN).check(), with(RETENTION_MAX).check()), (Ok(()), Ok(())));
        let refused = with(Duration::from_secs(59)).check().expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("storage.retention"));
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("1m"), Some("59s")));
        let in_cassandra = StorageConfig { store: StoreConfig::Cassandra, ..with(RETENTION_MAX) };
        assert_eq!(in_cassandra.check().expect_err("refused").limit.as_deref(), Some("3650d"));
        let fields = |fields_per_device_max| StorageConfig { fields_per_device_max, ..StorageConfig::default() };
        assert_eq!((fields(1).check(), fields(FIELDS_PER_DEVICE_MAX).check()), (Ok(()), Ok(())));
        for wrong in [0, FIELDS_PER_DEVICE_MAX + 1] {
            let refused = fields(wrong).check().expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some("storage.fields_per_device_max"));
        }
    }
}
