//! The registry's objects: what every object has, and what each kind says of itself.
//!
//! Innermost layer: plain data without I/O; [`crate::wire`] gives it its stored and sent form.

use std::collections::BTreeMap;
use std::fmt;

use drover_types::object::{
    Action, CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, PolicySpec, RuleSpec,
};
use drover_types::{DeviceId, DeviceKey, TenantId};

/// SHA-256 of a token, of a certificate's DER form, or of a pre-shared key.
pub type Digest = [u8; 32];

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Device,
    Credential,
    Policy,
    Rule,
    ApiToken,
    Function,
    CertificateAuthority,
    DeviceType,
    DeviceGroup,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Kind::Device,
        Kind::Credential,
        Kind::Policy,
        Kind::Rule,
        Kind::ApiToken,
        Kind::Function,
        Kind::CertificateAuthority,
        Kind::DeviceType,
        Kind::DeviceGroup,
    ];

    /// The name in keys of the change feed and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Device => "device",
            Kind::Credential => "credential",
            Kind::Policy => "policy",
            Kind::Rule => "rule",
            Kind::ApiToken => "api_token",
            Kind::Function => "function",
            Kind::CertificateAuthority => "certificate_authority",
            Kind::DeviceType => "device_type",
            Kind::DeviceGroup => "device_group",
        }
    }
}

/// Where an object stands: `kind/tenant/name`, the key of the change feed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    pub tenant: TenantId,
    /// Of a credential: its id.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` among the tenant's objects of `kind`.
    pub fn new(kind: Kind, tenant: &TenantId, name: impl Into<String>) -> Self {
        Self { kind, tenant: tenant.clone(), name: name.into() }
    }

    /// The key of a device.
    pub fn device(device: &DeviceKey) -> Self {
        Self::new(Kind::Device, &device.tenant, device.device.as_str())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.tenant, self.name)
    }
}

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub tenant: TenantId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Grows by one with every change of the spec, from 1.
    pub generation: u64,
    /// Given by the store: grows with every write of this name, also across deletion.
    pub revision: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub updated_ms: u64,
    /// Who keeps the object as it is; empty: whoever changes it.
    pub owner: String,
}

/// An object: what every one has, and what its kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub meta: Meta,
    pub spec: Spec,
}

/// What each kind says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Device(DeviceSpec),
    Credential(Credential),
    Policy(PolicySpec),
    Rule(Box<RuleSpec>),
    ApiToken(ApiToken),
    Function(FunctionSpec),
    CertificateAuthority(CertificateAuthoritySpec),
    DeviceType(DeviceTypeSpec),
    DeviceGroup(DeviceGroupSpec),
}

/// What is known of a credential; never the secret itself. Its id is the object's name; it never changes, but for the
/// master key that its secret is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub device: DeviceId,
    pub kind: CredentialKind,
    /// Milliseconds since the Unix epoch; `None`: it does not end.
    pub expires_ms: Option<u64>,
    pub digest: Digest,
    /// Of a pre-shared key; the others are never needed again.
    pub sealed: Option<Sealed>,
}

impl Credential {
    /// Whether it is none any more, as of `now_ms`.
    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|ends| ends <= now_ms)
    }
}

/// How a credential is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    Token,
    Certificate,
    PreSharedKey,
}

/// Bytes of the nonce of a sealed secret.
pub const NONCE_BYTES: usize = 12;

/// A secret under a master key, which is not where this is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which master key.
    pub master_key: String,
    pub nonce: [u8; NONCE_BYTES],
    /// With the tag at its end.
    pub secret: Vec<u8>,
}

/// What is known of a token of the REST interface; never the token itself. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub role: Role,
    /// Milliseconds since the Unix epoch; `None`: it does not end.
    pub expires_ms: Option<u64>,
    /// Who made it.
    pub created_by: String,
    pub digest: Digest,
}

/// What the holder of an API token may do in its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Viewer,
    Editor,
    Admin,
}

impl Object {
    /// Kind, tenant and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.spec.kind(), &self.meta.tenant, self.meta.name.clone())
    }

    /// Bytes of its texts: about what it takes of an answer.
    pub fn bytes(&self) -> usize {
        let own = match &self.spec {
            Spec::Device(device) => device_bytes(device),
            Spec::Policy(policy) => policy.statements.iter().flat_map(|s| &s.resources).map(String::len).sum(),
            Spec::Rule(rule) => {
                rule.sql.len() + rule.all_actions().map(|(_, action)| action_bytes(action)).sum::<usize>()
            }
            Spec::Function(function) => function.bytes(),
            Spec::CertificateAuthority(authority) => {
                authority.certificate.len() + texts(&authority.labels) + device_bytes(&authority.template)
            }
            Spec::DeviceType(device_type) => device_type.bytes(),
            Spec::DeviceGroup(group) => group.bytes(),
            Spec::Credential(_) | Spec::ApiToken(_) => 0,
        };
        own + texts(&self.meta.labels) + self.meta.name.len() + self.meta.owner.len()
    }

    /// The credential and the device it belongs to, if this is one.
    pub fn credential(&self) -> Option<(&Credential, DeviceKey)> {
        let Spec::Credential(credential) = &self.spec else { return None };
        Some((credential, DeviceKey { tenant: self.meta.tenant.clone(), device: credential.device.clone() }))
    }
}

