//! Certificate authorities of tenants, and the devices that their certificates register.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drover_proto::from_status;
use drover_proto::registry::v1::audit_client::AuditClient;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::certificate_authorities_client::CertificateAuthoritiesClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{CertificateAuthority, Device, Identity, Meta};
use drover_types::{ApiError, ErrorCode, hex};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tonic::Code;

use crate::authentication::authenticate;
use crate::stage::{Stage, device, until};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

fn params_with(subject: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = params(subject);
    change(&mut params);
    params
}

fn authority_params(subject: &str) -> CertificateParams {
    params_with(subject, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
}

fn issuer(subject: &str) -> Issuer {
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(authority_params(subject), key).expect("a certificate")
}

/// DER.
fn issued(issuer: &Issuer, params: CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, issuer).expect("a certificate").der().to_vec()
}

fn proof(chain: &[&[u8]]) -> Proof {
    let fingerprint = Sha256::digest(chain[0]).to_vec();
    Proof::Certificate(CertificateProof { fingerprint, chain: chain.iter().map(|der| der.to_vec()).collect() })
}

async fn show(stage: &Stage, certificate: &[u8]) -> Result<Identity, ApiError> {
    authenticate(stage, proof(&[certificate])).await
}

/// Registers an authority whose devices are lamps of the site north.
async fn put(stage: &Stage, tenant: &str, name: &str, pem: String) -> Result<CertificateAuthority, ApiError> {
    let labels = [("site".to_owned(), "north".to_owned())].into();
    let template = Device { meta: Some(Meta { labels, ..Meta::default() }), r#type: "lamp".into(), ..device("") };
    put_with(stage, tenant, name, pem, template).await
}

async fn put_with(
    stage: &Stage,
    tenant: &str,
    name: &str,
    certificate: String,
    template: Device,
) -> Result<CertificateAuthority, ApiError> {
    let meta = Meta { tenant: tenant.into(), name: name.into(), owner: "fleet".into(), ..Meta::default() };
    let authority = CertificateAuthority { meta: Some(meta), certificate, template: Some(template) };
    let request = PutCertificateAuthorityRequest { certificate_authority: Some(authority) };
    let answer = authorities(stage).put_certificate_authority(request).await;
    let written = answer.map_err(|status| from_status(&status))?.into_inner();
    Ok(written.certificate_authority.expect("an authority"))
}

fn authorities(stage: &Stage) -> CertificateAuthoritiesClient<drover_host::grpc::Client> {
    CertificateAuthoritiesClient::new(stage.network.client("registry"))
}

async fn delete(stage: &Stage, tenant: &str, name: &str) {
    let request = DeleteCertificateAuthorityRequest { tenant: tenant.into(), name: name.into() };
    authorities(stage).delete_certificate_authority(request).await.expect("deleted");
}

async fn find(stage: &Stage, tenant: &str, name: &str) -> Result<Device, Code> {
    let request = GetDeviceRequest { tenant: tenant.into(), name: name.into() };
    let found = stage.client.clone().get_device(request).await.map_err(|status| status.code())?;
    Ok(found.into_inner().device.expect("a device"))
}

#[tokio::test]
async fn a_certificate_registers_its_device_once_and_is_its_credential_from_then_on() {
    let mut stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "works", "line-1", ca.pem()).await.expect("registered");
    let certificate = issued(&ca, params("lamp-1"));
    let first = show(&stage, &certificate).await.expect("registered");
    assert_eq!((first.tenant.as_str(), first.device.as_str()), ("works", "lamp-1"));
    assert_eq!((first.statements.len(), first.expires_ms > 0), (2, true));
    let lamp = find(&stage, "works", "lamp-1").await.expect("there");
    let meta = lamp.meta.expect("meta");
    assert_eq!((lamp.r#type.as_str(), meta.labels["site"].as_str(), meta.owner.as_str()), ("lamp", "north", "fleet"));
    assert_eq!(lamp.attributes["certificateAuthority"], "line-1");
    stage.restart().await;
    let fingerprint = Sha256::digest(&certificate).to_vec();
    let alone = Proof::Certificate(CertificateProof { fingerprint, chain: Vec::new() });
    assert_eq!(authenticate(&stage, alone).await, Ok(first.clone()), "the chain is of no more use");
    assert_eq!(show(&stage, &certificate).await, Ok(first));
    let key = b"certificate_authority/works/line-1".as_slice();
    until(async || {
        let changes = stage.records("drover.registry.changes").await;
        changes.iter().any(|stored| stored.record.key.as_deref() == Some(key))
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_an_authoritys_or_names_no_device_registers_nothing() {
    let stage = Stage::new().await;
    let (ca, impostor, stranger) = (issuer("Works"), issuer("Works"), issuer("Stranger"));
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    let ended = params_with("ended", |params| params.not_after = date_time_ymd(2026, 1, 1));
    let early = params_with("early", |params| params.not_before = date_time_ymd(2050, 1, 1));
    let server = params_with("web", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for (certificate, why) in [
        (issued(&impostor, params("a")), "signature"),
        (issued(&stranger, params("a")), "credentials are not valid"),
        (issued(&ca, ended), "xpired"),
        (issued(&ca, early), "not valid yet"),
        (issued(&ca, server), ""),
        (b"no certificate".to_vec(), "credentials are not valid"),
    ] {
        let refused = show(&stage, &certificate).await.expect_err(why);
        assert_eq!(refused.code, ErrorCode::Unauthenticated, "{refused}");
        assert!(refused.message.to_lowercase().contains(why), "{refused}");
    }
    let nameless = params_with("x", |params| assert!(params.distinguished_name.remove(DnType::CommonName)));
    let another_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let two_names = params_with("a", |params| params.distinguished_name.push(another_name, "b"));
    for wrong in [params("a b"), params("default/a"), params("a\0"), params("\u{ff41}"), nameless, two_names] {
        let refused = show(&stage, &issued(&ca, wrong)).await.expect_err("no device");
        assert_eq!(refused.code, ErrorCode::PermissionDenied);
        assert!(refused.message.contains("common name"), "{refused}");
    }
    let (own, other) = (issued(&ca, params("a")), issued(&ca, params("b")));
    let stolen = CertificateProof { fingerprint: Sha256::digest(&other).to_vec(), chain: vec![own.clone()] };
    for wrong in [Proof::Certificate(stolen), proof(&[&own, &own, &own, &own, &own])] {
        assert_eq!(authenticate(&stage, wrong).await.expect_err("refused").code, ErrorCode::Unauthenticated);
    }
    let listed = stage.client.clone().list_devices(ListDevicesRequest::default()).await.expect("listed").into_inner();
    assert_eq!(listed.devices.len(), 0);
}

#[tokio::test]
async fn a_certificate_between_counts_and_four_are_looked_at() {
    let stage = Stage::new().await;
    let root = issuer("Root");
    put(&stage, "", "root", root.pem()).await.expect("registered");
    let key = KeyPair::generate().expect("a key");
    let between = CertifiedIssuer::signed_by(authority_params("Between"), key, &root).expect("a certificate");
    let certificate = issued(&between, params("deep"));
    assert!(show(&stage, &certificate).await.is_err(), "nobody knows who issued it");
    let chain = proof(&[&certificate, between.der(), between.der(), between.der()]);
    assert_eq!(authenticate(&stage, chain).await.expect("registered").device, "deep");
}

#[tokio::test]
async fn an_authority_that_may_have_none_below_it_registers_what_it_has_issued_itself() {
    let stage = Stage::new().await;
    let alone = params_with("Root", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let root = CertifiedIssuer::self_signed(alone, KeyPair::generate().expect("a key")).expect("a certificate");
    put(&stage, "", "root", root.pem()).await.expect("registered");
    let key = KeyPair::generate().expect("a key");
    let between = CertifiedIssuer::signed_by(authority_params("Between"), key, &root).expect("a certificate");
    let (deep, near) = (issued(&between, params("deep")), issued(&root, params("near")));
    let refused = authenticate(&stage, proof(&[&deep, between.der()])).await.expect_err("it may have none below it");
    assert_eq!(refused.code, ErrorCode::Unauthenticated, "{refused}");
    assert_eq!(authenticate(&stage, proof(&[&near, root.der()])).await.expect("registered").device, "near");
}

#[tokio::test]
async fn an_authority_below_anothers_takes_none_of_its_devices() {
    let stage = Stage::new().await;
    let root = issuer("Root");
    put(&stage, "a", "root", root.pem()).await.expect("registered");
    let key = KeyPair::generate().expect("a key");
    let between = CertifiedIssuer::signed_by(authority_params("Between"), key, &root).expect("a certificate");
    let (early, late) = (issued(&between, params("early")), issued(&between, params("late")));
    let (early, late) = (proof(&[&early, between.der()]), proof(&[&late, between.der()]));
    let known = authenticate(&stage, early.clone()).await.expect("registered");
    put(&stage, "b", "between", between.pem()).await.expect("its subject is free");
    let refused = authenticate(&stage, late.clone()).await.expect_err("whose is it?");
    assert_eq!(refused.code, ErrorCode::PermissionDenied, "{refused}");
    assert!(!refused.message.contains("tenant a"), "{refused}");
    assert_eq!(find(&stage, "b", "late").await, Err(Code::NotFound));
    assert_eq!(authenticate(&stage, early).await, Ok(known), "who is known goes on");
    delete(&stage, "b", "between").await;
    put(&stage, "a", "between", between.pem()).await.expect("its subject is free");
    assert_eq!(authenticate(&stage, late).await.expect("both are of one tenant").tenant, "a");
}

#[tokio::test]
async fn a_device_that_exists_is_not_taken_over() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    for name in ["with-token", "without"] {
        stage.create_device(name).await.expect("created");
    }
    stage.issue_token("with-token", 0).await;
    show(&stage, &issued(&ca, params("lamp"))).await.expect("registered");
    for name in ["with-token", "without", "lamp"] {
        let refused = show(&stage, &issued(&ca, params(name))).await.expect_err(name);
        assert_eq!(refused.code, ErrorCode::PermissionDenied, "{refused}");
        assert!(refused.message.contains(&format!("default/{name}")), "{refused}");
    }
    let request = ListCredentialsRequest { tenant: String::new(), device: "without".into() };
    let credentials = stage.client.clone().list_credentials(request).await.expect("listed").into_inner().credentials;
    assert_eq!(credentials.len(), 0);
}

#[tokio::test]
async fn whoever_is_disabled_revoked_or_deleted_is_not_registered_anew() {
    let mut stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    let certificates = ["disabled", "revoked", "deleted"].map(|name| issued(&ca, params(name)));
    let mut ids = Vec::new();
    for certificate in &certificates {
        ids.push(show(&stage, certificate).await.expect("registered").credential_id);
    }
    let mut client = stage.client.clone();
    let disabled = Device { enabled: false, ..device("disabled") };
    client.update_device(UpdateDeviceRequest { device: Some(disabled) }).await.expect("disabled");
    let revoke = RevokeCredentialRequest { tenant: String::new(), id: ids.swap_remove(1) };
    client.revoke_credential(revoke).await.expect("revoked");
    let delete = DeleteDeviceRequest { tenant: String::new(), name: "deleted".into() };
    client.delete_device(delete).await.expect("deleted");
    for restarted in [false, true] {
        if restarted {
            stage.restart().await;
            stage.clock.advance(60_000);
        }
        for certificate in &certificates {
            let refused = show(&stage, certificate).await.expect_err("it is out");
            assert_eq!(refused.code, ErrorCode::PermissionDenied, "{refused}");
        }
        let renewed = show(&stage, &issued(&ca, params("deleted"))).await.expect_err("it is out by any certificate");
        assert_eq!(renewed.code, ErrorCode::PermissionDenied);
        assert_eq!(find(&stage, "", "deleted").await, Err(Code::NotFound));
    }
    stage.create_device("deleted").await.expect("a device of this name is somebody's will");
    assert!(show(&stage, &certificates[2]).await.is_err(), "its former certificate is not its own again");
}

#[tokio::test]
async fn a_deleted_authority_registers_nobody_and_its_devices_go_on() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    let known = issued(&ca, params("known"));
    show(&stage, &known).await.expect("registered");
    delete(&stage, "", "works").await;
    show(&stage, &known).await.expect("known by its fingerprint");
    let late = show(&stage, &issued(&ca, params("late"))).await.expect_err("too late");
    assert_eq!(late, ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid"));
    assert_eq!(find(&stage, "", "late").await, Err(Code::NotFound));
}

#[tokio::test]
async fn of_many_that_show_one_certificate_at_once_one_registers_it() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    let shown = proof(&[&issued(&ca, params("lamp"))]);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (mut client, question) = (stage.client.clone(), AuthenticateRequest { proof: Some(shown.clone()) });
        calls.spawn(async move {
            let request = AuthenticateAllRequest { questions: vec![question.clone(), question] };
            client.authenticate_all(request).await.expect("answered").into_inner().verdicts
        });
    }
    let codes: Vec<u32> = calls.join_all().await.into_iter().flatten().map(|verdict| verdict.code).collect();
    assert!(codes.contains(&0), "{codes:?}");
    let again = drover_types::ErrorCode::Unavailable.grpc().unsigned_abs();
    assert!(codes.iter().all(|code| *code == 0 || *code == again), "{codes:?}");
    let request = ListCredentialsRequest { tenant: String::new(), device: "lamp".into() };
    let credentials = stage.client.clone().list_credentials(request).await.expect("listed").into_inner().credentials;
    assert_eq!(credentials.len(), 1);
}

#[tokio::test]
async fn a_registration_that_a_crash_has_cut_off_is_completed_by_the_same_certificate_only() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "", "works", ca.pem()).await.expect("registered");
    let (begun, other) = (issued(&ca, params("lamp")), issued(&ca, params("lamp")));
    let fingerprint = hex(&Sha256::digest(&begun));
    let attributes = [("certificateSha256".to_owned(), fingerprint)].into();
    let left_over = Device { attributes, ..device("lamp") };
    let request = CreateDeviceRequest { device: Some(left_over) };
    stage.client.clone().create_device(request).await.expect("created");
    stage.clock.advance(9_999);
    assert_eq!(show(&stage, &begun).await.expect_err("it may go on").code, ErrorCode::Unavailable);
    stage.clock.advance(1);
    assert_eq!(show(&stage, &other).await.expect_err("another").code, ErrorCode::PermissionDenied);
    assert_eq!(show(&stage, &begun).await.expect("completed").device, "lamp");
}

#[tokio::test]
async fn what_is_no_authority_in_force_is_refused_by_its_field() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    let signed =
        |params: CertificateParams| params.self_signed(&KeyPair::generate().expect("a key")).expect("one").pem();
    let mut ended = authority_params("ended");
    ended.not_after = date_time_ymd(2026, 1, 1);
    let mut signs_nothing = authority_params("signs nothing");
    signs_nothing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let more = BASE64_STANDARD.encode([&**ca.der(), b"more".as_slice()].concat());
    for wrong in [
        String::new(),
        "no PEM".to_owned(),
        KeyPair::generate().expect("a key").serialize_pem(),
        signed(params("a device")),
        signed(ended),
        signed(signs_nothing),
        ca.pem() + &ca.pem(),
        format!("-----BEGIN CERTIFICATE-----\n{more}\n-----END CERTIFICATE-----\n"),
        format!("{}{}", ca.pem(), "\n".repeat(16 * 1024)),
    ] {
        let refused = put(&stage, "", "a", wrong.clone()).await.expect_err(&wrong);
        let told = (refused.code, refused.field.as_deref());
        assert_eq!(told, (ErrorCode::InvalidArgument, Some("spec.certificate")), "{wrong}");
    }
    let template = Device { policies: vec!["nowhere".into()], ..device("") };
    let refused = put_with(&stage, "", "a", ca.pem(), template).await.expect_err("no such policy");
    assert_eq!(refused.field.as_deref(), Some("spec.template.policies"));
}

#[tokio::test]
async fn the_authorities_of_a_tenant_are_bounded_and_their_subjects_its_own() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    for number in 0..32 {
        put(&stage, "a", &format!("ca-{number}"), ca.pem()).await.expect("within the limit");
    }
    let over = put(&stage, "a", "one-more", ca.pem()).await.expect_err("one more");
    assert_eq!((over.code, over.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("32")));
    put(&stage, "a", "ca-0", issuer("Works").pem()).await.expect("it is there already");
    let taken = put(&stage, "b", "ca", issuer("Works").pem()).await.expect_err("of another tenant");
    assert_eq!((taken.code, taken.field.as_deref()), (ErrorCode::AlreadyExists, Some("spec.certificate")));
    let request = ListCertificateAuthoritiesRequest { tenant: "a".into(), page_size: 100, ..Default::default() };
    let listed = authorities(&stage).list_certificate_authorities(request).await.expect("listed").into_inner();
    assert_eq!(listed.certificate_authorities.len(), 32);
    put(&stage, "a", "ca-0", issuer("Other works").pem()).await.expect("another subject");
    for number in 1..32 {
        delete(&stage, "a", &format!("ca-{number}")).await;
    }
    put(&stage, "b", "ca", ca.pem()).await.expect("the subject is free");
    assert_eq!(show(&stage, &issued(&ca, params("lamp"))).await.expect("registered").tenant, "b");
}

#[tokio::test]
async fn the_audit_trail_says_that_a_certificate_has_registered_its_device() {
    let stage = Stage::new().await;
    let ca = issuer("Works");
    put(&stage, "works", "line-1", ca.pem()).await.expect("registered");
    show(&stage, &issued(&ca, params("lamp-1"))).await.expect("registered");
    let mut client = AuditClient::new(stage.network.client("registry"));
    let request = ListAuditRequest { tenant: "works".into(), actor: "registration".into(), ..Default::default() };
    let mut told = Vec::new();
    until(async || {
        told = client.list_audit(request.clone()).await.expect("listed").into_inner().entries;
        told.len() >= 2
    })
    .await;
    let told: Vec<_> = told.iter().map(|entry| (entry.kind.as_str(), entry.device.as_str())).collect();
    assert_eq!(told, [("credential", "lamp-1"), ("device", "")]);
}
