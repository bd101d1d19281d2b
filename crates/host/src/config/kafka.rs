//! `[bus.kafka]`: the cluster behind `bus.kind = kafka`, and how it is spoken to.

use std::collections::BTreeMap;
use std::fmt;

use drover_bus_kafka::options::shown;
use drover_bus_kafka::{KafkaOptions, OptionsError};
use serde::{Deserialize, Serialize, Serializer};

use super::Secret;
use crate::ByteSize;

/// A Kafka cluster. What is not here is in [`Self::options`], by librdkafka's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `HOST:PORT` of some brokers, separated by commas.
    pub brokers: String,
    /// Replicas of the topics that are made, 1 to 32; not more than there are brokers.
    pub replication_factor: u16,
    /// Replicas that must have a record before it counts as kept, 1 to `replication_factor`.
    pub min_insync_replicas: u16,
    /// Records on their way to the cluster, 1,000 to 10,000,000; more make devices wait.
    pub queue_messages_max: u32,
    /// The same in bytes, `4MiB` to `1907MiB`.
    pub queue_size_max: ByteSize,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; the executable needs the feature `kafka-tls` for TLS.
    pub security_protocol: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    pub sasl_username: Option<String>,
    pub sasl_password: Option<Secret>,
    /// File with the certificates of the authorities that sign the brokers'.
    pub ssl_ca_location: Option<String>,
    /// File with the client's certificate, where brokers ask for one.
    pub ssl_certificate_location: Option<String>,
    /// File with the key of the client's certificate.
    pub ssl_key_location: Option<String>,
    /// Further settings of librdkafka, `{"compression.type" = "lz4"}` for example.
    pub options: ClientOptions,
}

/// Settings by librdkafka's names; the values of those that are secrets are shown as `(hidden)` wherever they are printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientOptions(BTreeMap<String, String>);

impl ClientOptions {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), shown(key, value)))
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for ClientOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        let KafkaOptions { replication_factor, min_insync_replicas, queue_messages_max, queue_bytes_max, .. } =
            KafkaOptions::default();
        Self {
            brokers: String::new(),
            replication_factor,
            min_insync_replicas,
            queue_messages_max,
            queue_size_max: ByteSize::from_bytes(queue_bytes_max.into()),
            security_protocol: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            ssl_ca_location: None,
            ssl_certificate_location: None,
            ssl_key_location: None,
            options: ClientOptions::default(),
        }
    }
}

impl KafkaConfig {
    /// As the adapter takes it.
    pub fn options(&self) -> KafkaOptions {
        let mut client = self.options.0.clone();
        let named = [
            ("security.protocol", self.security_protocol.as_deref()),
            ("sasl.mechanism", self.sasl_mechanism.as_deref()),
            ("sasl.username", self.sasl_username.as_deref()),
            ("sasl.password", self.sasl_password.as_ref().map(Secret::expose)),
            ("ssl.ca.location", self.ssl_ca_location.as_deref()),
            ("ssl.certificate.location", self.ssl_certificate_location.as_deref()),
            ("ssl.key.location", self.ssl_key_location.as_deref()),
        ];
        client.extend(named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))));
        KafkaOptions {
            brokers: self.brokers.split(',').map(|broker| broker.trim().to_owned()).filter(|b| !b.is_empty()).collect(),
            replication_factor: self.replication_factor,
            min_insync_replicas: self.min_insync_replicas,
            queue_messages_max: self.queue_messages_max,
            queue_bytes_max: u32::try_from(self.queue_size_max.bytes()).unwrap_or(u32::MAX),
            client,
        }
    }

    /// Refuses what cannot work; with the key at fault.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Err(error) = self.options().check() else { return Ok(()) };
        let key = match &error {
            OptionsError::NoBrokers => "bus.kafka.brokers",
            OptionsError::Range { name: "replication_factor", .. } => "bus.kafka.replication_factor",
            OptionsError::Range { name: "queue_messages_max", .. } => "bus.kafka.queue_messages_max",
            OptionsError::Range { name: "queue_bytes_max", .. } => "bus.kafka.queue_size_max",
            OptionsError::Range { .. } | OptionsError::Replicas { .. } => "bus.kafka.min_insync_replicas",
            OptionsError::Reserved { .. } | OptionsError::Refused { .. } => "bus.kafka.options",
            OptionsError::NoTls { .. } | OptionsError::Client { .. } => "bus.kafka",
        };
        Err((key, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_settings_and_options_reach_librdkafka_and_the_password_is_never_shown() {
        let text = r#"
            brokers = "a:9092, b:9092"
            security_protocol = "sasl_plaintext"
            sasl_password = "hush"
            options = {"compression.type" = "lz4"}
        "#;
        let config: KafkaConfig = toml::from_str(text).expect("valid");
        let options = config.options();
        assert_eq!(options.brokers, ["a:9092", "b:9092"]);
        assert_eq!(options.client["sasl.password"], "hush");
        assert_eq!(options.client["compression.type"], "lz4");
        assert_eq!(config.check(), Ok(()));
        assert!(!toml::to_string(&config).expect("plain data").contains("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn secrets_among_the_options_reach_librdkafka_and_are_never_shown() {
        let text = r#"
            brokers = "a:9092"
            options = {"sasl.password" = "hush", "ssl.key.pem" = "hush", "compression.type" = "lz4"}
        "#;
        let config: KafkaConfig = toml::from_str(text).expect("valid");
        assert_eq!(config.options().client["sasl.password"], "hush");
        for printed in [toml::to_string(&config).expect("plain data"), format!("{config:?} {:?}", config.options())] {
            assert!(!printed.contains("hush") && printed.contains("ssl.key.pem"), "{printed}");
            assert!(printed.contains("(hidden)") && printed.contains("lz4"), "{printed}");
        }
    }

    #[test]
    fn what_is_at_fault_is_named_by_its_key() {
        let config = |text: &str| toml::from_str::<KafkaConfig>(text).expect("valid").check().expect_err("refused");
        assert_eq!(config(""), ("bus.kafka.brokers", "no brokers are named".to_owned()));
        let (key, reason) = config("brokers = \"a:1\"\nreplication_factor = 1");
        assert_eq!(key, "bus.kafka.min_insync_replicas");
        assert_eq!(reason, "min_insync_replicas = 2 is more than replication_factor = 1");
        assert_eq!(config("brokers = \"a:1\"\noptions = {acks = \"1\"}").0, "bus.kafka.options");
    }
}
