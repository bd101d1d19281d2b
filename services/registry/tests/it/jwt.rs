//! JWTs as passwords: what the registry makes of them; their form is tested beside the code that reads it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_proto::from_status;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Device, Identity};
use drover_registry::RegistryConfig;
use drover_types::{ApiError, ErrorCode};
use ring::hmac;
use serde_json::json;

use crate::stage::{NOW_MS, Stage, config, device};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// A registry in which `https://id.example.org` vouches for devices of the tenant `default`.
async fn stage() -> Stage {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, SECRET).expect("written");
    let issuer = json!({"issuer": "https://id.example.org", "audience": ["drover"], "secret": file, "leeway": "0s"});
    let jwt = vec![serde_json::from_value(issuer).expect("an issuer")];
    Stage::with(RegistryConfig { jwt, ..config() }, directory).await
}

fn jwt(device: &str, seconds: u64) -> String {
    let claims =
        json!({"iss": "https://id.example.org", "aud": "drover", "sub": device, "exp": NOW_MS / 1_000 + seconds});
    let part = |json: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

async fn authenticate(stage: &Stage, proof: Proof) -> Result<Identity, ApiError> {
    let answer = stage.client.clone().authenticate(AuthenticateRequest { proof: Some(proof) }).await;
    answer.map(|answer| answer.into_inner().identity.expect("identity")).map_err(|status| from_status(&status))
}

fn password(user_name: &str, token: String) -> Proof {
    Proof::Token(TokenProof { user_name: user_name.into(), token })
}

fn alone(token: String) -> Proof {
    Proof::ApiKey(ApiKeyProof { token })
}

fn known(identity: &Identity) -> Proof {
    let Identity { tenant, device, credential_id, .. } = identity.clone();
    Proof::Known(KnownProof { tenant, device, credential_id })
}

#[tokio::test]
async fn a_registered_device_is_who_its_token_says_until_it_ends() {
    let stage = stage().await;
    stage.create_device("lamp").await.expect("created");
    for right in [password("lamp", jwt("lamp", 60)), password("default/lamp", jwt("lamp", 60)), alone(jwt("lamp", 60))]
    {
        let identity = authenticate(&stage, right).await.expect("vouched for");
        assert_eq!((identity.device.as_str(), identity.expires_ms), ("lamp", NOW_MS + 60_000));
        assert_eq!((identity.policies.len(), identity.statements.len()), (1, 2));
        assert_eq!(authenticate(&stage, known(&identity)).await, Ok(identity));
    }
    let identity = authenticate(&stage, alone(jwt("lamp", 60))).await.expect("vouched for");
    for (wrong, reason) in [
        (password("other", jwt("lamp", 60)), "its claim sub is not the device of the user name"),
        (password("home/lamp", jwt("lamp", 60)), "its issuer is not registered for the tenant"),
        (password("none", jwt("none", 60)), "its device is not registered"),
        (alone(jwt("none", 60)), "its device is not registered"),
        (password("lamp", jwt("lamp", 0)), "it expired 0 ms ago"),
    ] {
        let refused = authenticate(&stage, wrong).await.expect_err(reason);
        assert_eq!(
            (refused.code, refused.message),
            (ErrorCode::Unauthenticated, format!("the JWT is not valid: {reason}"))
        );
    }
    stage.clock.advance(60_000);
    assert_eq!(authenticate(&stage, known(&identity)).await.expect_err("ended").code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_disabled_or_deleted_device_is_refused_whatever_its_token_says() {
    let stage = stage().await;
    stage.create_device("lamp").await.expect("created");
    let identity = authenticate(&stage, alone(jwt("lamp", 60))).await.expect("vouched for");
    let disabled = Device { enabled: false, ..device("lamp") };
    stage.client.clone().update_device(UpdateDeviceRequest { device: Some(disabled) }).await.expect("disabled");
    for proof in [alone(jwt("lamp", 60)), password("lamp", jwt("lamp", 60)), known(&identity)] {
        assert_eq!(authenticate(&stage, proof).await.expect_err("disabled").code, ErrorCode::PermissionDenied);
    }
    let request = DeleteDeviceRequest { tenant: String::new(), name: "lamp".into() };
    stage.client.clone().delete_device(request).await.expect("deleted");
    for proof in [alone(jwt("lamp", 60)), known(&identity)] {
        assert_eq!(authenticate(&stage, proof).await.expect_err("deleted").code, ErrorCode::Unauthenticated);
    }
}

#[tokio::test]
async fn where_an_issuer_vouches_nobody_is_a_registered_device_without_a_token() {
    let stage = stage().await;
    stage.create_device("lamp").await.expect("created");
    let anonymous = |client: &str| Proof::Anonymous(AnonymousProof { client_id: client.into() });
    assert_eq!(
        authenticate(&stage, anonymous("lamp")).await.expect_err("it has tokens").code,
        ErrorCode::Unauthenticated
    );
    authenticate(&stage, anonymous("passer-by")).await.expect("nobody's");
    let token = stage.issue_token("lamp", 0).await.token;
    authenticate(&stage, password("lamp", token)).await.expect("a credential of the platform is as good as before");
}
