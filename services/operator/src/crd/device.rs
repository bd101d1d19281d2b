//! The Device resource.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, OBJECT_NAME};

/// A device: who it is, how it proves it, and what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "devices.drover.dev",
    version = "v1alpha1",
    kind = "Device",
    namespaced,
    doc = "A device: who it is, how it proves it, and what it may do.",
    status = "DeviceStatus",
    shortname = "dev",
    category = "drover",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 128").message("a device name has at most 128 characters"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.status==\"False\")].reason"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Last-Seen","type":"date","jsonPath":".status.lastSeen"}"#,
    printcolumn = r#"{"name":"As-Of","type":"date","jsonPath":".status.observedTime"}"#
)]
pub struct DeviceSpec {
    /// Name of a DeviceType; none: the device is of no type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub device_type: Option<String>,
    /// A disabled device is refused and disconnected.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Facts about the device, free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// How the device proves who it is; each is written to a Secret of this namespace, which must not exist yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub credentials: Vec<DeviceCredential>,
    /// Names of policies. What none of them allows is denied.
    #[serde(default = "default_policies")]
    #[schemars(length(max = 16))]
    pub policies: Vec<String>,
    /// The wanted state, merged into the device's shadow; what is left out here stays there as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub desired: Option<serde_json::Value>,
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn default_policies() -> Vec<String> {
    vec!["default".to_owned()]
}

pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// One credential: exactly one of `token` and `certificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.token) != has(self.certificate)",
    "message": "a credential has exactly one of token, certificate",
}]))]
pub struct DeviceCredential {
    /// A token, used as MQTT password or HTTP bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSecret>,
    /// A client certificate for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSecret>,
}

/// Where a token is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecret {
    /// Name of the Secret; its keys are `username` and `token`, the password of MQTT. Deleted, it is made anew with another
    /// token, and the former one is revoked.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub secret_name: String,
}

/// Where a certificate is written, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecret {
    /// Name of the Secret of type kubernetes.io/tls; its keys are `tls.crt`, `tls.key` and `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub secret_name: String,
    /// How long the certificate holds, `8760h` (the default) for example, 1h to 87600h. It is renewed when a third of that is
    /// left; the former one holds until its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(h|m|s))+$"))]
    pub duration: Option<String>,
}

/// What is known of the device, written when its phase changes, at most once in ten minutes; the registry knows the live
/// state (`drover device get`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Where the device stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DevicePhase>,
    /// `Accepted`: the registry has the device as it is declared. `Ready`: so are its Secrets and its wanted state.
    /// `Connected`: it was connected at `observedTime`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// RFC 3339 time at which this status was true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub observed_time: Option<String>,
    /// RFC 3339 time of the last connect or disconnect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_seen: Option<String>,
    /// Version of the device's shadow document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_version: Option<i64>,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DevicePhase {
    Connected,
    Disconnected,
    NeverSeen,
    Disabled,
}
