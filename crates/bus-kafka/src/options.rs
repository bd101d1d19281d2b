//! How to reach and use a cluster, and the librdkafka settings of each kind of client.
//!
//! Settings that promises of the port rest on are set here and cannot be overridden; every other one of librdkafka can.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use drover_bus::GroupConfig;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Why options cannot be used; nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("no brokers are named")]
    NoBrokers,
    #[error("{name} is {value}, allowed are {least} to {most}")]
    Range { name: &'static str, value: u64, least: u64, most: u64 },
    #[error("min_insync_replicas = {min_insync} is more than replication_factor = {factor}")]
    Replicas { min_insync: u16, factor: u16 },
    #[error("option {key} is set by drover itself: what it promises rests on it")]
    Reserved { key: String },
    #[error("{key} = {value} needs TLS, which this executable was built without; build it with --features kafka-tls")]
    NoTls { key: String, value: String },
    #[error("option {key} = {value}: {reason}")]
    Refused { key: String, value: String, reason: String },
    #[error("{reason}")]
    Client { reason: String },
}

/// A cluster and how it is used. Printed without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `HOST:PORT` of some of its brokers.
    pub brokers: Vec<String>,
    /// Replicas of each partition of the topics made here.
    pub replication_factor: u16,
    /// Replicas that must have a record before it is acknowledged.
    pub min_insync_replicas: u16,
    /// Records taken and not yet acknowledged; more make their callers wait.
    pub queue_messages_max: u32,
    /// The same in bytes, with what each record costs besides its content.
    pub queue_bytes_max: u32,
    /// Settings of librdkafka by their own names: security, compression, addresses.
    pub client: BTreeMap<String, String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            replication_factor: 3,
            min_insync_replicas: 2,
            queue_messages_max: 100_000,
            queue_bytes_max: 128 * 1024 * 1024,
            client: BTreeMap::new(),
        }
    }
}

/// Largest record: leaves room for framing in librdkafka's and Kafka's own limits of about 1 MB a message.
pub(crate) const RECORD_BYTES_MAX: usize = 990_000;
/// Largest message of librdkafka, framing included; below a broker's default of 1,048,588 for a whole batch.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// Bounds of the queue: below, no batch would fit; above, permits of the queue could not be counted.
const QUEUE_MESSAGES: (u32, u32) = (1_000, 10_000_000);
const QUEUE_BYTES: (u32, u32) = (4 * 1024 * 1024, 2_000_000_000);
/// A broker that leaves a question unanswered for so long hangs: its connection is closed, and it is looked up who leads its
/// partitions by now. Longer than a group waits for a member that died, as questions stand behind those of who joins; librdkafka's
/// own minute would be one without acknowledgements (ADR 51).
const HUNG: Duration = Duration::from_secs(15);
/// How long records wait for others to share a request with. Most of the wait is spent anyway, on the previous request.
const LINGER_MS: &str = "1";
/// Longest transaction; then the coordinator aborts it. Bounds how long a process that died keeps readers waiting.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before a step of a transaction is tried again: the coordinator refuses the first steps of one while the marks of
/// the last are being written, which takes it some milliseconds (librdkafka's own pause is 100 ms).
const RETRY_BACKOFF_MS: &str = "5";
/// Bytes that a group's member has fetched before they are polled.
const FETCHED_KIB_MAX: &str = "16384";
/// The same of one partition that is followed without a group.
const FOLLOWED_KIB_MAX: &str = "1024";
/// The least and the most a broker takes for a session by default.
const SESSION_TIMEOUT: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(1_800));
/// The most librdkafka takes between two polls.
const MAX_POLL_INTERVAL_MAX: Duration = Duration::from_secs(86_400);
/// Members hear of a rebalance with their heartbeat.
const HEARTBEAT_MS: &str = "500";
/// The least by which a member may be late to a rebalance beyond its session: one that is late is put out by the end of its
/// session, which takes its member id, before the group goes on without it, which would leave it the id (ADR 45).
const LATE: Duration = Duration::from_secs(5);
/// How long a broker keeps a fetch that has nothing to bring yet, where partitions come and go with every question: one
/// that joins in waits for it, as librdkafka has one fetch at a time under way to each broker.
const FETCH_WAIT_MS: &str = "50";

