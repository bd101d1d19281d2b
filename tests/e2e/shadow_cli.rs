//! What is desired by the command line reaches a connected device, and what the device deletes is gone for REST.

use drover_load::client::Client;
use drover_mqtt::Version;
use drover_tests::{Platform, options};
use drover_types::Qos;
use serde_json::{Value, json};

#[test]
fn what_is_desired_reaches_the_device_as_a_delta_and_what_the_device_deletes_is_gone() -> anyhow::Result<()> {
    let mut platform = Platform::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut device = runtime.block_on(async {
        let device = Client::connect(options(platform.port(1883), Version::V311, "lamp")?).await?;
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

    let accepted = runtime.block_on(async {
        device.subscribe("$aws/things/lamp/shadow/delete/accepted", Qos::AtLeastOnce).await?;
        device.publish("$aws/things/lamp/shadow/delete", b"", Qos::AtLeastOnce).await?;
        anyhow::Ok(device.next_message().await.map(|message| (message.topic, message.payload)))
    })?;
    let (topic, accepted) = accepted.unwrap_or_default();
    assert_eq!(topic, "$aws/things/lamp/shadow/delete/accepted");
    assert_eq!(serde_json::from_slice::<Value>(&accepted)?["version"], 3);
    platform.until("without the shadow for REST", |platform| {
        let answer = platform.rest("GET", "/devices/lamp/shadow", None);
        Ok(answer.is_err_and(|error| error.to_string().contains(": 404 ")))
    })?;
    runtime.block_on(device.publish("$aws/things/lamp/shadow/update", reported.as_bytes(), Qos::AtLeastOnce))?;
    platform.until("told of a shadow whose version goes on", |platform| {
        Ok(platform.rest("GET", "/devices/lamp/shadow", None).is_ok_and(|shadow| shadow["version"] == 4))
    })?;
    runtime.block_on(device.disconnect());
    Ok(())
}
