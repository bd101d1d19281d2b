//! Tokens of every algorithm, and everything that makes one no proof.

use drover_types::{DeviceId, DeviceKey, TenantId};
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW_MS: u64 = 1_795_000_000_000;
const NOW_S: u64 = NOW_MS / 1_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

fn hs256(secret: &[u8]) -> Verifier {
    Verifier::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

fn issuer(keys: Vec<Key>) -> Issuer {
    Issuer {
        tenant: TenantId::new("home").expect("valid"),
        name: "https://id.example.org".to_owned(),
        audience: vec!["drover".to_owned(), "drover-test".to_owned()],
        device_claim: "sub".to_owned(),
        leeway_ms: 30_000,
        keys,
    }
}

fn shared() -> Issuer {
    issuer(vec![Key { id: None, verifier: hs256(SECRET) }])
}

fn device(name: &str) -> DeviceKey {
    DeviceKey { tenant: TenantId::new("home").expect("valid"), device: DeviceId::new(name).expect("valid") }
}

fn claims() -> Value {
    json!({"iss": "https://id.example.org", "aud": "drover", "sub": "lamp", "exp": NOW_S + 60})
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn by_secret(text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text).as_ref().to_vec()
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, by_secret)
}

fn ask(issuer: Issuer, token: &str) -> Result<Vouched, Refusal> {
    verify(&[issuer], Some(&device("lamp")), token, NOW_MS)
}

#[test]
fn every_algorithm_vouches_for_its_device() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("made");
    let ec = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
    let ec = ec.expect("a key pair");
    let by_ec = signed(&json!({"alg": "ES256", "kid": "e"}), &claims(), |text| {
        ec.sign(&random, text).expect("signs").as_ref().to_vec()
    });
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("made");
    let ed = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key pair");
    let by_ed = signed(&json!({"alg": "EdDSA"}), &claims(), |text| ed.sign(text).as_ref().to_vec());
    let keys = || {
        let ec = Key { id: Some("e".to_owned()), verifier: Verifier::Es256(ec.public_key().as_ref().to_vec()) };
        let ed = Key { id: Some("d".to_owned()), verifier: Verifier::EdDsa(ed.public_key().as_ref().to_vec()) };
        vec![ec, ed, Key { id: None, verifier: hs256(SECRET) }]
    };
    let expires_ms = (NOW_S + 60) * 1_000 + 30_000;
    let vouched = Vouched { device: device("lamp"), expires_ms, issuer: "https://id.example.org".to_owned() };
    for token in [&by_ec, &by_ed, &token(&claims())] {
        assert_eq!(ask(issuer(keys()), token).as_ref(), Ok(&vouched), "{token}");
        assert_eq!(verify(&[issuer(keys())], None, token, NOW_MS).as_ref(), Ok(&vouched), "without a user name");
        let (rest, signature) = token.rsplit_once('.').expect("three parts");
        let forged = format!("{rest}.{}", signature.chars().rev().collect::<String>());
        assert!(matches!(ask(issuer(keys()), &forged), Err(Refusal::Signature | Refusal::Malformed { .. })));
    }
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    let unsigned = |header: Value| signed(&header, &claims(), |_| Vec::new());
    for alg in ["none", "None", "HS384", "RS256", "ES256", ""] {
        assert_eq!(ask(shared(), &unsigned(json!({"alg": alg}))), Err(Refusal::Algorithm), "{alg}");
    }
    assert_eq!(ask(shared(), &unsigned(json!({"alg": "HS256"}))), Err(Refusal::Signature));
    // The public key of an issuer is known to everybody: it is no shared secret.
    let public = vec![4; 65];
    let confused = signed(&json!({"alg": "HS256"}), &claims(), |text| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), text).as_ref().to_vec()
    });
    let of_point = issuer(vec![Key { id: None, verifier: Verifier::Es256(public.clone()) }]);
    assert_eq!(ask(of_point, &confused), Err(Refusal::Algorithm));
    let critical = signed(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims(), by_secret);
    assert_eq!(ask(shared(), &critical), Err(Refusal::Critical));
}

#[test]
fn an_unknown_key_id_is_refused_and_one_among_several_is_found() {
    let header = |kid: &str| json!({"alg": "HS256", "kid": kid});
    let keys = || {
        let key = |id: &str, secret: &[u8]| Key { id: Some(id.to_owned()), verifier: hs256(secret) };
        issuer(vec![key("old", &[1; 32]), key("new", SECRET)])
    };
    assert!(ask(keys(), &signed(&header("new"), &claims(), by_secret)).is_ok());
    assert!(ask(keys(), &token(&claims())).is_ok(), "without an id all keys are tried");
    assert_eq!(ask(keys(), &signed(&header("old"), &claims(), by_secret)), Err(Refusal::Signature));
    assert_eq!(ask(keys(), &signed(&header("gone"), &claims(), by_secret)), Err(Refusal::UnknownKey));
}