/// What [`KafkaOptions::client`] may not set, with all that begins so; under each name that librdkafka has for it.
const RESERVED: [&str; 23] = [
    "acks",
    "request.required.acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "metadata.broker.list",
    "allow.auto.create.topics",
    "delivery.timeout.ms",
    "enable.auto.",
    "enable.idempotence",
    "enable.partition.eof",
    "group.",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "queue.buffering.max.",
    "retries",
    "session.timeout.ms",
    "transaction",
];

/// What the names of librdkafka's settings contain whose values nobody is to see.
const SECRET: [&str; 8] =
    ["password", "passphrase", "secret", "private.key", "pem", "jaas", "token", "oauthbearer.config"];
/// What stands for a secret wherever settings are shown.
const HIDDEN: &str = "(hidden)";

/// The value of one of librdkafka's settings as it may be shown.
pub fn shown<'v>(key: &str, value: &'v str) -> &'v str {
    let key = key.to_ascii_lowercase();
    if SECRET.iter().any(|part| key.contains(part)) { HIDDEN } else { value }
}

/// The error about a setting that librdkafka does not take; its reason may quote the value.
pub(crate) fn refused(key: String, value: &str, reason: &str) -> OptionsError {
    let value_shown = shown(&key, value);
    let reason = if value.is_empty() { reason.to_owned() } else { reason.replace(value, value_shown) };
    OptionsError::Refused { value: value_shown.to_owned(), key, reason }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client: BTreeMap<&str, &str> = self.client.iter().map(|(key, v)| (key.as_str(), shown(key, v))).collect();
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("replication_factor", &self.replication_factor)
            .field("min_insync_replicas", &self.min_insync_replicas)
            .field("queue_messages_max", &self.queue_messages_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("client", &client)
            .finish()
    }
}

