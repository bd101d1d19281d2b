//! Sections that belong to the process rather than to one service.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::network::NetworkConfig;
use super::{CassandraConfig, ConfigError, JwtIssuer, KafkaConfig, Layers, UnknownKeys};
use crate::{ByteSize, Duration};

/// The key of the administrator's token itself.
const ADMIN_TOKEN: &str = "security.admin_token";

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub bus: BusConfig,
    pub log: LogConfig,
    pub otlp: OtlpConfig,
    pub admin: AdminConfig,
    pub network: NetworkConfig,
    pub process: ProcessConfig,
    pub security: SecurityConfig,
    pub cassandra: CassandraConfig,
}

impl Shared {
    /// Names of the sections.
    pub const SECTIONS: [&'static str; 8] =
        ["bus", "log", "otlp", "admin", "network", "process", "security", "cassandra"];

    /// Keys of the sections that nobody knows.
    pub fn unknown_keys(layers: &Layers) -> UnknownKeys {
        let keys = [
            layers.unknown_keys::<BusConfig>("bus"),
            layers.unknown_keys::<LogConfig>("log"),
            layers.unknown_keys::<OtlpConfig>("otlp"),
            layers.unknown_keys::<AdminConfig>("admin"),
            layers.unknown_keys::<NetworkConfig>("network"),
            layers.unknown_keys::<ProcessConfig>("process"),
            layers.unknown_keys::<SecurityConfig>("security"),
            layers.unknown_keys::<CassandraConfig>("cassandra"),
        ];
        UnknownKeys(keys.into_iter().flat_map(|keys| keys.0).collect())
    }

    /// Takes the sections out of `layers` and checks them.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let shared = Self {
            bus: layers.section("bus")?,
            log: layers.section("log")?,
            otlp: layers.section("otlp")?,
            admin: layers.section("admin")?,
            network: layers.section("network")?,
            process: layers.section("process")?,
            security: layers.section("security")?,
            cassandra: layers.section("cassandra")?,
        };
        let refused =
            |(key, reason): (&str, String)| ConfigError::Value { origin: layers.origin(key), key: key.into(), reason };
        shared.check().map_err(refused)?;
        shared.network.check().map_err(refused)?;
        if shared.security.admin_token.is_some() && layers.origin(ADMIN_TOKEN) == super::FLAG {
            let reason = "everybody on this machine can read a command line; use security.admin_token_file, or the \
                environment variable DROVER_SECURITY__ADMIN_TOKEN";
            return Err(refused((ADMIN_TOKEN, reason.to_owned())));
        }
        Ok(shared)
    }

    /// The sections as `--print-config` shows them.
    pub fn sections(&self) -> Vec<(&'static str, Value)> {
        let section = |value: Result<Value, serde_json::Error>| value.expect("a configuration is plain data");
        vec![
            ("bus", section(serde_json::to_value(&self.bus))),
            ("log", section(serde_json::to_value(&self.log))),
            ("otlp", section(serde_json::to_value(&self.otlp))),
            ("admin", section(serde_json::to_value(&self.admin))),
            ("network", section(serde_json::to_value(&self.network))),
            ("process", section(serde_json::to_value(&self.process))),
            ("security", section(serde_json::to_value(&self.security))),
            ("cassandra", section(serde_json::to_value(&self.cassandra))),
        ]
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let in_range = |key, value: u64, least: u64, most: u64| {
            let reason = format!("is {value}, allowed are {least} to {most}");
            if (least..=most).contains(&value) { Ok(()) } else { Err((key, reason)) }
        };
        in_range("bus.partitions", self.bus.partitions.into(), 1, 1_024)?;
        in_range("process.threads", self.process.threads.into(), 1, 1_024)?;
        if self.bus.kind == BusKind::Kafka {
            self.bus.kafka.check()?;
        }
        self.cassandra.check()?;
        JwtIssuer::check_all(&self.security.jwt).map_err(|reason| ("security.jwt", reason))?;
        if !(0.0..=1.0).contains(&self.otlp.sample_ratio) {
            return Err(("otlp.sample_ratio", format!("is {}, allowed are 0.0 to 1.0", self.otlp.sample_ratio)));
        }
        if self.log.level.parse::<tracing_subscriber::EnvFilter>().is_err() {
            return Err(("log.level", format!("{:?} is not a level or a list of TARGET=LEVEL", self.log.level)));
        }
        Ok(())
    }
}

