//! A device for tests that are not about devices: connects, publishes, and goes.

use drover_load::client::{Client, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_types::Qos;

/// How to connect as `client` to the MQTT listener at `port`.
pub fn options(port: u16, version: Version, client: &str) -> anyhow::Result<Options> {
    let target = Target::new(&format!("mqtt://127.0.0.1:{port}"), &TlsFiles::default())?;
    Ok(Options::new(target, ClientOptions::new(version, client)))
}

/// Publishes `payloads` at QoS 1 to `topic` of the MQTT listener at `port`; returns when all are acknowledged.
pub fn publish(port: u16, client: &str, topic: &str, payloads: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(options(port, Version::V311, client)?).await?;
        for payload in payloads {
            client.publish(topic, payload.as_bytes(), Qos::AtLeastOnce).await?;
        }
        client.disconnect().await;
        Ok(())
    })
}
