//! `[[security.jwt]]`: who may vouch for devices by JSON Web Tokens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drover_types::TenantId;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Most issuers.
const ISSUERS_MAX: usize = 64;
/// Largest difference of clocks that is put up with.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// One issuer, for the devices of one tenant. Exactly one of `jwks`, `public_key` and `secret` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuer {
    /// The tenant whose devices it vouches for; absent: `default`.
    #[serde(default = "TenantId::default_tenant")]
    pub tenant: TenantId,
    /// The claim `iss` of its tokens.
    pub issuer: String,
    /// A token is taken if one of these is among its `aud`.
    pub audience: Vec<String>,
    /// File with a JSON Web Key Set (RFC 7517); read again every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<PathBuf>,
    /// File with public keys or certificates, PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA; read again
    /// every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PathBuf>,
    /// File with a secret of at least 32 bytes for HS256; a last newline is not part of it; read again every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<PathBuf>,
    /// The claim that holds the device's id; absent: `sub`.
    #[serde(default = "sub")]
    pub device_claim: String,
    /// How far clocks may be apart, at most `10m`; absent: `30s`.
    #[serde(default = "leeway")]
    pub leeway: Duration,
}

/// Where the keys of an issuer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtKeys<'a> {
    Jwks(&'a Path),
    PublicKey(&'a Path),
    Secret(&'a Path),
}

fn sub() -> String {
    "sub".to_owned()
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

impl JwtIssuer {
    /// Where its keys are; `None`: not said, or said twice.
    pub fn keys(&self) -> Option<JwtKeys<'_>> {
        match (&self.jwks, &self.public_key, &self.secret) {
            (Some(file), None, None) => Some(JwtKeys::Jwks(file)),
            (None, Some(file), None) => Some(JwtKeys::PublicKey(file)),
            (None, None, Some(file)) => Some(JwtKeys::Secret(file)),
            _ => None,
        }
    }

    /// Why these issuers cannot be used together; the text begins with the number of the one that is wrong.
    pub fn check_all(issuers: &[Self]) -> Result<(), String> {
        if issuers.len() > ISSUERS_MAX {
            return Err(format!("{} issuers, the limit is {ISSUERS_MAX}", issuers.len()));
        }
        let mut taken = BTreeSet::new();
        for (number, issuer) in issuers.iter().enumerate() {
            let refused = |reason: String| Err(format!("[{number}]: {reason}"));
            if issuer.issuer.is_empty() || issuer.device_claim.is_empty() {
                return refused("issuer and device_claim are not empty".to_owned());
            }
            if issuer.audience.is_empty() {
                return refused("audience names nobody; a token meant for others must not be taken".to_owned());
            }
            if issuer.keys().is_none() {
                return refused("exactly one of jwks, public_key and secret is set".to_owned());
            }
            if issuer.leeway > LEEWAY_MAX {
                return refused(format!("leeway is {}, the limit is {LEEWAY_MAX}", issuer.leeway));
            }
            // Together they say the tenant of a token that comes without a user name.
            for audience in &issuer.audience {
                if !taken.insert((&issuer.issuer, audience)) {
                    return refused(format!(
                        "issuer {:?} with audience {audience:?} is registered twice",
                        issuer.issuer
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(keys: &str) -> JwtIssuer {
        let text = format!(r#"{{"issuer": "https://id.example.org", "audience": ["drover"]{keys}}}"#);
        serde_json::from_str(&text).expect("an issuer")
    }

    #[test]
    fn an_issuer_has_one_place_for_its_keys_and_defaults_for_the_rest() {
        let jwks = issuer(r#", "jwks": "keys.json""#);
        assert_eq!((jwks.tenant.as_str(), jwks.device_claim.as_str(), jwks.leeway), ("default", "sub", leeway()));
        assert_eq!(jwks.keys(), Some(JwtKeys::Jwks(Path::new("keys.json"))));
        for wrong in ["", r#", "jwks": "a", "secret": "b""#, r#", "public_key": "a", "secret": "b""#] {
            let refused = JwtIssuer::check_all(&[issuer(wrong)]).expect_err(wrong);
            assert_eq!(refused, "[0]: exactly one of jwks, public_key and secret is set");
        }
        assert!(serde_json::from_str::<JwtIssuer>(r#"{"issuer": "i", "audience": ["a"], "tennant": "t"}"#).is_err());
    }

    #[test]
    fn limits_are_kept_and_a_token_has_one_tenant() {
        let good = issuer(r#", "secret": "file""#);
        assert_eq!(JwtIssuer::check_all(&[JwtIssuer { leeway: LEEWAY_MAX, ..good.clone() }]), Ok(()));
        let far = JwtIssuer { leeway: Duration::from_millis(600_001), ..good.clone() };
        assert_eq!(JwtIssuer::check_all(&[far]), Err("[0]: leeway is 600001ms, the limit is 10m".to_owned()));
        let nobody = JwtIssuer { audience: Vec::new(), ..good.clone() };
        assert!(JwtIssuer::check_all(&[nobody]).is_err());
        let of_home = JwtIssuer { tenant: TenantId::new("home").expect("valid"), ..good.clone() };
        let twice = JwtIssuer::check_all(&[good.clone(), of_home.clone()]).expect_err("ambiguous");
        assert!(twice.starts_with("[1]: ") && twice.ends_with("is registered twice"), "{twice}");
        let other = JwtIssuer { audience: vec!["drover-home".to_owned()], ..of_home };
        assert_eq!(JwtIssuer::check_all(&[good.clone(), other]), Ok(()));
        let many: Vec<_> = (0..65).map(|i| JwtIssuer { issuer: format!("i{i}"), ..good.clone() }).collect();
        assert_eq!(JwtIssuer::check_all(&many[..64]), Ok(()));
        assert_eq!(JwtIssuer::check_all(&many), Err("65 issuers, the limit is 64".to_owned()));
    }
}
