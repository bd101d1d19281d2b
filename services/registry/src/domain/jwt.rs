//! JSON Web Tokens as passwords: whether an issuer that is trusted vouches for a device (RFC 7515, 7519).
//!
//! Domain layer, pure: keys and time arrive as arguments. The algorithm is that of the key, never the token's choice: a
//! header that names another is refused, `none` with it, and a public key is never taken for a shared secret.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_types::{DeviceId, DeviceKey, TenantId};
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// First characters of what a connection by JWT is known by, where others have the id of a credential.
const KNOWN_PREFIX: &str = "jwt:";

/// Who may vouch for the devices of a tenant.
pub struct Issuer {
    pub tenant: TenantId,
    /// Its claim `iss`.
    pub name: String,
    /// One of these must be among the token's `aud`.
    pub audience: Vec<String>,
    /// The claim that holds the device's id.
    pub device_claim: String,
    /// How far clocks may be apart, in milliseconds.
    pub leeway_ms: u64,
    pub keys: Vec<Key>,
}

/// A key of an issuer.
pub struct Key {
    /// Its `kid`; a key without one is tried for every token.
    pub id: Option<String>,
    pub verifier: Verifier,
}

/// What verifies signatures of one algorithm.
pub enum Verifier {
    /// Big-endian, without leading zeros.
    Rs256 {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point: 4, x, y.
    Es256(Vec<u8>),
    /// An Ed25519 point.
    EdDsa(Vec<u8>),
    Hs256(hmac::Key),
}

/// The issuers as they are now; their keys change while the registry runs.
#[derive(Default)]
pub struct Issuers(RwLock<Arc<Vec<Issuer>>>);

/// What an issuer says.
#[derive(Debug, PartialEq, Eq)]
pub struct Vouched {
    pub device: DeviceKey,
    /// Until when, milliseconds since the Unix epoch; the leeway is in it.
    pub expires_ms: u64,
    pub issuer: String,
}

/// Why a token is no proof. No variant holds anything of the token's text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it has {bytes} bytes, the limit is {TOKEN_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("it is malformed: {what}")]
    Malformed { what: &'static str },
    #[error("its header has extensions (crit) that nobody here knows")]
    Critical,
    #[error("its issuer is not registered for the tenant")]
    Issuer,
    #[error("its audience is not one of the issuer's")]
    Audience,
    #[error("its key id (kid) is not one of the issuer's keys")]
    UnknownKey,
    #[error("its algorithm is not that of the issuer's key")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
    #[error("the claim {claim} is missing or of the wrong type")]
    Claim { claim: String },
    #[error("it expired {ago_ms} ms ago")]
    Expired { ago_ms: u64 },
    #[error("it is valid only in {in_ms} ms")]
    NotYetValid { in_ms: u64 },
    #[error("its claim {claim} is not the device of the user name")]
    OtherDevice { claim: String },
    #[error("its device is not registered")]
    NotRegistered,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Whether a password is meant to be a JWT: three parts, of which the first begins as every JSON object does.
pub fn is_one(password: &str) -> bool {
    password.starts_with("ey") && password.matches('.').count() == 2
}

impl Issuers {
    /// These issuers.
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self(RwLock::new(Arc::new(issuers)))
    }

    /// The issuers now.
    pub fn current(&self) -> Arc<Vec<Issuer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these.
    pub fn replace(&self, issuers: Vec<Issuer>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(issuers);
    }

    /// Whether devices of the tenant may show tokens.
    pub fn serve(&self, tenant: &TenantId) -> bool {
        self.current().iter().any(|issuer| issuer.tenant == *tenant)
    }
}

/// Whom a token vouches for. With `named`, the device that a user name says, it must be that one; without, the issuer
/// and the audience say the tenant.
pub fn verify(issuers: &[Issuer], named: Option<&DeviceKey>, token: &str, now_ms: u64) -> Result<Vouched, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong { bytes: token.len() });
    }
    let malformed = |what| Refusal::Malformed { what };
    let (signed, signature) = token.rsplit_once('.').ok_or(malformed("it has no signature"))?;
    let (header, claims) = signed.split_once('.').ok_or(malformed("it has no claims"))?;
    let header: Header = part(header).ok_or(malformed("its header is no JSON with an algorithm"))?;
    let claims: Map<String, Value> = part(claims).ok_or(malformed("its claims are no JSON object"))?;
    let signature =
        BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("its signature is not base64url"))?;
    if header.crit.is_some() {
        return Err(Refusal::Critical);
    }
    let issuer = find(issuers, named.map(|named| &named.tenant), &claims)?;
    check_signature(&issuer.keys, &header, signed.as_bytes(), &signature)?;
    let expires_ms = check_times(issuer, &claims, now_ms)?;
    let device = text(&claims, &issuer.device_claim).and_then(|id| DeviceId::new(id).ok());
    let device = device.ok_or_else(|| Refusal::Claim { claim: issuer.device_claim.clone() })?;
    let device = DeviceKey { tenant: issuer.tenant.clone(), device };
    match named {
        Some(named) if *named != device => Err(Refusal::OtherDevice { claim: issuer.device_claim.clone() }),
        Some(_) | None => Ok(Vouched { device, expires_ms, issuer: issuer.name.clone() }),
    }
}

