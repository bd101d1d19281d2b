//! What the operator needs of the platform, with the promises it relies on. Kubernetes itself is behind `kube::Client`,
//! which is a port already: tests give it a scripted API server.

use std::collections::BTreeMap;

use async_trait::async_trait;
use drover_types::object::{CertificateAuthoritySpec, DeviceSpec, FunctionSpec, PolicySpec, RuleSpec};
use drover_types::{ApiError, DeviceKey, TenantId};
use serde_json::{Map, Value};

/// An object as it is to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<S> {
    pub tenant: TenantId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub spec: S,
    /// Who keeps it so.
    pub owner: String,
}

/// An object as it is in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<S> {
    pub labels: BTreeMap<String, String>,
    pub spec: S,
    /// Empty: nobody keeps it as it is.
    pub owner: String,
    /// Changes with every write.
    pub revision: u64,
    /// Grows with every change of the spec.
    pub generation: u64,
}

/// Whether a device is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Presence {
    pub ever_seen: bool,
    pub connected: bool,
    /// Of the last connect or disconnect, milliseconds since the Unix epoch.
    pub changed_ms: u64,
}

/// A device as it is in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDevice {
    pub name: String,
    pub object: Found<DeviceSpec>,
    pub presence: Presence,
}

/// Some devices in the order of the bytes of their names.
#[derive(Clone, Debug, Default)]
pub struct DevicePage {
    pub devices: Vec<FoundDevice>,
    /// Name after which the next page goes on; empty: there is none.
    pub next: String,
}

/// How a credential is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    Token,
    Certificate,
}

/// What is known of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub kind: CredentialKind,
    /// Who takes care of it; empty: whoever asked for it.
    pub owner: String,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Milliseconds since the Unix epoch; `None`: it does not end.
    pub expires_ms: Option<u64>,
}

/// A credential that was just made, and its secret, which is nowhere else.
#[derive(Clone)]
pub struct Issued {
    pub credential: Credential,
    pub secret: IssuedSecret,
}

/// The secret of a credential.
#[derive(Clone)]
pub enum IssuedSecret {
    Token(String),
    /// All PEM.
    Certificate {
        certificate: String,
        private_key: String,
        authority: String,
    },
}

/// Why a device of a bulk call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub name: String,
    pub error: ApiError,
}

