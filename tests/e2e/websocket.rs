//! MQTT over WebSocket: on the port of the console by the client that browsers use, over TLS by paho.

use std::process::Command;

use drover_tests::{Platform, lines_of, node, python, script};

#[test]
fn mqtt_js_subscribes_and_publishes_over_websocket() -> anyhow::Result<()> {
    let Some(node) = node("mqtt") else { return Ok(()) };
    let platform = Platform::start()?;
    let created = platform.cli(&["device", "create", "page", "-o", "json"])?;
    let created: serde_json::Value = serde_json::from_str(&created)?;
    let mut page = Command::new(node.program);
    page.env("NODE_PATH", node.modules).env("DROVER_TOKEN_DEVICE", created["token"].as_str().unwrap_or_default());
    page.arg(script("websocket.cjs")).arg(format!("ws://127.0.0.1:{}/mqtt", platform.port(8080))).arg("page");
    assert_eq!(lines_of(&mut page, b"")?, ["4: 2 messages, as sent", "5: 2 messages, as sent"]);
    Ok(())
}

#[test]
fn paho_subscribes_and_publishes_over_websocket_over_tls() -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let platform = Platform::start()?;
    let created = platform.cli(&["device", "create", "thermo-1", "-o", "json"])?;
    let created: serde_json::Value = serde_json::from_str(&created)?;
    let mut device = Command::new(python);
    device.env("DROVER_TOKEN_DEVICE", created["token"].as_str().unwrap_or_default());
    device.arg(script("wss_device.py")).args(["127.0.0.1", &platform.port(8443).to_string()]);
    device.arg(platform.data().join("pki/ca.pem")).arg("thermo-1");
    assert_eq!(lines_of(&mut device, b"")?, ["received sensors/thermo-1/climate 22.5"]);
    Ok(())
}