#[test]
fn a_token_is_good_between_its_times_give_or_take_the_leeway() {
    let at = |claims: Value| ask(shared(), &token(&claims)).map(|vouched| vouched.expires_ms);
    let exp = |s: u64| changed("exp", s.into());
    assert_eq!(at(exp(NOW_S - 29)), Ok(NOW_MS + 1_000));
    assert_eq!(at(exp(NOW_S - 30)), Err(Refusal::Expired { ago_ms: 0 }));
    assert_eq!(at(exp(NOW_S - 31)), Err(Refusal::Expired { ago_ms: 1_000 }));
    assert_eq!(at(changed("exp", 1e300.into())), Ok(u64::MAX));
    let nbf = |s: u64| changed("nbf", s.into());
    assert!(at(nbf(NOW_S + 30)).is_ok());
    assert_eq!(at(nbf(NOW_S + 31)), Err(Refusal::NotYetValid { in_ms: 1_000 }));
    for (name, value) in [("exp", Value::Null), ("exp", "soon".into()), ("exp", (-1).into()), ("nbf", "now".into())] {
        assert_eq!(at(changed(name, value.clone())), Err(Refusal::Claim { claim: name.into() }), "{name} {value}");
    }
}

#[test]
fn another_issuer_audience_tenant_or_device_is_refused() {
    let at = |claims: Value| ask(shared(), &token(&claims)).map(drop);
    assert_eq!(at(changed("aud", json!(["other", "drover-test"]))), Ok(()));
    for other in [json!("other"), json!([]), json!(["drove"])] {
        assert_eq!(at(changed("aud", other.clone())), Err(Refusal::Audience), "{other}");
    }
    assert_eq!(at(changed("aud", Value::Null)), Err(Refusal::Claim { claim: "aud".into() }));
    assert_eq!(at(changed("iss", "https://id.example.com".into())), Err(Refusal::Issuer));
    assert_eq!(at(changed("iss", Value::Null)), Err(Refusal::Claim { claim: "iss".into() }));
    assert_eq!(at(changed("sub", "other".into())), Err(Refusal::OtherDevice { claim: "sub".into() }));
    for wrong in [json!(7), json!(""), json!("a/b"), Value::Null] {
        assert_eq!(at(changed("sub", wrong.clone())), Err(Refusal::Claim { claim: "sub".into() }), "{wrong}");
    }
    let named = Issuer { device_claim: "device".into(), ..shared() };
    assert_eq!(ask(named, &token(&changed("device", "lamp".into()))).map(drop), Ok(()));
    let away = DeviceKey { tenant: TenantId::new("away").expect("valid"), ..device("lamp") };
    assert_eq!(verify(&[shared()], Some(&away), &token(&claims()), NOW_MS), Err(Refusal::Issuer));
    assert_eq!(verify(&[], None, &token(&claims()), NOW_MS), Err(Refusal::Issuer));
}

#[test]
fn what_is_no_token_is_refused_and_never_told() {
    let good = token(&claims());
    let malformed = ["ey..", "ey.ey.", "..", &good.replace('.', ""), &format!("{good}="), &good[3..]];
    for text in malformed {
        assert!(matches!(ask(shared(), text), Err(Refusal::Malformed { .. })), "{text}");
    }
    let long = format!("{good}{}", "A".repeat(16 * 1024));
    assert_eq!(ask(shared(), &long), Err(Refusal::TooLong { bytes: long.len() }));
    let hostile = token(&changed("sub", "a secret\nof its own".into()));
    let told = ask(shared(), &hostile).expect_err("refused").to_string();
    assert_eq!(told, "the claim sub is missing or of the wrong type");
}

#[test]
fn an_open_connection_is_known_by_issuer_and_end() {
    let id = known_id("https://id.example.org:443/a", 1_795_000_090_000);
    assert_eq!(read_known_id(&id), Some(("https://id.example.org:443/a", 1_795_000_090_000)));
    for credential in ["01J0000000000000", "jwt:", "jwt:x:y", ""] {
        assert_eq!(read_known_id(credential), None, "{credential}");
    }
    assert!(is_one(&token(&claims())) && !is_one("drv_0123") && !is_one("ey.a") && !is_one(""));
}