impl KafkaOptions {
    /// Refuses what cannot work, without asking the cluster.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.brokers.iter().all(|broker| broker.trim().is_empty()) {
            return Err(OptionsError::NoBrokers);
        }
        let in_range = |name, value: u32, (least, most): (u32, u32)| {
            let error = OptionsError::Range { name, value: value.into(), least: least.into(), most: most.into() };
            if (least..=most).contains(&value) { Ok(()) } else { Err(error) }
        };
        in_range("replication_factor", self.replication_factor.into(), (1, 32))?;
        in_range("min_insync_replicas", self.min_insync_replicas.into(), (1, 32))?;
        in_range("queue_messages_max", self.queue_messages_max, QUEUE_MESSAGES)?;
        in_range("queue_bytes_max", self.queue_bytes_max, QUEUE_BYTES)?;
        let (min_insync, factor) = (self.min_insync_replicas, self.replication_factor);
        if min_insync > factor {
            return Err(OptionsError::Replicas { min_insync, factor });
        }
        for (key, value) in &self.client {
            if RESERVED.iter().any(|reserved| key.starts_with(reserved)) {
                return Err(OptionsError::Reserved { key: key.clone() });
            }
            if !cfg!(feature = "tls") && needs_tls(key, value) {
                return Err(OptionsError::NoTls { key: key.clone(), value: shown(key, value).to_owned() });
            }
        }
        Ok(())
    }

    /// What all clients have in common.
    pub(crate) fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "drover");
        // A broker that comes back is found within a second, not within ten.
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("socket.timeout.ms", HUNG.as_millis().to_string());
        for (key, value) in &self.client {
            config.set(key, value);
        }
        config.set("bootstrap.servers", self.brokers.join(","));
        // What librdkafka's `debug` asks for is worth nothing if it is not let through.
        let level = if self.client.contains_key("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
        config.set_log_level(level);
        config
    }

    /// The producer behind `append`: idempotent, in order, never giving up on a record by itself.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        self.set_unless_given(&mut config, "linger.ms", LINGER_MS);
        config.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", "0");
        self.bound(&mut config);
        config
    }

    /// The producer of one transactional id. A commit waits for its records, which are all there within a millisecond: one
    /// request for each partition costs both sides less than several.
    pub(crate) fn transactor(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.common();
        self.set_unless_given(&mut config, "linger.ms", LINGER_MS);
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        config.set("message.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        self.set_unless_given(&mut config, "retry.backoff.ms", RETRY_BACKOFF_MS);
        self.bound(&mut config);
        config
    }

    /// A setting that is ours to choose only where the configuration does not.
    fn set_unless_given(&self, config: &mut ClientConfig, key: &str, value: &str) {
        if !self.client.contains_key(key) {
            config.set(key, value);
        }
    }

    /// The queue is bounded before librdkafka sees a record, so its own bounds never decide.
    fn bound(&self, config: &mut ClientConfig) {
        config.set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
        config.set("queue.buffering.max.messages", "0").set("queue.buffering.max.kbytes", "2147483647");
    }

    /// What all consumers have in common.
    fn consumer(&self, group: &str, fetched_kib_max: &str) -> ClientConfig {
        let mut config = self.common();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("isolation.level", "read_committed").set("allow.auto.create.topics", "false");
        config.set("queued.max.messages.kbytes", fetched_kib_max).set("fetch.max.bytes", "8388608");
        config
    }

    /// What all members of groups have in common: cooperative, so that others go on while one comes or goes.
    fn in_group(&self, group: &str, fetched_kib_max: &str, session: Duration) -> ClientConfig {
        let mut config = self.consumer(group, fetched_kib_max);
        config.set("partition.assignment.strategy", "cooperative-sticky").set("heartbeat.interval.ms", HEARTBEAT_MS);
        config.set("session.timeout.ms", session.as_millis().to_string());
        config
    }

    /// A member of a group: static, so that a restart moves nothing.
    pub(crate) fn member(&self, of: &GroupConfig) -> ClientConfig {
        let session = of.session_timeout.clamp(SESSION_TIMEOUT.0, SESSION_TIMEOUT.1);
        let poll = of.max_poll_interval.clamp(session + LATE, MAX_POLL_INTERVAL_MAX);
        let mut config = self.in_group(&of.group, FETCHED_KIB_MAX, session);
        config.set("group.instance.id", &of.member).set("max.poll.interval.ms", poll.as_millis().to_string());
        // Positions are given with each assignment; this is for those that retention has overtaken.
        config.set("auto.offset.reset", "earliest");
        config
    }

    /// A member of a group that has no name and does not stay.
    pub(crate) fn visitor(&self, group: &str) -> ClientConfig {
        self.in_group(group, FOLLOWED_KIB_MAX, SESSION_TIMEOUT.0)
    }

    /// A client that reads what it is told to, and asks. Never joins its group.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer("drover.readers", FOLLOWED_KIB_MAX);
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        self.set_unless_given(&mut config, "fetch.wait.max.ms", FETCH_WAIT_MS);
        config
    }

    /// A client that asks where partitions end with all that was written, of open transactions too. It never reads.
    pub(crate) fn witness(&self) -> ClientConfig {
        let mut config = self.reader();
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// A client that asks for the committed offsets of a group it does not join.
    pub(crate) fn inspector(&self, group: &str) -> ClientConfig {
        self.consumer(group, FOLLOWED_KIB_MAX)
    }
}

