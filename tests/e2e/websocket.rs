//! MQTT over WebSocket on the port of the console, by the client that browsers use.

use std::process::Command;

use drover_tests::{Platform, lines_of, node, script};

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