/// Most devices of one bulk call.
pub const BULK_MAX: usize = 500;
/// Most bytes of the devices of one bulk call: a message has at most 4 MiB.
pub const BULK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The registry. After `unavailable` or `deadline_exceeded` a write may or may not have happened.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    async fn device(&self, key: &DeviceKey) -> Result<Option<FoundDevice>, ApiError>;
    /// Creates a device (`revision` 0: `already_exists` if there is one), or replaces the one of this revision (`aborted`
    /// if it has another). Answers it as it is then.
    async fn put_device(&self, wanted: &Wanted<DeviceSpec>, revision: u64) -> Result<Found<DeviceSpec>, ApiError>;
    /// Revokes its credentials first. Nothing if it is gone. Answers the ingress nodes that have not confirmed.
    async fn delete_device(&self, key: &DeviceKey) -> Result<Vec<String>, ApiError>;

    async fn credentials(&self, device: &DeviceKey) -> Result<Vec<Credential>, ApiError>;
    /// `duration_s` 0: it does not end.
    async fn issue(
        &self,
        device: &DeviceKey,
        kind: CredentialKind,
        duration_s: u64,
        owner: &str,
    ) -> Result<Issued, ApiError>;
    /// Nothing if it is gone.
    async fn revoke(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError>;

    async fn rule(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<RuleSpec>>, ApiError>;
    /// As [`Registry::put_device`]; `invalid_argument` with line and column when the SQL does not compile.
    async fn put_rule(&self, wanted: &Wanted<RuleSpec>, revision: u64) -> Result<Found<RuleSpec>, ApiError>;
    /// Nothing if it is gone.
    async fn delete_rule(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError>;

    async fn policy(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<PolicySpec>>, ApiError>;
    /// As [`Registry::put_device`].
    async fn put_policy(&self, wanted: &Wanted<PolicySpec>, revision: u64) -> Result<Found<PolicySpec>, ApiError>;
    /// Nothing if it is gone.
    async fn delete_policy(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError>;

    async fn function(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<FunctionSpec>>, ApiError>;
    /// As [`Registry::put_device`]; `invalid_argument` when the script does not run or does not answer as its examples say.
    async fn put_function(&self, wanted: &Wanted<FunctionSpec>, revision: u64)
    -> Result<Found<FunctionSpec>, ApiError>;
    /// Nothing if it is gone.
    async fn delete_function(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError>;

    async fn certificate_authority(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<Found<CertificateAuthoritySpec>>, ApiError>;
    /// As [`Registry::put_device`]; `already_exists` also when another tenant has one of its subject.
    async fn put_certificate_authority(
        &self,
        wanted: &Wanted<CertificateAuthoritySpec>,
        revision: u64,
    ) -> Result<Found<CertificateAuthoritySpec>, ApiError>;
    /// It registers no device from then on. Nothing if it is gone.
    async fn delete_certificate_authority(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError>;

    /// Devices after the name `after`, up to 100 of them.
    async fn devices(&self, tenant: &TenantId, after: &str) -> Result<DevicePage, ApiError>;
    /// Creates or replaces up to [`BULK_MAX`] devices of one tenant, of up to [`BULK_BYTES_MAX`] bytes unless it is one; answers
    /// those refused.
    async fn put_devices(&self, wanted: &[Wanted<DeviceSpec>]) -> Result<Vec<Refusal>, ApiError>;
    /// Deletes up to [`BULK_MAX`] devices of one owner; answers those refused.
    async fn delete_devices(&self, tenant: &TenantId, owner: &str, names: &[String]) -> Result<Vec<Refusal>, ApiError>;
}

/// Some devices whose shadows want what is not reported, in no order.
#[derive(Clone, Debug, Default)]
pub struct OpenDeltas {
    pub devices: Vec<String>,
    /// Where the next page goes on; empty: there is none.
    pub next: String,
}

/// The shadows of devices.
#[async_trait]
pub trait Shadows: Send + Sync + 'static {
    /// What the device's shadow wants, and its version; (empty, 0): there is no shadow.
    async fn desired(&self, device: &DeviceKey) -> Result<(Map<String, Value>, u64), ApiError>;
    /// Merges into what the shadow wants; a repeat of `id` changes nothing. Answers the new version.
    async fn update(&self, device: &DeviceKey, desired: &Map<String, Value>, id: [u8; 16]) -> Result<u64, ApiError>;
    /// Of a tenant, from `after` on (empty: from the start), up to 1,000. An error as long as not all of them are known.
    async fn open_deltas(&self, tenant: &TenantId, after: &str) -> Result<OpenDeltas, ApiError>;
}

/// How a rule is doing in the rules service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleRun {
    /// The generation in the registry that it speaks about.
    pub generation: u64,
    pub accepted: bool,
    /// One word.
    pub reason: String,
    pub message: String,
    pub matched: u64,
    pub emitted: u64,
    pub failed: u64,
    pub dropped: u64,
    /// Messages not yet evaluated, and the age of the oldest of them in milliseconds.
    pub lag: u64,
    pub lag_ms: u64,
    pub last_error: Option<RuleError>,
}

/// The last message that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleError {
    pub time_ms: u64,
    pub message: String,
    pub topic: String,
    /// The beginning of its payload.
    pub sample: String,
    /// Where it stands in the log: `topic/partition/offset`.
    pub source: String,
}

/// The rules service.
#[async_trait]
pub trait RuleRuns: Send + Sync + 'static {
    /// `None`: the service has not seen the rule yet.
    async fn run_of(&self, tenant: &TenantId, name: &str) -> Result<Option<RuleRun>, ApiError>;
}
