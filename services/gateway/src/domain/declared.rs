//! The declared shape of objects, `{apiVersion, kind, metadata, spec, status}`, and its way to and from the wire.
//!
//! Domain layer, no I/O. One rule: what is not understood is refused, with the path of the field.

use std::collections::BTreeMap;

use drover_proto::types::v1 as wire;
use drover_types::object::{
    CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, PolicySpec, RuleSpec,
};
use drover_types::{ApiError, TenantId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A kind of declared object, named by the type of its `spec`.
pub trait Kind: Serialize + DeserializeOwned {
    /// `apiVersion`.
    const API_VERSION: &'static str;
    /// `kind`.
    const KIND: &'static str;
    /// Name of the collection in paths of the REST interface.
    const COLLECTION: &'static str;
}

impl Kind for DeviceSpec {
    const API_VERSION: &'static str = "devices.drover.dev/v1alpha1";
    const KIND: &'static str = "Device";
    const COLLECTION: &'static str = "devices";
}

impl Kind for PolicySpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "Policy";
    const COLLECTION: &'static str = "policies";
}

impl Kind for RuleSpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "Rule";
    const COLLECTION: &'static str = "rules";
}

impl Kind for FunctionSpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "Function";
    const COLLECTION: &'static str = "functions";
}

impl Kind for CertificateAuthoritySpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "CertificateAuthority";
    const COLLECTION: &'static str = "authorities";
}

impl Kind for DeviceTypeSpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "DeviceType";
    const COLLECTION: &'static str = "types";
}

impl Kind for DeviceGroupSpec {
    const API_VERSION: &'static str = "drover.dev/v1alpha1";
    const KIND: &'static str = "DeviceGroup";
    const COLLECTION: &'static str = "groups";
}

/// `metadata` of an object. Of what a client sends, only the name, the labels and the resource version count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Metadata {
    pub name: String,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Grows with every change of the spec, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Changes with every write; sent back in an update it refuses to overwrite somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
}

/// One object with its `spec` as `S`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Declared<S> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: Metadata,
    pub spec: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub status: Option<Value>,
}

/// An object as it comes in: what it says it is, and a spec not looked at yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default = "empty")]
    spec: Value,
    /// Belongs to the platform: accepted, so that what was read can be sent back, and ignored.
    #[serde(rename = "status")]
    _status: Option<Value>,
    /// Stands in the answer to a change of a device: accepted for the same reason.
    #[serde(rename = "unconfirmedNodes")]
    _unconfirmed_nodes: Option<Value>,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

impl<S: Kind> Declared<S> {
    /// Reads an object; `apiVersion` and `kind` may be absent where the place already says what it is.
    ///
    /// `invalid_argument` with the path of the field: `spec.actions[0].kafak` for example.
    pub fn read(value: Value) -> Result<Self, ApiError> {
        let document: Document = typed("", value)?;
        expect("apiVersion", document.api_version.as_deref(), S::API_VERSION)?;
        expect("kind", document.kind.as_deref(), S::KIND)?;
        let spec = typed("spec", document.spec)?;
        Ok(Self::new(document.metadata, spec, None))
    }

    /// The object of these parts.
    pub fn new(metadata: Metadata, spec: S, status: Option<Value>) -> Self {
        Self { api_version: S::API_VERSION, kind: S::KIND, metadata, spec, status }
    }
}

/// Reads `value` as `T`; the error names the path below `prefix` where it is something else.
pub fn typed<T: DeserializeOwned>(prefix: &str, value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = match (prefix, path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, ".") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        let message = error.into_inner().to_string();
        ApiError { field: Some(field).filter(|f| f != "."), ..ApiError::invalid("", message) }
    })
}

fn expect(field: &str, found: Option<&str>, expected: &str) -> Result<(), ApiError> {
    match found {
        Some(found) if found != expected => {
            Err(ApiError::invalid(field, format!("is {found:?}, expected {expected:?}")))
        }
        Some(_) | None => Ok(()),
    }
}

impl Metadata {
    /// The wire form for an object of `tenant`. `name` is the one in the path of the request, where there is one; it
    /// must agree with the body's.
    pub fn to_wire(&self, tenant: &TenantId, name: Option<&str>) -> Result<wire::Meta, ApiError> {
        if let Some(namespace) = self.namespace.as_deref().filter(|namespace| *namespace != tenant.as_str()) {
            let message = format!("is {namespace:?}, the request is about tenant {tenant}");
            return Err(ApiError::invalid("metadata.namespace", message));
        }
        let name = match name {
            Some(name) if self.name.is_empty() || self.name == name => name,
            Some(name) => {
                let message = format!("is {:?}, the path says {name:?}", self.name);
                return Err(ApiError::invalid("metadata.name", message));
            }
            None if self.name.is_empty() => return Err(ApiError::invalid("metadata.name", "is missing")),
            None => &self.name,
        };
        Ok(wire::Meta {
            tenant: tenant.to_string(),
            name: name.to_owned(),
            labels: self.labels.clone().into_iter().collect(),
            revision: self.revision()?,
            ..wire::Meta::default()
        })
    }

