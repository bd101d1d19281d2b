//! The operator's section of the configuration.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::{Duration, ListenSpec, ServiceConfig, Transport, grpc};
use drover_types::{ApiError, TenantId, in_range};
use serde::{Deserialize, Serialize};

/// gRPC port of this service: it only says that it is there.
const PORT: u16 = 7076;
/// Name of the socket of the webhook.
pub const WEBHOOK: &str = "webhook";
/// Longest owner, in bytes: it is written into every object of the registry.
const OWNER_BYTES_MAX: usize = 64;
/// Longest name of a member, in bytes: with nine more it is in each Event, where the API server takes 128.
const MEMBER_BYTES_MAX: usize = 119;

/// `[operator]`. Every key has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperatorConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    /// Namespaces whose objects are taken care of; empty: all. A namespace is a tenant.
    pub namespaces: Vec<String>,
    /// What the registry's objects of this cluster are marked with; of several clusters over one registry each has its own.
    pub owner: String,
    /// Name of this process in its Lease and its Events.
    pub member: String,
    pub lease: LeaseConfig,
    pub webhook: WebhookConfig,
    /// Objects of one kind reconciled at the same time.
    pub concurrency: u16,
    /// How often an object is compared with the registry although nothing is heard of it, `60s` for example: so long may a
    /// change made elsewhere last.
    pub resync: Duration,
    /// How long a change of phase or of numbers may be untold in the status.
    pub status_interval: Duration,
    /// Writes of phases, over all objects.
    pub status_writes_per_second: u32,
    /// Most devices of one fleet; more are taken for a typo.
    pub fleet_devices_max: u64,
    /// How long an object that is being deleted waits for a registry that is away, before it is let go and said so.
    pub deletion_patience: Duration,
}

/// `[operator.lease]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    pub name: String,
    /// Empty: the namespace of the pod, or of the kubeconfig.
    pub namespace: String,
}

/// `[operator.webhook]`: Rules that do not compile are refused when they are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Addresses at which the API server asks, by HTTPS; none: there is no webhook.
    pub listen: Vec<SocketAddr>,
    /// The name by which it asks: of a Service, `drover-webhook.drover.svc` for example.
    pub host: String,
    /// The Secret in the Lease's namespace that the certificate is kept in. It has to be there.
    pub secret: String,
    /// The ValidatingWebhookConfiguration that is told the certificate. It has to be there.
    pub configuration: String,
}

impl WebhookConfig {
    fn check(&self) -> Result<(), ApiError> {
        let needed = [("host", &self.host), ("secret", &self.secret), ("configuration", &self.configuration)];
        match needed.iter().find(|(_, text)| text.is_empty()) {
            Some((key, _)) if !self.listen.is_empty() => {
                let field = format!("operator.webhook.{key}");
                Err(ApiError::invalid(field, "is empty, and operator.webhook.listen is not"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { name: "drover-operator".to_owned(), namespace: String::new() }
    }
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, PORT).into(), (Ipv6Addr::LOCALHOST, PORT).into()],
            namespaces: Vec::new(),
            owner: "kubernetes".to_owned(),
            member: "operator-0".to_owned(),
            lease: LeaseConfig::default(),
            webhook: WebhookConfig::default(),
            concurrency: 16,
            resync: Duration::from_secs(60),
            status_interval: Duration::from_secs(10 * 60),
            status_writes_per_second: 20,
            fleet_devices_max: 1_000_000,
            deletion_patience: Duration::from_secs(10 * 60),
        }
    }
}

impl ServiceConfig for OperatorConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let tcp = |name, key, addresses: &[SocketAddr]| ListenSpec {
            name,
            key,
            transport: Transport::Tcp,
            addresses: addresses.to_vec(),
        };
        vec![
            tcp(grpc::SOCKET, "operator.listen", &self.listen),
            tcp(WEBHOOK, "operator.webhook.listen", &self.webhook.listen),
        ]
    }

    fn check(&self) -> Result<(), ApiError> {
        in_range("operator.concurrency", self.concurrency, 1, 256)?;
        in_range("operator.resync", self.resync, Duration::from_secs(1), Duration::from_secs(24 * 3600))?;
        in_range(
            "operator.status_interval",
            self.status_interval,
            Duration::from_secs(1),
            Duration::from_secs(24 * 3600),
        )?;
        in_range("operator.status_writes_per_second", self.status_writes_per_second, 1, 10_000)?;
        in_range("operator.fleet_devices_max", self.fleet_devices_max, 1, 100_000_000)?;
        let day = Duration::from_secs(24 * 3600);
        in_range("operator.deletion_patience", self.deletion_patience, Duration::from_secs(1), day)?;
        in_range("operator.owner", self.owner.len(), 1, OWNER_BYTES_MAX)?;
        in_range("operator.member", self.member.len(), 1, MEMBER_BYTES_MAX)?;
        if self.lease.name.is_empty() {
            return Err(ApiError::invalid("operator.lease.name", "is empty"));
        }
        self.webhook.check()?;
        let mut seen = BTreeSet::new();
        for namespace in &self.namespaces {
            let field = "operator.namespaces";
            TenantId::new(namespace).map_err(|error| ApiError::invalid(field, error.to_string()))?;
            if !seen.insert(namespace) {
                return Err(ApiError::invalid(field, "a namespace is named twice").over("once", namespace));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_unknown_keys_are_refused() {
        let config: OperatorConfig = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!((config.check(), &config), (Ok(()), &OperatorConfig::default()));
        assert!(serde_json::from_str::<OperatorConfig>(r#"{"namespace": ["home"]}"#).is_err());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_limit() {
        let half =
            WebhookConfig { listen: vec![([127, 0, 0, 1], 9443).into()], host: "a".into(), ..Default::default() };
        let twice = vec!["home".to_owned(), "home".into()];
        for (config, field) in [
            (OperatorConfig { concurrency: 0, ..Default::default() }, "operator.concurrency"),
            (OperatorConfig { fleet_devices_max: 0, ..Default::default() }, "operator.fleet_devices_max"),
            (OperatorConfig { owner: "k".repeat(65), ..Default::default() }, "operator.owner"),
            (OperatorConfig { member: String::new(), ..Default::default() }, "operator.member"),
            (OperatorConfig { member: "m".repeat(MEMBER_BYTES_MAX + 1), ..Default::default() }, "operator.member"),
            (OperatorConfig { namespaces: vec!["A b".into()], ..Default::default() }, "operator.namespaces"),
            (OperatorConfig { webhook: half, ..Default::default() }, "operator.webhook.secret"),
            (OperatorConfig { namespaces: twice, ..Default::default() }, "operator.namespaces"),
        ] {
            assert_eq!(config.check().expect_err(field).field.as_deref(), Some(field));
        }
    }
}
