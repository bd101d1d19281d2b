//! Credentials: made, presented, ended, revoked.

use std::sync::Arc;

use drover_proto::from_status;
use drover_proto::ingress::v1::RevokeRequest;
use drover_proto::ingress::v1::ingress_server::IngressServer;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Device, Effect, Identity, Policy, PolicyAction, Statement};
use drover_registry::RegistryConfig;
use drover_types::{ApiError, ErrorCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::nodes::Node;
use crate::stage::{NOW_MS, Stage, config, device, meta};

pub async fn authenticate(stage: &Stage, proof: Proof) -> Result<Identity, ApiError> {
    let answer = stage.client.clone().authenticate(AuthenticateRequest { proof: Some(proof) }).await;
    answer.map(|answer| answer.into_inner().identity.expect("identity")).map_err(|status| from_status(&status))
}

fn token(user_name: &str, token: &str) -> Proof {
    Proof::Token(TokenProof { user_name: user_name.into(), token: token.into() })
}

fn api_key(token: &str) -> Proof {
    Proof::ApiKey(ApiKeyProof { token: token.into() })
}

fn anonymous(client_id: &str) -> Proof {
    Proof::Anonymous(AnonymousProof { client_id: client_id.into() })
}

#[tokio::test]
async fn every_wrong_proof_gets_the_same_answer() {
    let stage = Stage::new().await;
    for name in ["a", "b", "open"] {
        stage.create_device(name).await.expect("created");
    }
    let of_a = stage.issue_token("a", 0).await.token;
    stage.issue_token("b", 0).await;
    assert!(of_a.starts_with("drv_") && of_a.len() == 47, "{}", of_a.len());
    for right in [token("a", &of_a), token("default/a", &of_a), api_key(&of_a)] {
        let identity = authenticate(&stage, right).await.expect("right");
        assert_eq!((identity.tenant.as_str(), identity.device.as_str()), ("default", "a"));
        assert!(!identity.credential_id.is_empty() && identity.statements.len() == 2);
    }
    for name in ["open", "not-registered"] {
        let identity = authenticate(&stage, anonymous(name)).await.expect("nothing forbids it");
        assert_eq!((identity.device.as_str(), identity.credential_id.as_str()), (name, ""));
    }
    let wrong = [
        token("b", &of_a),
        token("other/a", &of_a),
        token("nobody", &of_a),
        token("a", "drv_wrong"),
        token("a", ""),
        token("", &of_a),
        token("a/b/c", &of_a),
        api_key("drv_wrong"),
        anonymous("a"),
        anonymous("a b"),
        anonymous(""),
        Proof::Certificate(CertificateProof { fingerprint: vec![0; 32], chain: Vec::new() }),
        Proof::Certificate(CertificateProof { fingerprint: vec![0; 5], chain: Vec::new() }),
    ];
    let refused = ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid");
    for proof in wrong {
        assert_eq!(authenticate(&stage, proof.clone()).await, Err(refused.clone()), "{proof:?}");
    }
    let request = ListDevicesRequest::default();
    let listed = stage.client.clone().list_devices(request).await.expect("listed").into_inner();
    assert_eq!(listed.devices.len(), 3, "no row is made for who is not registered");
}

#[tokio::test]
async fn a_token_works_until_it_ends_and_a_device_until_it_is_disabled() {
    let stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    let (short, long) = (stage.issue_token("d", 60).await, stage.issue_token("d", 0).await);
    stage.clock.advance(59_999);
    let identity = authenticate(&stage, api_key(&short.token)).await.expect("not ended");
    assert_eq!(identity.expires_ms, NOW_MS + 60_000);
    stage.clock.advance(1);
    assert_eq!(authenticate(&stage, api_key(&short.token)).await.expect_err("ended").code, ErrorCode::Unauthenticated);

    let mut client = stage.client.clone();
    let update = |enabled| UpdateDeviceRequest { device: Some(Device { enabled, ..device("d") }) };
    client.update_device(update(false)).await.expect("disabled");
    let refused = authenticate(&stage, api_key(&long.token)).await.expect_err("disabled");
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
    client.update_device(update(true)).await.expect("enabled");
    authenticate(&stage, api_key(&long.token)).await.expect("enabled again");

    let list = ListCredentialsRequest { tenant: String::new(), device: "d".into() };
    assert_eq!(client.list_credentials(list).await.expect("listed").into_inner().credentials.len(), 2);
    let id = long.credential.expect("credential").id;
    client.revoke_credential(RevokeCredentialRequest { tenant: String::new(), id: id.clone() }).await.expect("revoked");
    let refused = authenticate(&stage, api_key(&long.token)).await.expect_err("revoked");
    assert_eq!(refused.code, ErrorCode::Unauthenticated);
    let twice = client.revoke_credential(RevokeCredentialRequest { tenant: String::new(), id }).await;
    assert_eq!(twice.expect_err("gone").code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn who_speaks_for_a_device_is_told_its_own_policies_unless_it_is_disabled() {
    let stage = Stage::new().await;
    let of = |tenant: &str, device: &str| Proof::Behalf(BehalfProof { tenant: tenant.into(), device: device.into() });
    stage.create_device("meter").await.expect("created");
    stage.issue_token("meter", 0).await;
    let mut client = stage.client.clone();
    let update = |enabled, policies: &[&str]| {
        let policies = policies.iter().map(|name| (*name).to_owned()).collect();
        UpdateDeviceRequest { device: Some(Device { enabled, policies, ..device("meter") }) }
    };
    client.update_device(update(true, &[])).await.expect("without policies");
    let identity = authenticate(&stage, of("default", "meter")).await.expect("enabled");
    assert_eq!(
        (identity.device.as_str(), identity.credential_id.as_str(), identity.statements.len()),
        ("meter", "", 0)
    );
    client.update_device(update(false, &["default"])).await.expect("disabled");
    let refused = authenticate(&stage, of("default", "meter")).await.expect_err("disabled");
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
    let unknown = authenticate(&stage, of("other", "not-registered")).await.expect("vouched for");
    assert_eq!((unknown.tenant.as_str(), unknown.policies.as_slice()), ("other", &["default".to_owned()][..]));
    let malformed = authenticate(&stage, of("default", "a/b")).await.expect_err("no id");
    assert_eq!(malformed.code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn credentials_go_with_their_device_and_do_not_come_back_with_its_name() {
    let stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    let token = stage.issue_token("d", 0).await.token;
    let delete = DeleteDeviceRequest { name: "d".into(), ..Default::default() };
    stage.client.clone().delete_device(delete).await.expect("deleted");
    stage.create_device("d").await.expect("created");
    assert_eq!(authenticate(&stage, api_key(&token)).await.expect_err("gone").code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn a_device_that_lost_its_credentials_does_not_come_back_without() {
    let mut stage = Stage::new().await;
    for name in ["revoked", "deleted"] {
        stage.create_device(name).await.expect("created");
        authenticate(&stage, anonymous(name)).await.expect("has no credentials yet");
    }
    let id = stage.issue_token("revoked", 0).await.credential.expect("credential").id;
    stage.issue_token("deleted", 0).await;
    let revoke = RevokeCredentialRequest { tenant: String::new(), id };
    stage.client.clone().revoke_credential(revoke).await.expect("revoked");
    let delete = DeleteDeviceRequest { name: "deleted".into(), ..Default::default() };
    stage.client.clone().delete_device(delete).await.expect("deleted");
    let refused = Err(ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid"));
    for name in ["revoked", "deleted"] {
        assert_eq!(authenticate(&stage, anonymous(name)).await, refused, "{name}");
    }
    stage.restart().await;
    stage.create_device("deleted").await.expect("created anew");
    for name in ["revoked", "deleted"] {
        assert_eq!(authenticate(&stage, anonymous(name)).await, refused, "{name} after a restart");
    }
}

#[tokio::test]
async fn a_certificate_is_verified_by_the_platforms_authority_and_known_by_its_fingerprint() {
    let stage = Stage::new().await;
    stage.create_device("d").await.expect("created");
    let request =
        IssueCertificateRequest { tenant: String::new(), device: "d".into(), duration_s: 0, owner: String::new() };
    let issued = stage.client.clone().issue_certificate(request.clone()).await.expect("issued").into_inner();
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(issued.ca_pem.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
    let at = |ms: u64| UnixTime::since_unix_epoch(std::time::Duration::from_millis(ms));
    verifier.verify_client_cert(&certificate, &[], at(NOW_MS)).expect("valid today");
    let year_ms = 365 * 24 * 3600 * 1000;
    verifier.verify_client_cert(&certificate, &[], at(NOW_MS + year_ms + 1_000)).expect_err("ended");
    assert_eq!(issued.credential.as_ref().map(|credential| credential.expires_ms), Some(NOW_MS + year_ms));

    let fingerprint = issued.credential.expect("credential").digest;
    let proof = Proof::Certificate(CertificateProof { fingerprint, chain: Vec::new() });
    assert_eq!(authenticate(&stage, proof).await.expect("known").device, "d");
    let forever = IssueCertificateRequest { duration_s: 3_651 * 24 * 3600, ..request };
    let refused = from_status(&stage.client.clone().issue_certificate(forever).await.expect_err("too long"));
    assert_eq!(refused.field.as_deref(), Some("duration_s"));
}

#[tokio::test]
async fn many_are_told_apart_in_one_call_as_each_would_be_alone() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    let statement = Statement {
        effect: Effect::Allow.into(),
        actions: vec![PolicyAction::Publish.into()],
        resources: vec!["a/#".into()],
    };
    let policy = Policy { meta: meta("only-a"), statements: vec![statement] };
    client.put_policy(PutPolicyRequest { policy: Some(policy) }).await.expect("made");
    for name in ["a", "disabled"] {
        stage.create_device(name).await.expect("created");
    }
    let policies = ["only-a", "default"].map(str::to_owned).to_vec();
    let narrow = Device { policies, ..device("narrow") };
    client.create_device(CreateDeviceRequest { device: Some(narrow) }).await.expect("created");
    let (of_a, of_disabled) = (stage.issue_token("a", 0).await.token, stage.issue_token("disabled", 0).await.token);
    let disable = UpdateDeviceRequest { device: Some(Device { enabled: false, ..device("disabled") }) };
    client.update_device(disable).await.expect("disabled");

    let malformed = Proof::Behalf(BehalfProof { tenant: "default".into(), device: "a/b".into() });
    let mut proofs = vec![
        token("a", &of_a),
        anonymous("nobody-knows-it"),
        token("a", "drv_wrong"),
        anonymous("narrow"),
        malformed,
        api_key(&of_disabled),
        anonymous("a"),
        token("a", &of_a),
    ];
    proofs.extend((proofs.len()..256).map(|i| anonymous(&format!("d{i}"))));
    let questions = |proofs: &[Proof]| {
        let questions = proofs.iter().map(|proof| AuthenticateRequest { proof: Some(proof.clone()) }).collect();
        AuthenticateAllRequest { questions }
    };
    let answer = client.authenticate_all(questions(&proofs)).await.expect("answered").into_inner();
    assert_eq!((answer.verdicts.len(), answer.rights.len()), (256, 2), "rights are shared");
    for (proof, verdict) in proofs.iter().zip(answer.verdicts) {
        let alone = authenticate(&stage, proof.clone()).await.map_err(|error| (error.code.grpc(), error.message));
        let together = match verdict.identity {
            Some(identity) => {
                let Rights { policies, statements } = answer.rights[verdict.rights as usize].clone();
                Ok(Identity { policies, statements, ..identity })
            }
            None => Err((verdict.code.cast_signed(), verdict.message)),
        };
        assert_eq!(together, alone, "{proof:?}");
    }
    proofs.push(anonymous("one-more"));
    let refused = from_status(&client.authenticate_all(questions(&proofs)).await.expect_err("too many"));
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some("questions")));
    assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("256"), Some("257")));
    let none = client.authenticate_all(AuthenticateAllRequest::default()).await.expect("answered").into_inner();
    assert_eq!(none, AuthenticateAllResponse::default());
}

#[tokio::test]
async fn a_revocation_reaches_every_node_and_names_those_that_do_not_confirm() {
    let nodes = ["near".to_owned(), "away".to_owned()];
    let config = RegistryConfig { ingress_nodes: nodes.into(), ..config() };
    let stage = Stage::with(config, tempfile::tempdir().expect("a directory")).await;
    let near = Node::default();
    let incoming = stage.network.listen("near");
    let server = tonic::transport::Server::builder().add_service(IngressServer::new(near.clone()));
    let server = tokio::spawn(server.serve_with_incoming(incoming));

    let mut elsewhere = device("d");
    elsewhere.meta.as_mut().expect("meta").tenant = "elsewhere".into();
    let create = CreateDeviceRequest { device: Some(elsewhere) };
    stage.client.clone().create_device(create).await.expect("created");
    let issue = IssueTokenRequest { tenant: "elsewhere".into(), device: "d".into(), ..Default::default() };
    stage.client.clone().issue_token(issue).await.expect("issued");
    assert!(near.take().is_empty(), "only in the tenant `default` could it be connected without");
    stage.create_device("d").await.expect("created");
    let id = stage.issue_token("d", 0).await.credential.expect("credential").id;
    let revoke = RevokeCredentialRequest { tenant: String::new(), id: id.clone() };
    let answer = stage.client.clone().revoke_credential(revoke).await.expect("revoked").into_inner();
    assert_eq!(answer.unconfirmed_nodes, ["away"]);
    let mut told = near.take().into_iter();
    let first = told.next().map(|request| (request.credential_id, request.anonymous));
    assert_eq!(first, Some((String::new(), true)), "with the first credential nobody is the device without");
    let expected = RevokeRequest { tenant: "default".into(), device: "d".into(), credential_id: id, anonymous: false };
    assert_eq!(told.next(), Some(expected));
    let disable = UpdateDeviceRequest { device: Some(Device { enabled: false, ..device("d") }) };
    let answer = stage.client.clone().update_device(disable).await.expect("disabled").into_inner();
    assert_eq!(answer.unconfirmed_nodes, ["away"]);
    assert_eq!(near.take().first().map(|request| request.credential_id.as_str()), Some(""));
    let delete = DeleteDeviceRequest { name: "d".into(), ..Default::default() };
    let answer = stage.client.clone().delete_device(delete).await.expect("deleted").into_inner();
    assert_eq!(answer.unconfirmed_nodes, ["away"]);
    assert_eq!(near.take().first().map(|request| request.credential_id.as_str()), Some(""));
    server.abort();
}

#[tokio::test]
async fn an_open_connection_is_known_as_long_as_its_proof_would_hold() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    let known = |device: &str, credential_id: &str| {
        let (tenant, device, credential_id) = ("default".into(), device.into(), credential_id.into());
        Proof::Known(KnownProof { tenant, device, credential_id })
    };
    for name in ["d", "open"] {
        stage.create_device(name).await.expect("created");
    }
    let id = stage.issue_token("d", 10).await.credential.expect("credential").id;
    let identity = authenticate(&stage, known("d", &id)).await.expect("it holds");
    assert_eq!((identity.device.as_str(), identity.credential_id.as_str()), ("d", id.as_str()));
    assert_eq!((identity.policies, identity.expires_ms), (vec!["default".to_owned()], NOW_MS + 10_000));
    authenticate(&stage, known("open", "")).await.expect("it has no credentials");
    authenticate(&stage, known("not-registered", "")).await.expect("neither has this one");

    let refused = ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid");
    let foreign = Proof::Known(KnownProof { tenant: "other".into(), device: "open".into(), ..Default::default() });
    for wrong in [known("d", ""), known("open", &id), known("d", "unknown"), foreign] {
        assert_eq!(authenticate(&stage, wrong.clone()).await, Err(refused.clone()), "{wrong:?}");
    }
    let put = |enabled| UpdateDeviceRequest { device: Some(Device { enabled, ..device("d") }) };
    client.update_device(put(false)).await.expect("disabled");
    let disabled = authenticate(&stage, known("d", &id)).await.expect_err("disabled");
    assert_eq!(disabled.code, ErrorCode::PermissionDenied);
    client.update_device(put(true)).await.expect("enabled");
    authenticate(&stage, known("d", &id)).await.expect("it holds again");
    stage.clock.advance(10_000);
    assert_eq!(authenticate(&stage, known("d", &id)).await, Err(refused), "it has ended");
}