/// `[bus]`: the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    pub kind: BusKind,
    /// Partitions of `drover.telemetry`, 1 to 1,024; set once, when the topic is made.
    pub partitions: u32,
    /// How long a device's message is kept in the log.
    pub retention: Duration,
    /// How much of the devices' messages is kept in the log.
    pub retention_size: ByteSize,
    /// The cluster, where the log is one.
    pub kafka: KafkaConfig,
}

/// Where the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusKind {
    /// In this process, in the data directory.
    Embedded,
    /// In a Kafka cluster.
    Kafka,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            kind: BusKind::Embedded,
            partitions: 8,
            retention: Duration::from_secs(7 * 24 * 3600),
            retention_size: ByteSize::from_bytes(10 << 30),
            kafka: KafkaConfig::default(),
        }
    }
}

/// `[log]`: what the process says on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or `TARGET=LEVEL` separated by commas.
    pub level: String,
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        // The store's own lifecycle and an odd handshake are of no interest to who runs the platform.
        Self { level: "info,fjall=warn,lsm_tree=warn,rustls=error".to_owned(), format: LogFormat::Text }
    }
}

/// `[otlp]`: where traces go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// `http://HOST:4317` of an OpenTelemetry collector (OTLP over gRPC); absent: nothing is traced.
    pub endpoint: Option<String>,
    /// Value of the `authorization` header, where the collector demands one.
    pub authorization: Option<Secret>,
    /// Part of the traces that begin here and are kept, 0.0 to 1.0.
    pub sample_ratio: f64,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self { endpoint: None, authorization: None, sample_ratio: 1.0 }
    }
}

/// `[admin]`: health and metrics of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Addresses of `/healthz`, `/readyz` and `/metrics`.
    pub listen: Vec<SocketAddr>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: vec![(Ipv4Addr::LOCALHOST, 9464).into(), (Ipv6Addr::LOCALHOST, 9464).into()] }
    }
}

/// `[process]`: the process as such.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Worker threads, 1 to 1,024. More than two cost memory and help only a machine that does nothing else.
    pub threads: u16,
    /// How long services may take to finish their work after SIGTERM; then the process ends with an error.
    pub drain: Duration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { threads: u16::try_from(cores).unwrap_or(u16::MAX).min(1_024), drain: Duration::from_secs(10) }
    }
}

/// `[security]`: what holds for every way in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    pub anonymous: Anonymous,
    /// Names of this machine in the server certificate, besides localhost, 127.0.0.1 and ::1.
    pub hostnames: Vec<String>,
    /// Directory of the platform's certificates; absent: `pki` in the data directory.
    pub pki: Option<PathBuf>,
    /// File with the administrator's token; absent: `admin.token` in the data directory.
    pub admin_token_file: Option<PathBuf>,
    /// The token itself, from a file of configuration or `DROVER_SECURITY__ADMIN_TOKEN`; goes before the file.
    pub admin_token: Option<Secret>,
    /// Who may vouch for devices by JSON Web Tokens, which they show as password; at most 64.
    pub jwt: Vec<JwtIssuer>,
}

impl SecurityConfig {
    /// Whether it says nothing of where the administrator's token is.
    pub fn names_no_token(&self) -> bool {
        self.admin_token.is_none() && self.admin_token_file.is_none()
    }
}

/// Where clients without credentials are admitted; decided by the address a listener is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// By listeners bound to a loopback address; `on` says the same.
    #[default]
    #[serde(alias = "on")]
    Loopback,
    /// Nowhere.
    Off,
    /// By all listeners: whoever reaches them is a device.
    Everywhere,
}

/// A configured secret: shown as `(hidden)` wherever it is printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}