    fn revision(&self) -> Result<u64, ApiError> {
        self.resource_version.as_deref().map_or(Ok(0), |text| {
            text.parse().map_err(|_| ApiError::invalid("metadata.resourceVersion", format!("{text:?} is no version")))
        })
    }
}

impl From<&wire::Meta> for Metadata {
    fn from(meta: &wire::Meta) -> Self {
        Self {
            name: meta.name.clone(),
            namespace: Some(meta.tenant.clone()),
            labels: meta.labels.clone().into_iter().collect(),
            generation: Some(meta.generation),
            resource_version: Some(meta.revision.to_string()),
            creation_timestamp: (meta.created_ms > 0).then(|| iso(meta.created_ms)),
        }
    }
}

/// Milliseconds since the Unix epoch as ISO 8601 in UTC; times beyond the year 9999 read as its end.
pub fn iso(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused<S: Kind + std::fmt::Debug>(value: Value) -> (Option<String>, String) {
        let error = Declared::<S>::read(value).expect_err("refused");
        (error.field, error.message)
    }

    #[test]
    fn an_unknown_field_is_refused_by_its_path() {
        let rule = json!({"metadata": {"name": "r"}, "spec": {"sql": "", "actions": [{"kafak": {"topic": "t"}}]}});
        let (field, message) = refused::<RuleSpec>(rule);
        assert_eq!(field.as_deref(), Some("spec.actions[0].kafak"));
        assert_eq!(
            message,
            "unknown field `kafak`, expected one of `kafka`, `republish`, `webhook`, `shadow`, `store`, `function`, `notify`, `command`"
        );

        let (field, _) = refused::<DeviceSpec>(json!({"metadata": {"name": "d", "label": {}}}));
        assert_eq!(field.as_deref(), Some("metadata.label"));
        let (field, _) = refused::<DeviceSpec>(json!({"metdata": {}}));
        assert_eq!(field.as_deref(), Some("metdata"));
    }

    #[test]
    fn a_missing_part_and_a_wrong_type_are_refused_by_their_place() {
        let (field, message) = refused::<RuleSpec>(json!({"metadata": {"name": "r"}}));
        assert_eq!((field.as_deref(), message.as_str()), (Some("spec"), "missing field `sql`"));
        let (field, _) = refused::<DeviceSpec>(json!({"spec": {"attributes": {"a": 1}}}));
        assert_eq!(field.as_deref(), Some("spec.attributes.a"));
        let (field, message) = refused::<DeviceSpec>(json!([1]));
        assert!(message.contains("invalid"), "{field:?}: {message}");
    }

    #[test]
    fn another_kind_or_version_is_refused() {
        let (field, message) = refused::<RuleSpec>(json!({"kind": "Device"}));
        assert_eq!((field.as_deref(), message.as_str()), (Some("kind"), r#"is "Device", expected "Rule""#));
        let (field, _) = refused::<DeviceSpec>(json!({"apiVersion": "drover.dev/v1"}));
        assert_eq!(field.as_deref(), Some("apiVersion"));
    }

    #[test]
    fn what_was_read_can_be_sent_back() {
        let meta = wire::Meta {
            tenant: "home".into(),
            name: "d".into(),
            labels: [("room".to_owned(), "kitchen".to_owned())].into(),
            generation: 2,
            revision: 7,
            created_ms: 1_700_000_000_000,
            updated_ms: 1_700_000_000_001,
            owner: String::new(),
        };
        let status = Some(json!({"phase": "Connected"}));
        let shown = Declared::new(Metadata::from(&meta), DeviceSpec::default(), status);
        assert_eq!(shown.metadata.creation_timestamp.as_deref(), Some("2023-11-14T22:13:20Z"));

        let back = Declared::<DeviceSpec>::read(serde_json::to_value(&shown).expect("JSON")).expect("reads back");
        let tenant = TenantId::new("home").expect("valid");
        let wire = back.metadata.to_wire(&tenant, Some("d")).expect("agrees");
        assert_eq!((wire.revision, wire.labels), (7, meta.labels));
    }

    #[test]
    fn names_and_namespaces_must_agree_with_the_path() {
        let tenant = TenantId::new("home").expect("valid");
        let field = |metadata: Metadata, path| metadata.to_wire(&tenant, path).expect_err("refused").field;
        let named = Metadata { name: "a".into(), ..Metadata::default() };
        assert_eq!(field(named.clone(), Some("b")).as_deref(), Some("metadata.name"));
        assert_eq!(field(Metadata::default(), None).as_deref(), Some("metadata.name"));
        let elsewhere = Metadata { namespace: Some("away".into()), ..named.clone() };
        assert_eq!(field(elsewhere, None).as_deref(), Some("metadata.namespace"));
        let versioned = Metadata { resource_version: Some("x".into()), ..named };
        assert_eq!(field(versioned, None).as_deref(), Some("metadata.resourceVersion"));
    }
}