fn texts(entries: &BTreeMap<String, String>) -> usize {
    entries.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn device_bytes(device: &DeviceSpec) -> usize {
    texts(&device.attributes) + device.policies.iter().map(String::len).sum::<usize>()
}

/// Texts in the states of a shadow count twice: by themselves and in the JSON around them.
fn action_bytes(action: &Action) -> usize {
    let templates = action.templates();
    let templates: usize = templates.iter().map(|template| template.pointer.len() + template.text.len()).sum();
    let states = action.shadow.iter().flat_map(|shadow| shadow.desired.iter().chain(&shadow.reported));
    let states: usize = states.map(|state| state.to_string().len()).sum();
    templates + states + action.kafka.as_ref().map_or(0, |kafka| kafka.topic.len())
}

impl Spec {
    /// Which kind this is.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Device(_) => Kind::Device,
            Spec::Credential(_) => Kind::Credential,
            Spec::Policy(_) => Kind::Policy,
            Spec::Rule(_) => Kind::Rule,
            Spec::ApiToken(_) => Kind::ApiToken,
            Spec::Function(_) => Kind::Function,
            Spec::CertificateAuthority(_) => Kind::CertificateAuthority,
            Spec::DeviceType(_) => Kind::DeviceType,
            Spec::DeviceGroup(_) => Kind::DeviceGroup,
        }
    }

    /// That of a device; panics if it is none.
    pub fn device(&self) -> &DeviceSpec {
        let Spec::Device(spec) = self else { self.is_no(Kind::Device) };
        spec
    }

    /// That of a policy; panics if it is none.
    pub fn policy(&self) -> &PolicySpec {
        let Spec::Policy(spec) = self else { self.is_no(Kind::Policy) };
        spec
    }

    /// That of a rule; panics if it is none.
    pub fn rule(&self) -> &RuleSpec {
        let Spec::Rule(spec) = self else { self.is_no(Kind::Rule) };
        spec
    }

    /// That of an API token; panics if it is none.
    pub fn api_token(&self) -> &ApiToken {
        let Spec::ApiToken(spec) = self else { self.is_no(Kind::ApiToken) };
        spec
    }

    /// That of a function; panics if it is none.
    pub fn function(&self) -> &FunctionSpec {
        let Spec::Function(spec) = self else { self.is_no(Kind::Function) };
        spec
    }

    /// That of a certificate authority; panics if it is none.
    pub fn certificate_authority(&self) -> &CertificateAuthoritySpec {
        let Spec::CertificateAuthority(spec) = self else { self.is_no(Kind::CertificateAuthority) };
        spec
    }

    /// That of a device type; panics if it is none.
    pub fn device_type(&self) -> &DeviceTypeSpec {
        let Spec::DeviceType(spec) = self else { self.is_no(Kind::DeviceType) };
        spec
    }

    /// That of a device group; panics if it is none.
    pub fn device_group(&self) -> &DeviceGroupSpec {
        let Spec::DeviceGroup(spec) = self else { self.is_no(Kind::DeviceGroup) };
        spec
    }

    fn is_no(&self, wanted: Kind) -> ! {
        unreachable!("the key of a {} holds a {}", wanted.as_str(), self.kind().as_str())
    }
}

#[cfg(test)]
mod tests {
    use drover_types::object::RuleSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_long_in_a_rule_counts() {
        let bytes = |action: serde_json::Value| {
            let spec: RuleSpec = serde_json::from_value(json!({"sql": "", "actions": [action]})).expect("a spec");
            spec.all_actions().map(|(_, action)| action_bytes(action)).sum::<usize>()
        };
        let long = "x".repeat(1_000);
        for action in [
            json!({"kafka": {"topic": "t", "key": long}}),
            json!({"kafka": {"topic": "t", "headers": {"a": long}}}),
            json!({"republish": {"topic": long}}),
            json!({"webhook": {"url": "https://h", "body": long}}),
            json!({"webhook": {"url": "https://h", "headers": {"a": long}}}),
            json!({"shadow": {"device": "d", "desired": {"a": long}}}),
            json!({"shadow": {"device": "d", "reported": {long.as_str(): 1}}}),
            json!({"notify": {"channel": "c", "text": long}}),
        ] {
            assert!(bytes(action.clone()) >= long.len(), "{action}");
        }
    }
}
