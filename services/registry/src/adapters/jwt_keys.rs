//! The keys of JWT issuers out of their files: JSON Web Key Sets, PEM, or shared secrets.
//!
//! Adapter layer. Files are read when the registry starts, where a mistake ends it, and again from time to time, where a
//! mistake leaves the keys as they were: issuers change their keys while devices are connected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_host::Shutdown;
use drover_host::config::{JwtIssuer, JwtKeys};
use ring::hmac;
use serde::Deserialize;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::domain::jwt::{Issuer, Issuers, Key, Verifier};

/// How often the files are read again.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Largest file, in bytes, and most keys of an issuer.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const KEYS_MAX: usize = 64;
/// Shortest secret, in bytes: as long as the hash (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// The object identifier of Ed25519.
const ED25519: &str = "1.3.101.112";
/// Lengths of a P-256 point without compression and of an Ed25519 point, in bytes.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// Why a file gives no keys.
#[derive(Debug, thiserror::Error)]
#[error("keys of JWT issuer {issuer:?}: {}: {reason}", file.display())]
pub struct KeysError {
    issuer: String,
    file: PathBuf,
    reason: String,
}

/// A key as RFC 7517 has it; what is not for us is passed over.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// The issuers of a configuration with their keys.
pub fn read(config: &[JwtIssuer]) -> Result<Vec<Issuer>, KeysError> {
    config.iter().map(read_issuer).collect()
}

/// Reads the keys again and again, until `shutdown`.
pub async fn follow(issuers: &Issuers, config: Vec<JwtIssuer>, shutdown: Shutdown) {
    if !config.is_empty() {
        shutdown.run_until_cancelled(read_again(issuers, Arc::new(config))).await;
    }
}

async fn read_again(issuers: &Issuers, config: Arc<Vec<JwtIssuer>>) {
    loop {
        tokio::time::sleep(READ_AGAIN).await;
        let config = config.clone();
        match tokio::task::spawn_blocking(move || read(&config)).await {
            Ok(Ok(read)) => issuers.replace(read),
            Ok(Err(error)) => tracing::warn!(%error, "keys stay as they were"),
            Err(error) => tracing::error!(%error, "keys stay as they were"),
        }
    }
}

fn read_issuer(config: &JwtIssuer) -> Result<Issuer, KeysError> {
    let failed = |file: &Path, reason: String| KeysError { issuer: config.issuer.clone(), file: file.into(), reason };
    let source = config.keys().ok_or_else(|| failed(Path::new(""), "no file is named".to_owned()))?;
    let (JwtKeys::Jwks(file) | JwtKeys::PublicKey(file) | JwtKeys::Secret(file)) = source;
    let keys = bytes(file).and_then(|bytes| match source {
        JwtKeys::Jwks(_) => jwks(&bytes),
        JwtKeys::PublicKey(_) => pem(&bytes),
        JwtKeys::Secret(_) => Ok(vec![Key { id: None, verifier: secret(without_newline(&bytes))? }]),
    });
    let keys = keys.map_err(|reason| failed(file, reason))?;
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(failed(file, format!("holds {} keys that can be used, allowed are 1 to {KEYS_MAX}", keys.len())));
    }
    Ok(Issuer {
        tenant: config.tenant.clone(),
        name: config.issuer.clone(),
        audience: config.audience.clone(),
        device_claim: config.device_claim.clone(),
        leeway_ms: config.leeway.as_millis(),
        keys,
    })
}

fn bytes(file: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("has {bytes} bytes, the limit is {FILE_BYTES_MAX}"));
    }
    std::fs::read(file).map_err(|error| error.to_string())
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn secret(bytes: &[u8]) -> Result<Verifier, String> {
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(format!("the secret has {} bytes, at least {SECRET_BYTES_MIN} are needed", bytes.len()));
    }
    Ok(Verifier::Hs256(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
}

fn jwks(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(bytes).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
    let mut keys = Vec::new();
    for (number, key) in set.keys.into_iter().enumerate() {
        let jwk: Jwk = serde_json::from_value(key).map_err(|error| format!("keys[{number}]: {error}"))?;
        if let Some(verifier) = verifier(&jwk).map_err(|reason| format!("keys[{number}]: {reason}"))? {
            keys.push(Key { id: jwk.kid, verifier });
        }
    }
    Ok(keys)
}

/// `None`: a key for something else.
fn verifier(jwk: &Jwk) -> Result<Option<Verifier>, String> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    let member = |name: &str, value: &Option<String>| {
        let text = value.as_ref().ok_or_else(|| format!("{name} is missing"))?;
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
    };
    let for_algorithm = |name: &str| jwk.alg.as_deref().is_none_or(|alg| alg == name);
    Ok(match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) if for_algorithm("RS256") => Some(rsa(&member("n", &jwk.n)?, &member("e", &jwk.e)?)),
        ("EC", Some("P-256")) if for_algorithm("ES256") => {
            Some(p256([vec![4], member("x", &jwk.x)?, member("y", &jwk.y)?].concat())?)
        }
        ("OKP", Some("Ed25519")) if for_algorithm("EdDSA") => Some(ed25519(member("x", &jwk.x)?)?),
        ("oct", _) if for_algorithm("HS256") => Some(secret(&member("k", &jwk.k)?)?),
        _ => None,
    })
}

/// All keys of a PEM file; other blocks are passed over.
fn pem(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|error| format!("is no PEM: {error}"))?;
        let malformed = |error: &dyn std::fmt::Display| format!("{} is malformed: {error}", block.label);
        let verifier = match block.label.as_str() {
            "PUBLIC KEY" => {
                let (_, key) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|error| malformed(&error))?;
                public_key(&key)?
            }
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(&block.contents).map_err(|error| malformed(&error))?;
                public_key(certificate.public_key())?
            }
            _ => continue,
        };
        keys.push(Key { id: None, verifier });
    }
    Ok(keys)
}

fn public_key(key: &SubjectPublicKeyInfo<'_>) -> Result<Verifier, String> {
    match key.parsed().map_err(|error| error.to_string())? {
        PublicKey::RSA(key) => Ok(rsa(key.modulus, key.exponent)),
        PublicKey::EC(point) => p256(point.data().to_vec()),
        PublicKey::Unknown(point) if key.algorithm.algorithm.to_id_string() == ED25519 => ed25519(point.to_vec()),
        PublicKey::Unknown(_) | PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) => {
            Err("a key is RSA, P-256 or Ed25519".to_owned())
        }
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Verifier {
    let trimmed = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect();
    Verifier::Rs256 { modulus: trimmed(modulus), exponent: trimmed(exponent) }
}

fn p256(point: Vec<u8>) -> Result<Verifier, String> {
    match point.len() {
        P256_BYTES => Ok(Verifier::Es256(point)),
        bytes => Err(format!("a P-256 point has {P256_BYTES} bytes, not {bytes}")),
    }
}

fn ed25519(point: Vec<u8>) -> Result<Verifier, String> {
    match point.len() {
        ED25519_BYTES => Ok(Verifier::EdDsa(point)),
        bytes => Err(format!("an Ed25519 point has {ED25519_BYTES} bytes, not {bytes}")),
    }
}

#[cfg(test)]
mod tests;
