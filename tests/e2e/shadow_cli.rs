//! What is desired by the command line reaches a connected device.

use drover_load::client::{Client, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_tests::Platform;
use drover_types::Qos;
use serde_json::{Value, json};

#[test]
fn desired_by_the_command_line_reaches_the_connected_device_as_a_delta() -> anyhow::Result<()> {
    let platform = Platform::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = Target::new(&format!("mqtt://127.0.0.1:{}", platform.port(1883)), &TlsFiles::default())?;
    let mut device = runtime.block_on(async {
        let device = Client::connect(Options::new(target, ClientOptions::new(Version::V311, "lamp"))).await?;
        device.subscribe("$aws/things/lamp/shadow/update/delta", Qos::AtLeastOnce).await?;
        anyhow::Ok(device)
    })?;
    platform.cli(&["shadow", "update", "lamp", "--desired", r#"{"fan": "on"}"#])?;
    let delta = runtime.block_on(device.next_message()).map(|message| message.payload.to_vec());
    let delta: Value = serde_json::from_slice(&delta.unwrap_or_default())?;
    assert_eq!((&delta["version"], &delta["state"]), (&json!(1), &json!({"fan": "on"})));

    let reported = r#"{"state": {"reported": {"fan": "on"}}}"#;
    runtime.block_on(device.publish("$aws/things/lamp/shadow/update", reported.as_bytes(), Qos::AtLeastOnce))?;
    let shown = || platform.cli(&["shadow", "get", "lamp"]);
    while shown()? != "FIELD  DESIRED  REPORTED\nfan    \"on\"     \"on\"\nversion 2\n" {}
    runtime.block_on(device.disconnect());
    Ok(())
}
