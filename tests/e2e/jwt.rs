//! JWTs as passwords, from outside: MQTT and HTTP, refused for every fault of theirs, and ended with them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_load::client::{Client, ConnectionError, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::client::{ClientError, ClientOptions};
use drover_mqtt::{ReasonCode, Version};
use drover_tests::Platform;
use drover_types::{Clock, Qos};
use ring::hmac;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
/// Longest wait for the end of a connection; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn configuration(directory: &Path) -> anyhow::Result<String> {
    let secret = directory.join("secret");
    std::fs::write(&secret, SECRET)?;
    let file = directory.join("drover.toml");
    let issuer = "issuer = \"https://id.example.org\"\naudience = [\"drover\"]\nleeway = \"0s\"\ntenant = \"home\"";
    std::fs::write(&file, format!("[[security.jwt]]\n{issuer}\nsecret = {secret:?}\n"))?;
    Ok(file.display().to_string())
}

fn now_s() -> u64 {
    drover_host::SystemClock.now_ms() / 1_000
}

fn signed(secret: &[u8], header: &Value, claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn claims(seconds: u64) -> Value {
    json!({"iss": "https://id.example.org", "aud": "drover", "sub": "lamp", "exp": now_s() + seconds})
}

fn jwt(claims: &Value) -> String {
    signed(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

async fn connect(platform: &Platform, user: &str, client: &str, password: &str) -> Result<Client, ConnectionError> {
    let target = Target::new(&format!("mqtt://127.0.0.1:{}", platform.port(1883)), &TlsFiles::default());
    let mut mqtt = ClientOptions::new(Version::V5, client);
    (mqtt.user_name, mqtt.password) = (Some(user.to_owned()), Some(password.as_bytes().to_vec()));
    let options = Options::new(target.expect("an address"), mqtt);
    Client::connect(Options { reconnect_for: Duration::ZERO, ..options }).await
}

fn log(platform: &Platform) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(platform.log())?)
}

fn refusal(refused: Result<Client, ConnectionError>) -> anyhow::Result<ReasonCode> {
    match refused.err().context("it was let in")? {
        ConnectionError::Mqtt(ClientError::Refused(reason)) => Ok(reason),
        other => Err(other.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_is_a_password_for_its_device_until_it_ends() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut platform = Platform::start_with(&["--config", &configuration(directory.path())?])?;
    platform.cli(&["device", "create", "lamp", "-n", "home"])?;
    let good = jwt(&claims(3_600));
    let device = connect(&platform, "home/lamp", "lamp", &good).await?;
    device.publish("a", b"1", Qos::AtLeastOnce).await?;

    let changed = |name: &str, value: Value| {
        let mut claims = claims(3_600);
        claims[name] = value;
        jwt(&claims)
    };
    let wrong = [
        (signed(SECRET, &json!({"alg": "none"}), &claims(3_600)), "its algorithm is not that of the issuer's key"),
        (signed(&[7; 32], &json!({"alg": "HS256"}), &claims(3_600)), "its signature is wrong"),
        (changed("iss", "https://evil.example.org".into()), "its issuer is not registered for the tenant"),
        (changed("aud", "others".into()), "its audience is not one of the issuer's"),
        (changed("exp", (now_s() - 5).into()), "it expired "),
        (changed("nbf", (now_s() + 60).into()), "it is valid only in "),
        (changed("sub", "other".into()), "its claim sub is not the device of the user name"),
    ];
    for (token, reason) in &wrong {
        let refused = connect(&platform, "home/lamp", "lamp", token).await;
        ensure!(refusal(refused)? == ReasonCode::BadUserNameOrPassword, "{reason}");
    }
    // The platform lets the client id of another device in as little as with any other password.
    let refused = connect(&platform, "home/lamp", "other", &good).await;
    ensure!(refusal(refused)? == ReasonCode::NotAuthorized);
    platform.until("logged", |platform| {
        let log = log(platform)?;
        Ok(wrong.iter().all(|(_, reason)| log.contains(&format!("the JWT is not valid: {reason}"))))
    })?;
    let said = log(&platform)?;
    ensure!(wrong.iter().all(|(token, _)| !said.contains(token.as_str())) && !said.contains(&good), "a token is told");

    let brief = connect(&platform, "home/lamp", "lamp", &jwt(&claims(2))).await?;
    let ended = tokio::time::timeout(PATIENCE, brief.closed()).await?;
    ensure!(matches!(ended, ConnectionError::Disconnected(ReasonCode::AdministrativeAction)), "{ended}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_it_as_bearer_and_a_disabled_device_is_out() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let platform = Platform::start_with(&["--config", &configuration(directory.path())?])?;
    platform.cli(&["device", "create", "lamp", "-n", "home"])?;
    let good = jwt(&claims(3_600));
    let server = format!("http://127.0.0.1:{}", platform.port(8080));
    let publish = |token: &str| -> anyhow::Result<u16> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request =
            agent.post(format!("{server}/v1/topics/a?qos=1")).header("authorization", format!("Bearer {token}"));
        Ok(request.send("1")?.status().as_u16())
    };
    ensure!((200..300).contains(&publish(&good)?), "taken");
    ensure!(publish(&jwt(&json!({"iss": "https://id.example.org", "aud": "drover", "sub": "lamp", "exp": 1})))? == 401);

    let device = connect(&platform, "home/lamp", "lamp", &good).await?;
    let token = std::fs::read_to_string(platform.data().join("admin.token"))?;
    let disabled = json!({"metadata": {"name": "lamp"}, "spec": {"enabled": false}});
    ureq::put(format!("{server}/api/v1/tenants/home/devices/lamp"))
        .header("authorization", format!("Bearer {}", token.trim()))
        .send(disabled.to_string())?;
    let ended = tokio::time::timeout(Duration::from_secs(1), device.closed()).await?;
    ensure!(matches!(ended, ConnectionError::Disconnected(ReasonCode::AdministrativeAction)), "{ended}");
    let refused = connect(&platform, "home/lamp", "lamp", &good).await;
    ensure!(refusal(refused)? == ReasonCode::NotAuthorized, "whatever its token says");
    ensure!(publish(&good)? == 403);
    Ok(())
}
