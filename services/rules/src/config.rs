//! The `rules` section of the configuration.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use drover_host::{Duration, ListenSpec, ServiceConfig, Transport, grpc};
use drover_types::limits::PARTITIONS_MAX;
use drover_types::{ApiError, in_range};
use serde::{Deserialize, Serialize};

use crate::actions::ClusterConfig;
use crate::mail::SmtpConfig;

/// gRPC port of this service.
const PORT: u16 = 7073;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    /// Name of this member in its consumer groups; unique among running members, the same after a restart.
    pub member: String,
    /// Whether accepting a rule makes its missing output topics.
    pub create_topics: bool,
    /// Partitions of the outbox and the dead-letter topic where this service has to make them, 1 to 1,024.
    pub partitions: u32,
    /// How long output topics made here keep records, `1h` to `3650d`; a topic that is there already stays as it is.
    pub output_retention: Duration,
    /// Directory of the secrets that actions name, `DIR/TENANT/NAME/ENTRY`; `rules/secrets` in the data directory where
    /// absent.
    pub secrets: Option<PathBuf>,
    /// Hosts, `HOST` or `HOST:PORT`, that webhooks may reach at private addresses and without TLS.
    pub internal_hosts: Vec<String>,
    /// PEM file of certificate authorities that webhooks trust besides those of the web.
    pub webhook_ca: Option<PathBuf>,
    /// Other Kafka clusters that rules may write to, by name.
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// The server that takes the mail of `notify`; absent: none is sent.
    pub smtp: Option<SmtpConfig>,
}

impl Default for RulesConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()],
            member: "rules".to_owned(),
            create_topics: true,
            partitions: 8,
            output_retention: days(7),
            secrets: None,
            internal_hosts: Vec::new(),
            webhook_ca: None,
            clusters: BTreeMap::new(),
            smtp: None,
        }
    }
}

impl ServiceConfig for RulesConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let addresses = self.listen.clone();
        vec![ListenSpec { name: grpc::SOCKET, key: "rules.listen", transport: Transport::Tcp, addresses }]
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.member.is_empty() {
            return Err(ApiError::invalid("rules.member", "member has no name"));
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(
                ApiError::invalid("rules.partitions", "partitions out of range").over(PARTITIONS_MAX, self.partitions)
            );
        }
        self.smtp.as_ref().map_or(Ok(()), SmtpConfig::check)?;
        in_range("rules.output_retention", self.output_retention, Duration::from_secs(3600), days(3_650))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_values_out_of_range_are_refused() {
        assert!(serde_json::from_str::<RulesConfig>(r#"{"membre": "a"}"#).is_err());
        let config = |partitions| RulesConfig { partitions, ..RulesConfig::default() };
        assert_eq!((config(1).check(), config(1_024).check()), (Ok(()), Ok(())));
        for partitions in [0, 1_025] {
            let refused = config(partitions).check().expect_err("out of range");
            assert_eq!(refused.field.as_deref(), Some("rules.partitions"));
        }
        let kept = |output_retention| RulesConfig { output_retention, ..RulesConfig::default() };
        assert_eq!((kept(Duration::from_secs(3600)).check(), kept(days(3_650)).check()), (Ok(()), Ok(())));
        for output_retention in [Duration::from_secs(3599), Duration::from_secs(3_650 * 24 * 3600 + 1)] {
            let refused = kept(output_retention).check().expect_err("out of range");
            assert_eq!(refused.field.as_deref(), Some("rules.output_retention"));
        }
    }
}
