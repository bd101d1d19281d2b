//! Marks: one message into every partition of the telemetry topic, awaited behind a rule.
//!
//! A partition is worked off in order, so when its mark has come out, so has everything before it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use drover_bus::partition_of;
use drover_types::TELEMETRY_TOPIC;
use serde_json::{Value, json};

use crate::{Follower, Output, Processes, partitions, publish, read_committed};

/// Between two looks whether marks have come.
const LOOK: Duration = Duration::from_millis(500);
/// Where the rule writes to.
const FLEET: &str = "fleet";

/// A row of a rule's output that names its device and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub device: String,
    pub number: u64,
}

impl Row {
    /// Reads `{"device": …, "n": …}`.
    pub fn read(output: &Output) -> anyhow::Result<Self> {
        let row: Value = serde_json::from_str(&output.value)?;
        let device = row["device"].as_str().context("a device")?.to_owned();
        Ok(Self { device, number: row["n"].as_u64().context("a number")? })
    }
}

/// Devices, one for each partition of the telemetry topic, whose names begin with `prefix`.
pub fn devices(brokers: &str, prefix: &str) -> anyhow::Result<Vec<String>> {
    let count = u32::try_from(partitions(brokers, TELEMETRY_TOPIC)?)?;
    let of = |partition: u32| {
        let mut names = (0..).map(|number| format!("{prefix}-{number}"));
        names.find(|name| partition_of(format!("default/{name}").as_bytes(), count) == partition)
    };
    (0..count).map(|partition| of(partition).context("some name falls into each")).collect()
}

fn apply_rule(processes: &Processes) -> anyhow::Result<()> {
    let rule = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "fleet"},
        "spec": {"sql": "SELECT device, n FROM 'fleet/+'", "actions": [{"kafka": {"topic": FLEET}}]},
    });
    let file = processes.file("rule.json");
    std::fs::write(&file, rule.to_string())?;
    processes.cli(&["rule", "apply", "-f", &file.display().to_string()])?;
    Ok(())
}

/// Applies a rule that copies `fleet/+` to the topic `fleet`, and waits until every partition goes through it.
pub fn apply_fleet_rule(processes: &mut Processes, brokers: &str) -> anyhow::Result<()> {
    apply_rule(processes)?;
    through(processes, brokers, "probe", |_| {})
}

/// Publishes marks of `prefix`, waits until each is there, and then hands all rows of the topic `fleet` to `row`.
pub fn through(
    processes: &mut Processes,
    brokers: &str,
    prefix: &str,
    mut row: impl FnMut(&Row),
) -> anyhow::Result<()> {
    let mut waiting: BTreeSet<String> = devices(brokers, prefix)?.into_iter().collect();
    let (port, mut output) = (processes.port(1883), None);
    let mut round = 0;
    processes.until(&format!("past the marks {prefix}"), |_| {
        // Other numbers each time: the same again would be taken for a repeat.
        round += 1;
        let mark = |device: &String| {
            let payload = json!({"device": device, "n": round}).to_string();
            publish(port, device, &format!("fleet/{device}"), &[payload])
        };
        waiting.iter().try_for_each(mark)?;
        // The rule's topic is made when the rule is applied, not before the command returns.
        let output = match &mut output {
            Some(output) => output,
            none => match Follower::open(brokers, FLEET) {
                Ok(opened) => none.insert(opened),
                Err(_) => return Ok(false),
            },
        };
        while let Some(output) = output.next(LOOK)? {
            waiting.remove(&Row::read(&output)?.device);
        }
        Ok(waiting.is_empty())
    })?;
    // What came before a mark is committed, but it may lie in another partition of the output than the mark.
    read_committed(brokers, FLEET)?.iter().try_for_each(|output| {
        row(&Row::read(output)?);
        Ok(())
    })
}