/// The issuer that the claims name. Nothing is believed yet: it only says whose keys have to fit.
fn find<'a>(
    issuers: &'a [Issuer],
    tenant: Option<&TenantId>,
    claims: &Map<String, Value>,
) -> Result<&'a Issuer, Refusal> {
    let name = text(claims, "iss").ok_or_else(|| Refusal::Claim { claim: "iss".to_owned() })?;
    let of_name = |issuer: &&Issuer| issuer.name == name && tenant.is_none_or(|tenant| *tenant == issuer.tenant);
    let mut candidates = issuers.iter().filter(of_name).peekable();
    candidates.peek().ok_or(Refusal::Issuer)?;
    let audience = match claims.get("aud") {
        Some(Value::Array(audience)) => audience.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(_) | None => return Err(Refusal::Claim { claim: "aud".to_owned() }),
    };
    let meant = |issuer: &&Issuer| audience.iter().any(|to| issuer.audience.iter().any(|own| *to == **own));
    candidates.find(meant).ok_or(Refusal::Audience)
}

fn check_signature(keys: &[Key], header: &Header, signed: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let fits = |key: &&Key| match (&key.id, &header.kid) {
        (Some(id), Some(kid)) => id == kid,
        (Some(_), None) | (None, _) => true,
    };
    let mut candidates = keys.iter().filter(fits).peekable();
    candidates.peek().ok_or(Refusal::UnknownKey)?;
    let mut candidates = candidates.filter(|key| key.verifier.algorithm() == header.alg).peekable();
    candidates.peek().ok_or(Refusal::Algorithm)?;
    candidates.any(|key| key.verifier.verifies(signed, signature)).then_some(()).ok_or(Refusal::Signature)
}

/// When it ends, milliseconds since the Unix epoch, the leeway included.
fn check_times(issuer: &Issuer, claims: &Map<String, Value>, now_ms: u64) -> Result<u64, Refusal> {
    let wrong = |claim: &str| Refusal::Claim { claim: claim.to_owned() };
    let expires_ms = time(claims.get("exp")).ok_or_else(|| wrong("exp"))?.saturating_add(issuer.leeway_ms);
    if expires_ms <= now_ms {
        return Err(Refusal::Expired { ago_ms: now_ms - expires_ms });
    }
    if let Some(from) = claims.get("nbf") {
        let from_ms = time(Some(from)).ok_or_else(|| wrong("nbf"))?.saturating_sub(issuer.leeway_ms);
        if from_ms > now_ms {
            return Err(Refusal::NotYetValid { in_ms: from_ms - now_ms });
        }
    }
    Ok(expires_ms)
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// Seconds since the Unix epoch, whole or not, as milliseconds.
fn time(value: Option<&Value>) -> Option<u64> {
    let seconds = value?.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    // What is beyond the range of a number is the end of all times.
    Some((seconds * 1_000.0) as u64)
}

impl Verifier {
    /// As `alg` names it.
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rs256 { .. } => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
            Self::Hs256(_) => "HS256",
        }
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rs256 { modulus, exponent } => signature::RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .is_ok(),
            Self::Es256(point) => signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                .verify(signed, signature)
                .is_ok(),
            Self::EdDsa(point) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, point).verify(signed, signature).is_ok()
            }
            Self::Hs256(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

/// What an open connection by JWT is known by.
pub fn known_id(issuer: &str, expires_ms: u64) -> String {
    format!("{KNOWN_PREFIX}{expires_ms}:{issuer}")
}

/// The issuer and the end of a [`known_id`]; `None`: it is the id of a credential.
pub fn read_known_id(id: &str) -> Option<(&str, u64)> {
    let (expires_ms, issuer) = id.strip_prefix(KNOWN_PREFIX)?.split_once(':')?;
    Some((issuer, expires_ms.parse().ok()?))
}

#[cfg(test)]
mod tests;
