//! A device that nobody has made connects by its certificate: the authority of its maker is registered, and that is all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_load::client::{Client, ConnectionError, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::client::{ClientError, ClientOptions};
use drover_mqtt::{ReasonCode, Version};
use drover_proto::registry::v1::PutCertificateAuthorityRequest;
use drover_proto::registry::v1::certificate_authorities_client::CertificateAuthoritiesClient;
use drover_proto::types::v1::{CertificateAuthority, Device, Meta};
use drover_tests::Platform;
use drover_types::Qos;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tonic::Request;
use tonic::transport::Endpoint;

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Files of a device of this name: its certificate and its key.
fn issue(
    platform: &Platform,
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate()?;
    let certificate = named(name).signed_by(&key, authority)?;
    let files = (platform.file(&format!("{name}.pem")), platform.file(&format!("{name}.key")));
    std::fs::write(&files.0, certificate.pem())?;
    std::fs::write(&files.1, key.serialize_pem())?;
    Ok(files)
}

async fn register(platform: &Platform, certificate: String) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", platform.port(7071)))?;
    let mut client = CertificateAuthoritiesClient::new(endpoint.connect().await?);
    let meta = Some(Meta { name: "works".into(), ..Meta::default() });
    let policies = vec!["default".into()];
    let template = Some(Device { r#type: "lamp".into(), enabled: true, policies, ..Device::default() });
    let authority = CertificateAuthority { meta, certificate, template };
    let mut request = Request::new(PutCertificateAuthorityRequest { certificate_authority: Some(authority) });
    let token = std::fs::read_to_string(platform.data().join("admin.token"))?;
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse()?);
    client.put_certificate_authority(request).await?;
    Ok(())
}

async fn connect(platform: &Platform, name: &str, identity: (PathBuf, PathBuf)) -> anyhow::Result<Client> {
    let files = TlsFiles { authority: Some(platform.data().join("pki/ca.pem")), identity: Some(identity) };
    let target = Target::new(&format!("mqtts://127.0.0.1:{}", platform.port(8883)), &files)?;
    let options = Options::new(target, ClientOptions::new(Version::V5, name));
    Ok(Client::connect(Options { reconnect_for: Duration::ZERO, ..options }).await?)
}

fn refusal(refused: anyhow::Result<Client>) -> anyhow::Result<ReasonCode> {
    match refused.err().context("it was let in")?.downcast::<ConnectionError>()? {
        ConnectionError::Mqtt(ClientError::Refused(reason)) => Ok(reason),
        other => Err(other.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_registered_authority_registers_its_device_until_that_is_deleted() -> anyhow::Result<()> {
    let platform = Platform::start()?;
    let (works, stranger) = (authority("Works")?, authority("Stranger")?);
    let lamp = issue(&platform, &works, "lamp-1")?;
    let refused = connect(&platform, "lamp-1", lamp.clone()).await;
    ensure!(refusal(refused)? == ReasonCode::BadUserNameOrPassword, "its authority is not registered");

    register(&platform, works.pem()).await?;
    for _ in 0..2 {
        let device = connect(&platform, "lamp-1", lamp.clone()).await?;
        device.publish("sensors/hall", b"{}", Qos::AtLeastOnce).await?;
        device.disconnect().await;
    }
    let found: Value = serde_json::from_str(&platform.cli(&["device", "get", "lamp-1", "-o", "json"])?)?;
    assert_eq!(found["spec"]["type"], "lamp");
    assert_eq!(found["spec"]["attributes"]["certificateAuthority"], "works");

    let other = issue(&platform, &stranger, "lamp-2")?;
    let refused = connect(&platform, "lamp-2", other).await;
    ensure!(refusal(refused)? == ReasonCode::BadUserNameOrPassword, "of another authority");
    platform.cli(&["device", "create", "lamp-3"])?;
    let taken = issue(&platform, &works, "lamp-3")?;
    ensure!(refusal(connect(&platform, "lamp-3", taken).await)? == ReasonCode::NotAuthorized, "it has a token");
    platform.cli(&["device", "delete", "lamp-1"])?;
    ensure!(refusal(connect(&platform, "lamp-1", lamp).await)? == ReasonCode::NotAuthorized, "revoked means out");
    Ok(())
}
