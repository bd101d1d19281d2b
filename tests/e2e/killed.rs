//! The platform is killed, or asked to stop, under a fleet of paho clients: what was acknowledged comes out exactly once
//! and in order.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::Context;
use drover_tests::{Output, Platform, python, read_committed, script};
use serde_json::{Value, json};

const CLIENTS: usize = 20;
const MESSAGES: usize = 300;
const INTERRUPTIONS: usize = 5;

#[test]
fn killed_five_times_every_acknowledged_message_comes_out_exactly_once_and_in_order() -> anyhow::Result<()> {
    interrupted("kills", Platform::kill)
}

#[test]
fn stopped_five_times_under_load_it_ends_well_and_every_acknowledged_message_comes_out_exactly_once()
-> anyhow::Result<()> {
    interrupted("stops", |platform| {
        let status = platform.stop()?;
        anyhow::ensure!(status.success(), "asked to stop under load it ended with {status}");
        Ok(())
    })
}

/// Runs the fleet while `interrupt` ends the platform again and again.
fn interrupted(what: &str, interrupt: impl Fn(&mut Platform) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let mut platform = Platform::start()?;
    let sql = "SELECT device, n FROM 'fleet/+'";
    platform.apply_rule("fleet", json!({"sql": sql, "actions": [{"kafka": {"topic": "fleet"}}]}))?;
    let port = platform.port(1883).to_string();
    let mut fleet = Command::new(python);
    fleet.arg(script("redelivering_fleet.py")).args(["127.0.0.1", &port]);
    fleet.args([CLIENTS.to_string(), MESSAGES.to_string()]);
    let fleet = fleet.stdout(Stdio::piped()).spawn()?;

    let brokers = platform.brokers();
    let all = CLIENTS * MESSAGES;
    for interruption in 1..=INTERRUPTIONS {
        let enough = all * interruption / (INTERRUPTIONS + 2);
        platform.until("under way", |_| Ok(read_committed(&brokers, "fleet")?.len() >= enough))?;
        interrupt(&mut platform)?;
        platform.resume()?;
    }
    let report = fleet.wait_with_output()?;
    anyhow::ensure!(report.status.success(), "the fleet ended with {}", report.status);
    let report: Value = serde_json::from_slice(&report.stdout).context("the fleet's report")?;
    assert_eq!(report["unfinished"], json!({}), "every message was acknowledged in the end");

    platform.until("drained", |_| Ok(read_committed(&brokers, "fleet")?.len() >= all))?;
    let outputs = read_committed(&brokers, "fleet")?;
    println!("{CLIENTS} clients, {MESSAGES} messages each, {INTERRUPTIONS} {what}: {} outputs", outputs.len());
    for (device, numbers) in by_device(&outputs)? {
        let expected: Vec<u64> = (0..MESSAGES as u64).collect();
        assert_eq!(numbers, expected, "{device}: each once and in order");
    }
    Ok(())
}

fn by_device(outputs: &[Output]) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
    let mut devices: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for output in outputs {
        let row: Value = serde_json::from_str(&output.value)?;
        let number = row["n"].as_u64().context("n is a number")?;
        devices.entry(output.key.clone()).or_default().push(number);
    }
    Ok(devices)
}
