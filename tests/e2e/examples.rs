//! The examples run as their README says: a device publishes, a rule selects, an application reads.

use std::path::PathBuf;
use std::process::Command;

use drover_tests::{Platform, beside, lines_of, node, python_with};
use serde_json::json;

/// Readings above 30 °C among the ten of a device.
const HOT: usize = 5;

/// A platform with a rule, and a device of this name; the device's token.
fn stage(device: &str) -> anyhow::Result<(Platform, String)> {
    let platform = Platform::start()?;
    let sql = "SELECT temperature, topic(2) AS device FROM 'sensors/+/climate' WHERE temperature > 30";
    let kafka = json!({"kafka": {"topic": "home.hot-rooms", "key": "${device}"}});
    platform.apply_rule("hot-rooms", json!({"sql": sql, "actions": [kafka]}))?;
    let created = platform.cli(&["device", "create", device, "-o", "json"])?;
    let created: serde_json::Value = serde_json::from_str(&created)?;
    Ok((platform, created["token"].as_str().unwrap_or_default().to_owned()))
}

fn example(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

/// Runs the device, then the application, and compares what both print.
fn publishes_and_reads(device: Command, application: Command) -> anyhow::Result<()> {
    let (platform, token) = stage("kitchen")?;
    let run = |mut command: Command, argument: &str| {
        command.env("MQTT", format!("127.0.0.1:{}", platform.port(1883))).env("KAFKA", platform.brokers());
        command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", platform.port(8080)));
        command.env("DROVER_TOKEN", std::fs::read_to_string(platform.data().join("admin.token"))?.trim());
        command.env("DROVER_TOKEN_DEVICE", &token).env("COUNT", HOT.to_string());
        lines_of(command.arg(argument), b"")
    };
    assert_eq!(run(device, "kitchen")?, ["10 readings are kept"]);
    let expected: Vec<String> = (30..35).map(|degrees| format!("kitchen: {degrees}.5 °C")).collect();
    assert_eq!(run(application, "home.hot-rooms")?, expected);
    Ok(())
}

#[test]
fn python() -> anyhow::Result<()> {
    let Some(python) = python_with(&["paho.mqtt.client", "kafka"]) else { return Ok(()) };
    let command = |file: &str| {
        let mut command = Command::new(&python);
        command.arg(example(file));
        command
    };
    publishes_and_reads(command("python/device.py"), command("python/application.py"))
}

#[test]
fn node_js() -> anyhow::Result<()> {
    let (Some(node), Some(_)) = (node("mqtt"), node("kafkajs")) else { return Ok(()) };
    let command = |file: &str| {
        let mut command = Command::new(&node.program);
        command.env("NODE_PATH", &node.modules).arg(example(file));
        command
    };
    publishes_and_reads(command("node/device.js"), command("node/application.js"))
}

#[test]
fn rust() -> anyhow::Result<()> {
    publishes_and_reads(Command::new(beside("device")?), Command::new(beside("application")?))
}