fn needs_tls(key: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let mechanism = matches!(key, "sasl.mechanism" | "sasl.mechanisms") && value.starts_with("scram");
    key.starts_with("ssl.") || mechanism || (key == "security.protocol" && value.ends_with("ssl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(client: &[(&str, &str)]) -> KafkaOptions {
        let client = client.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        KafkaOptions { brokers: vec!["127.0.0.1:9092".to_owned()], client, ..KafkaOptions::default() }
    }

    #[test]
    fn what_promises_rest_on_cannot_be_set() {
        for key in ["acks", "message.timeout.ms", "group.instance.id", "transactional.id", "queue.buffering.max.kbytes"]
        {
            assert_eq!(with(&[(key, "1")]).check(), Err(OptionsError::Reserved { key: key.to_owned() }));
        }
        assert_eq!(with(&[("compression.type", "zstd")]).check(), Ok(()));
    }

    #[test]
    fn a_setting_is_reserved_under_each_of_its_names_or_under_none() {
        let is_reserved =
            |key: &str| with(&[(key, "1")]).check() == Err(OptionsError::Reserved { key: key.to_owned() });
        // All that librdkafka calls an alias, but `linger.ms`: it may be set, `queue.buffering.max.ms` may not.
        for (alias, name, reserved) in [
            ("acks", "request.required.acks", true),
            ("bootstrap.servers", "metadata.broker.list", true),
            ("compression.type", "compression.codec", false),
            ("delivery.timeout.ms", "message.timeout.ms", true),
            ("enable.auto.commit", "auto.commit.enable", true),
            ("max.in.flight", "max.in.flight.requests.per.connection", false),
            ("max.partition.fetch.bytes", "fetch.message.max.bytes", false),
            ("retries", "message.send.max.retries", true),
            ("sasl.mechanism", "sasl.mechanisms", false),
            ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id", false),
            ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret", false),
        ] {
            assert_eq!((is_reserved(alias), is_reserved(name)), (reserved, reserved), "{alias} and {name}");
        }
        assert!(!is_reserved("linger.ms"));
    }

    #[test]
    fn bounds_and_replicas_are_checked() {
        assert_eq!(KafkaOptions::default().check(), Err(OptionsError::NoBrokers));
        let few = KafkaOptions { replication_factor: 1, ..with(&[]) };
        assert_eq!(few.check(), Err(OptionsError::Replicas { min_insync: 2, factor: 1 }));
        for queue_messages_max in [QUEUE_MESSAGES.0, QUEUE_MESSAGES.1] {
            assert_eq!(KafkaOptions { queue_messages_max, ..with(&[]) }.check(), Ok(()));
        }
        for queue_messages_max in [QUEUE_MESSAGES.0 - 1, QUEUE_MESSAGES.1 + 1] {
            let error = KafkaOptions { queue_messages_max, ..with(&[]) }.check().expect_err("out of range");
            assert!(error.to_string().starts_with("queue_messages_max is "), "{error}");
        }
    }

    #[test]
    fn the_values_of_secret_settings_are_never_shown() {
        for key in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "SASL.OAUTHBEARER.CLIENT.SECRET",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            let options = with(&[(key, "hush"), ("compression.type", "lz4")]);
            let printed = format!("{options:?}");
            assert!(printed.contains(key) && printed.contains("lz4") && !printed.contains("hush"), "{printed}");
            let error = refused(key.to_owned(), "hush", "Invalid value \"hush\" for the property").to_string();
            assert_eq!(error, format!("option {key} = (hidden): Invalid value \"(hidden)\" for the property"));
            // Without TLS the setting is refused.
            assert!(options.check().err().is_none_or(|error| !error.to_string().contains("hush")));
        }
        let error = refused("linger.ms".to_owned(), "x", "no number: x").to_string();
        assert_eq!(error, "option linger.ms = x: no number: x");
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn without_tls_a_setting_that_needs_it_names_the_feature() {
        for (key, value) in
            [("security.protocol", "SASL_SSL"), ("sasl.mechanisms", "SCRAM-SHA-512"), ("ssl.ca.location", "ca.pem")]
        {
            let error = with(&[(key, value)]).check().expect_err("refused").to_string();
            assert!(error.starts_with(key) && error.contains("--features kafka-tls"), "{error}");
        }
        assert_eq!(with(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", "PLAIN")]).check(), Ok(()));
    }
}
