//! Secrets that hold a device's credentials: how they look, and which are ours.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::ports::{CredentialKind, Issued, IssuedSecret};

/// Annotation: the id of the credential that the Secret holds.
pub const CREDENTIAL: &str = "drover.dev/credential";
/// Annotation: the id of the one it held before, which is good until its own end.
pub const PREVIOUS: &str = "drover.dev/previous-credential";
/// Label of everything that the operator makes.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "drover-operator");

/// What is there under the name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    /// Not made for this device.
    Foreign,
    Ours(Kept),
}

/// A Secret that was made for the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of the credential it holds; `None`: somebody took the annotation or the contents away.
    pub credential: Option<String>,
    pub previous: Option<String>,
    pub resource_version: String,
}

/// Whether a Secret is the device's of this `uid`, and what it holds.
pub fn seen(secret: Option<&Secret>, uid: &str, kind: CredentialKind) -> Seen {
    let Some(secret) = secret else { return Seen::Nothing };
    let owners = secret.metadata.owner_references.iter().flatten();
    let is_made_for = owners.into_iter().any(|owner| owner.uid == uid && owner.controller == Some(true));
    // The type of a Secret cannot be changed.
    if !is_made_for || secret.type_.as_deref() != Some(type_of(kind)) {
        return Seen::Foreign;
    }
    let annotation = |name: &str| secret.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
    let data = secret.data.as_ref();
    let complete = keys(kind).iter().all(|key| data.and_then(|d| d.get(*key)).is_some_and(|v| !v.0.is_empty()));
    Seen::Ours(Kept {
        credential: annotation(CREDENTIAL).filter(|_| complete),
        previous: annotation(PREVIOUS),
        resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
    })
}

fn type_of(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Token => "Opaque",
        CredentialKind::Certificate => "kubernetes.io/tls",
    }
}

/// The keys that a device needs.
fn keys(kind: CredentialKind) -> &'static [&'static str] {
    match kind {
        CredentialKind::Token => &["token", "username"],
        CredentialKind::Certificate => &["ca.crt", "tls.crt", "tls.key"],
    }
}

/// The Secret `name` of a device that logs in as `username`, with what was just issued.
pub fn make(name: &str, owner: OwnerReference, username: &str, issued: &Issued, previous: Option<&str>) -> Secret {
    let mut annotations = BTreeMap::from([(CREDENTIAL.to_owned(), issued.credential.id.clone())]);
    if let Some(previous) = previous {
        annotations.insert(PREVIOUS.to_owned(), previous.to_owned());
    }
    let data = match &issued.secret {
        IssuedSecret::Token(token) => vec![("token", token.as_str()), ("username", username)],
        IssuedSecret::Certificate { certificate, private_key, authority } => {
            vec![("ca.crt", authority.as_str()), ("tls.crt", certificate.as_str()), ("tls.key", private_key.as_str())]
        }
    };
    let bytes = |(key, text): (&str, &str)| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some(type_of(issued.credential.kind).to_owned()),
        data: Some(data.into_iter().map(bytes).collect()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Credential;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), controller: Some(true), name: "d".into(), ..OwnerReference::default() }
    }

    fn issued(secret: IssuedSecret, kind: CredentialKind) -> Issued {
        let credential =
            Credential { id: "c2".into(), kind, owner: "kubernetes".into(), created_ms: 0, expires_ms: None };
        Issued { credential, secret }
    }

    #[test]
    fn a_secret_says_what_it_holds_and_whose_it_is() {
        let token = issued(IssuedSecret::Token("drv_x".into()), CredentialKind::Token);
        let secret = make("s", owner("u1"), "home/d", &token, Some("c1"));
        let Seen::Ours(kept) = seen(Some(&secret), "u1", CredentialKind::Token) else { panic!("ours") };
        assert_eq!((kept.credential.as_deref(), kept.previous.as_deref()), (Some("c2"), Some("c1")));
        assert_eq!(seen(Some(&secret), "u2", CredentialKind::Token), Seen::Foreign);
        assert_eq!(seen(Some(&Secret::default()), "u1", CredentialKind::Token), Seen::Foreign);
        assert_eq!(seen(Some(&secret), "u1", CredentialKind::Certificate), Seen::Foreign);
        assert_eq!(seen(None, "u1", CredentialKind::Token), Seen::Nothing);
    }

    #[test]
    fn a_secret_that_lacks_a_part_holds_nothing() {
        let certificate =
            IssuedSecret::Certificate { certificate: "cert".into(), private_key: "key".into(), authority: "ca".into() };
        let mut secret = make("s", owner("u"), "home/d", &issued(certificate, CredentialKind::Certificate), None);
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        let holds = |secret: &Secret| match seen(Some(secret), "u", CredentialKind::Certificate) {
            Seen::Ours(kept) => kept.credential.is_some(),
            other => panic!("{other:?}"),
        };
        assert!(holds(&secret));
        secret.data.as_mut().and_then(|data| data.remove("tls.key"));
        assert!(!holds(&secret));
    }
}
