//! The DeviceFleet resource.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::device::{default_policies, yes};
use super::{Condition, OBJECT_NAME};

/// Many devices of one kind, which are in the registry only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "DeviceFleet",
    namespaced,
    doc = "Many devices of one kind. They are in the registry only, not one object each in the cluster.",
    status = "DeviceFleetStatus",
    shortname = "fleet",
    category = "drover",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.status==\"False\")].reason"}"#,
    printcolumn = r#"{"name":"Declared","type":"integer","jsonPath":".status.declared"}"#,
    printcolumn = r#"{"name":"Registered","type":"integer","jsonPath":".status.registered"}"#,
    printcolumn = r#"{"name":"Connected","type":"integer","jsonPath":".status.connected"}"#,
    printcolumn = r#"{"name":"Converged","type":"integer","jsonPath":".status.converged"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"As-Of","type":"date","jsonPath":".status.observedTime"}"#
)]
pub struct DeviceFleetSpec {
    /// What every device of the fleet is like.
    #[serde(default)]
    pub template: FleetTemplate,
    /// Which devices there are.
    pub source: FleetSource,
}

/// What every device of a fleet is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetTemplate {
    /// Name of a DeviceType; none: the devices are of no type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub device_type: Option<String>,
    /// Disabled devices are refused and disconnected.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Labels of each device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Facts about each device, free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Names of policies. What none of them allows is denied.
    #[serde(default = "default_policies")]
    #[schemars(length(max = 16))]
    pub policies: Vec<String>,
}

impl Default for FleetTemplate {
    fn default() -> Self {
        Self {
            device_type: None,
            enabled: true,
            labels: BTreeMap::new(),
            attributes: BTreeMap::new(),
            policies: default_policies(),
        }
    }
}

/// Which devices a fleet has: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.count), has(self.names), has(self.csv), has(self.certificateAuthority)].filter(x, x).size() == 1",
    "message": "a source has exactly one of count, names, csv, certificateAuthority",
}, {
    "rule": "has(self.certificateAuthority) == has(oldSelf.certificateAuthority)",
    "message": "a fleet of an authority stays one, and no other becomes one: make another fleet",
}]))]
pub struct FleetSource {
    /// Devices with numbered names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountSource>,
    /// Devices by name, 1,000 at most; longer lists come by `csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub names: Option<Vec<String>>,
    /// Devices from a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvSource>,
    /// Devices that connect with a certificate of an authority: each is registered when it does so for the first time. A
    /// template that changes is that of devices to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<AuthoritySource>,
}

impl FleetSource {
    /// The ConfigMap it is read from.
    pub fn config_map(&self) -> Option<&str> {
        let of_authority = || self.certificate_authority.as_ref()?.config_map.as_deref();
        self.csv.as_ref().map(|csv| csv.config_map.as_str()).or_else(of_authority)
    }
}

/// Devices `prefix` and a number from 1 on, `sensor-0001` for example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountSource {
    /// How many; the operator has a limit (`operator.fleet_devices_max`).
    #[schemars(range(min = 0))]
    pub devices: u64,
    /// What their names begin with. It cannot change: that would be other devices.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9._:@-]+$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the prefix cannot change, for other names are other devices: make another fleet",
    }]))]
    pub prefix: String,
    /// Digits of the number, filled up with zeros. They cannot change: that would be other devices.
    #[serde(default = "digits")]
    #[schemars(range(min = 1, max = 9))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the digits cannot change, for other names are other devices: make another fleet",
    }]))]
    pub digits: u8,
}

fn digits() -> u8 {
    6
}

/// A table in a ConfigMap of this namespace, with the columns `name`, and where wanted `type`, `labels` and `attributes`
/// (`k=v;k2=v2`), which come on top of the template's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsvSource {
    /// Name of the ConfigMap. It is read again when it changes.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub config_map: String,
    /// Its key.
    #[serde(default = "csv_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The certificate of an authority, PEM, in a Secret or a ConfigMap of this namespace; its private key is of no use there.
/// The common name of a device's certificate is the device's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretName) != has(self.configMap)",
    "message": "the certificate is in a Secret or in a ConfigMap",
}]))]
pub struct AuthoritySource {
    /// Name of the Secret. It is read again every ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub secret_name: Option<String>,
    /// Name of the ConfigMap. It is read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub config_map: Option<String>,
    /// Its key.
    #[serde(default = "authority_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn authority_key() -> String {
    "ca.crt".to_owned()
}

fn csv_key() -> String {
    "devices.csv".to_owned()
}

/// How the fleet is doing, brought up to date at most once in ten minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceFleetStatus {
    /// `Accepted`: the source can be read. `Ready`: every device of it is registered as declared, or its authority registers
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// RFC 3339 time at which these numbers were true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub observed_time: Option<String>,
    /// Devices of the source; nobody knows how many an authority has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<i64>,
    /// Of these, those that the registry has as declared; of an authority, those that it has registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<i64>,
    /// Of these, those that are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<i64>,
    /// Of those registered, those whose classic shadow has no difference open between desired and reported; no desired state counts as converged. Absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<i64>,
    /// Those that the registry refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<i64>,
    /// Why, of the first ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_errors: Vec<FleetError>,
}

/// Why a device of a fleet is not registered as declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetError {
    pub device: String,
    pub message: String,
}
