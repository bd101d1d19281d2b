//! The first path: a device publishes, a rule filters, a Kafka consumer reads.

use std::process::Command;

use drover_tests::{Platform, lines_of, python, read_committed, script, tool};
use serde_json::json;

#[test]
fn a_tls_device_sees_its_own_message_and_kcat_reads_the_rules_output() -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let mut platform = Platform::start()?;
    let sql = "SELECT temperature FROM 'sensors/temperature' WHERE temperature > 20";
    platform.apply_rule("warm", json!({"sql": sql, "actions": [{"kafka": {"topic": "warm"}}]}))?;
    platform.cli(&["device", "create", "thermo-1"])?;
    let keys = platform.file("keys");
    platform.cli(&["credential", "issue", "thermo-1", "--certificate", "--out", &keys.display().to_string()])?;

    let port = platform.port(8883).to_string();
    let mut device = Command::new(python);
    device.arg(script("tls_device.py")).args(["127.0.0.1", &port]);
    device.args([keys.join("ca.pem"), keys.join("device.cert.pem"), keys.join("device.private.key")]);
    let printed = lines_of(&mut device, b"")?;
    assert_eq!(printed, [r#"received sensors/temperature {"temperature": 22.5, "humidity": 60}"#]);

    // One PUBLISH rode behind CONNECT, one followed the SUBACK.
    let brokers = platform.brokers();
    platform.until("through the rule", |_| Ok(read_committed(&brokers, "warm")?.len() >= 2))?;
    let outputs = read_committed(&brokers, "warm")?;
    assert_eq!(outputs.iter().map(|o| o.value.as_str()).collect::<Vec<_>>(), [r#"{"temperature":22.5}"#; 2]);
    assert_eq!(outputs[0].key, "thermo-1");
    for header in ["id", "rule", "time"] {
        assert!(outputs[0].headers.iter().any(|name| name == header), "{header} in {:?}", outputs[0].headers);
    }
    if let Some(kcat) = tool("kcat") {
        let mut command = Command::new(kcat);
        command.args(["-b", &brokers, "-C", "-t", "warm", "-e", "-q", "-X", "isolation.level=read_committed"]);
        assert_eq!(lines_of(&mut command, b"")?, [r#"{"temperature":22.5}"#; 2]);
    }
    Ok(())
}

#[test]
fn of_a_thousand_lines_the_rule_matches_exactly_five_hundred() -> anyhow::Result<()> {
    let Some(mosquitto_pub) = tool("mosquitto_pub") else { return Ok(()) };
    let mut platform = Platform::start()?;
    let sql = "SELECT n FROM 'lines' WHERE n % 2 = 0";
    platform.apply_rule("even", json!({"sql": sql, "actions": [{"kafka": {"topic": "even"}}]}))?;
    let lines: String = (0..1_000).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let port = platform.port(1883).to_string();
    let mut publish = Command::new(mosquitto_pub);
    publish.args(["-h", "127.0.0.1", "-p", &port, "-t", "lines", "-q", "1", "-i", "liner", "-l"]);
    lines_of(&mut publish, lines.as_bytes())?;

    let brokers = platform.brokers();
    platform.until("through the rule", |_| Ok(read_committed(&brokers, "even")?.len() >= 500))?;
    assert!(platform.stop()?.success(), "drains and ends well");
    platform.resume()?;
    let outputs = read_committed(&brokers, "even")?;
    let expected: Vec<String> = (0..1_000).step_by(2).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(outputs.into_iter().map(|o| o.value).collect::<Vec<_>>(), expected);
    Ok(())
}
