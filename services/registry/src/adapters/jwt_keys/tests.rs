//! Keys from files, as issuers publish them.

use super::*;
use crate::domain::jwt::verify;

/// A token of the key whose public part is in the files beside it; good until an hour after `NOW_MS`.
const TOKEN: &str = include_str!("../../../tests/fixtures/rs256.jwt");
const PEM: &str = include_str!("../../../tests/fixtures/rs256.public.pem");
const JWKS: &str = include_str!("../../../tests/fixtures/rs256.jwks.json");
const NOW_MS: u64 = 1_795_000_000_000;

fn written(text: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn config(keys: &str, file: &Path) -> JwtIssuer {
    let json = serde_json::json!({"issuer": "https://id.example.org", "audience": ["drover"], keys: file});
    serde_json::from_value(json).expect("an issuer")
}

fn refused(keys: &str, text: &[u8]) -> String {
    let file = written(text);
    let error = read(&[config(keys, file.path())]).err().expect("refused").to_string();
    let head = format!("keys of JWT issuer \"https://id.example.org\": {}: ", file.path().display());
    error.strip_prefix(&head).expect("names issuer and file").to_owned()
}

#[test]
fn rs256_verifies_by_a_key_set_and_by_pem() {
    let pair = rcgen::KeyPair::generate().expect("made");
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).expect("signed").pem();
    for (keys, text) in [("jwks", JWKS.to_owned()), ("public_key", format!("{certificate}{PEM}"))] {
        let file = written(text.as_bytes());
        let issuers = read(&[config(keys, file.path())]).expect("readable");
        let vouched = verify(&issuers, None, TOKEN.trim(), NOW_MS).expect(keys);
        assert_eq!((vouched.device.to_string().as_str(), vouched.expires_ms), ("default/thermo-1", NOW_MS + 3_630_000));
    }
}

#[test]
fn keys_for_something_else_are_passed_over_and_a_mistake_is_told() {
    let set = |keys: &str| format!("{{\"keys\": [{keys}]}}");
    let others = r#"{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}, {"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQ"}, {"kty": "XYZ"}"#;
    let file = written(JWKS.replace("\"keys\": [", &format!("\"keys\": [{others}, ")).as_bytes());
    assert_eq!(read(&[config("jwks", file.path())]).expect("readable")[0].keys.len(), 1);
    assert_eq!(refused("jwks", set(others).as_bytes()), "holds 0 keys that can be used, allowed are 1 to 64");
    assert_eq!(refused("jwks", set(r#"{"kty": "RSA", "n": "AQ"}"#).as_bytes()), "keys[0]: e is missing");
    assert_eq!(
        refused("jwks", set(r#"{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}"#).as_bytes()),
        "keys[0]: a P-256 point has 65 bytes, not 3"
    );
    assert!(refused("jwks", b"{").starts_with("is no JSON Web Key Set: EOF"));
    assert_eq!(refused("public_key", b"nothing"), "holds 0 keys that can be used, allowed are 1 to 64");
    assert_eq!(refused("secret", &[b'x'; 31]), "the secret has 31 bytes, at least 32 are needed");
    let file = written(&[&[b'x'; 32][..], b"\n"].concat());
    assert!(read(&[config("secret", file.path())]).is_ok());
    let gone = read(&[config("jwks", Path::new("/nowhere/keys.json"))]).err().expect("refused").to_string();
    assert!(gone.ends_with("/nowhere/keys.json: No such file or directory (os error 2)"), "{gone}");
    assert!(refused("secret", &vec![b'x'; 1024 * 1024 + 1]).starts_with("has 1048577 bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_key_set_is_read_again_and_a_broken_one_changes_nothing() {
    let file = written(b"a secret of at least thirty-two bytes");
    let config = vec![config("secret", file.path())];
    let issuers = Arc::new(Issuers::new(read(&config).expect("readable")));
    let shutdown = Shutdown::new();
    let (followed, stop) = (issuers.clone(), shutdown.clone());
    let following = tokio::spawn(async move { follow(&followed, config, stop).await });
    let first = issuers.current();
    std::fs::write(file.path(), "short").expect("written");
    tokio::time::sleep(READ_AGAIN * 2).await;
    assert!(Arc::ptr_eq(&first, &issuers.current()), "keys stay");
    std::fs::write(file.path(), "another secret of thirty-two bytes").expect("written");
    while Arc::ptr_eq(&first, &issuers.current()) {
        tokio::time::sleep(READ_AGAIN).await;
    }
    shutdown.cancel();
    following.await.expect("ends");
}
