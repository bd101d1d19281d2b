//! Pre-shared keys: made, found by the ingress, ended, revoked, put under another master key.

use std::path::PathBuf;

use drover_host::SystemRandom;
use drover_proto::from_status;
use drover_proto::registry::v1::pre_shared_keys_client::PreSharedKeysClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{CredentialKind, Device};
use drover_registry::{RegistryConfig, master_keys};
use drover_types::{ApiError, ErrorCode};
use prost::Message;
use tempfile::TempDir;

use crate::stage::{Stage, config, device, until};

/// A registry with a master key, and where that is.
async fn stage() -> (Stage, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = directory.path().join("master");
    master_keys::ensure(&keys, &SystemRandom).expect("made");
    let config = RegistryConfig { master_keys: Some(keys.clone()), ..config() };
    (with(config, directory).await, keys)
}

async fn with(config: RegistryConfig, directory: TempDir) -> Stage {
    let stage = Stage::with(config, directory).await;
    stage.create_device("d").await.expect("created");
    stage
}

async fn issue(stage: &Stage, duration_s: u64) -> Result<IssuePreSharedKeyResponse, ApiError> {
    let request =
        IssuePreSharedKeyRequest { tenant: String::new(), device: "d".into(), duration_s, owner: String::new() };
    let answer = stage.client.clone().issue_pre_shared_key(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

async fn find(stage: &Stage, identity: &str) -> Result<FindPreSharedKeyResponse, ApiError> {
    let mut client = PreSharedKeysClient::new(stage.network.client("registry"));
    let answer = client.find_pre_shared_key(FindPreSharedKeyRequest { identity: identity.into() }).await;
    answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

#[tokio::test]
async fn a_key_is_found_by_its_device_and_is_in_no_list_and_no_change() {
    let (stage, _) = stage().await;
    let issued = issue(&stage, 0).await.expect("issued");
    let credential = issued.credential.expect("a credential");
    assert_eq!((issued.key.len(), credential.kind()), (32, CredentialKind::PreSharedKey));
    for identity in ["d", "default/d"] {
        let found = find(&stage, identity).await.expect("found");
        assert_eq!((found.tenant.as_str(), found.device.as_str()), ("default", "d"));
        assert_eq!((found.credential_id, found.key), (credential.id.clone(), issued.key.clone().into_bytes()));
    }
    let refused = ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid");
    stage.create_device("without").await.expect("created");
    for identity in ["without", "nobody", "other/d", "d/d/d", "", "\u{1}"] {
        assert_eq!(find(&stage, identity).await, Err(refused.clone()), "{identity:?}");
    }
    let wrong = stage.authenticate_token("d", &issued.key).await;
    assert_eq!(wrong, Err(refused), "a key is no token");

    let list = ListCredentialsRequest { tenant: String::new(), device: "d".into() };
    let listed = stage.client.clone().list_credentials(list).await.expect("listed").into_inner().credentials;
    assert_eq!((listed.len(), listed[0].sealed.as_ref()), (1, None));
    until(async || stage.records("drover.registry.changes").await.len() == 3).await;
    for stored in stage.records("drover.registry.changes").await {
        let change = Change::decode(stored.record.value.expect("a change")).expect("readable");
        if let Some(object::Object::Credential(told)) = change.after.and_then(|object| object.object) {
            assert_eq!((told.id.as_str(), told.sealed), (credential.id.as_str(), None));
        }
    }
}

#[tokio::test]
async fn the_newest_key_in_force_counts_until_it_ends_or_is_revoked() {
    let (stage, _) = stage().await;
    let old = issue(&stage, 0).await.expect("issued");
    stage.clock.advance(1);
    let new = issue(&stage, 60).await.expect("issued");
    assert_eq!(find(&stage, "d").await.expect("found").key, new.key.into_bytes());
    stage.clock.advance(60_000);
    assert_eq!(find(&stage, "d").await.expect("the other").key, old.key.into_bytes());

    let mut client = stage.client.clone();
    let update = |enabled| UpdateDeviceRequest { device: Some(Device { enabled, ..device("d") }) };
    client.update_device(update(false)).await.expect("disabled");
    assert_eq!(find(&stage, "d").await.expect_err("disabled").code, ErrorCode::PermissionDenied);
    client.update_device(update(true)).await.expect("enabled");
    let id = old.credential.expect("a credential").id;
    client.revoke_credential(RevokeCredentialRequest { tenant: String::new(), id }).await.expect("revoked");
    assert_eq!(find(&stage, "d").await.expect_err("revoked").code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_key_that_is_asked_for_is_put_under_the_new_master_key() {
    let (mut stage, keys) = stage().await;
    let issued = issue(&stage, 0).await.expect("issued");
    std::fs::rename(keys.join(master_keys::CURRENT), keys.join(master_keys::PREVIOUS)).expect("moved");
    master_keys::ensure(&keys, &SystemRandom).expect("made");
    stage.restart().await;
    assert_eq!(find(&stage, "d").await.expect("found").key, issued.key.clone().into_bytes());
    std::fs::remove_file(keys.join(master_keys::PREVIOUS)).expect("removed");
    stage.restart().await;
    assert_eq!(find(&stage, "d").await.expect("sealed anew").key, issued.key.into_bytes());

    std::fs::remove_dir_all(&keys).expect("removed");
    stage.restart().await;
    assert_eq!(find(&stage, "d").await.expect_err("it cannot be opened").code, ErrorCode::FailedPrecondition);
    let refused = issue(&stage, 0).await.expect_err("nothing can be sealed");
    assert_eq!(refused.code, ErrorCode::FailedPrecondition);
    assert!(refused.message.contains("registry.master_keys"), "{}", refused.message);
}

#[tokio::test]
async fn without_a_master_key_the_other_credentials_are_issued() {
    let stage = with(config(), tempfile::tempdir().expect("a directory")).await;
    assert_eq!(issue(&stage, 0).await.expect_err("refused").code, ErrorCode::FailedPrecondition);
    let token = stage.issue_token("d", 0).await.token;
    stage.authenticate_token("d", &token).await.expect("right");
}
