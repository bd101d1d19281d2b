//! What a message costs one to four ingress processes over a real Kafka: the same clients, shared among them.
//!
//! Prints figures and judges none but that each process acknowledges: processes, Kafka, Cassandra and generators share a
//! machine, so rates are those of their competition. Runs only for `cargo xtask bench ingress`, over the release build: four
//! more processes would hold up all other tests, and nothing is tried here that `nodes` does not try.

use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, ensure};
use drover_tests::{Backends, Processes, generator};
use serde_json::Value;

use crate::costs::{cores, cpu_seconds};

const NODES: [&str; 4] = ["ingress-0", "ingress-1", "ingress-2", "ingress-3"];
/// MQTT port of the first node, as configured; the others' follow it.
const PORT: u16 = 1883;
/// Clients of all nodes together, and how long one waits for a server that is busy, in seconds.
const CLIENTS: usize = 240;
const PATIENCE_SECONDS: &str = "60";
/// How long each number of nodes is measured, in seconds; absent: not at all.
const SECONDS: &str = "DROVER_SCALING_SECONDS";

/// What one load has come to.
#[derive(Default)]
struct Load {
    acknowledged: f64,
    /// Messages a second of all nodes.
    rate: f64,
    /// Median time to acknowledgement, of the slowest node.
    p50_us: f64,
}

/// All clients, shared among the first `nodes` nodes, publish as fast as their windows let them.
fn load(processes: &Processes, nodes: usize, seconds: u64) -> anyhow::Result<Load> {
    let start = |node: usize| -> anyhow::Result<Child> {
        let port = processes.port(PORT + u16::try_from(node)?);
        let mut generator = Command::new(generator()?);
        generator.args(["bench", "--json", "--qos", "1", "--window", "10", "--payload", "128"]);
        generator.args(["--url", &format!("mqtt://127.0.0.1:{port}"), "--clients", &(CLIENTS / nodes).to_string()]);
        generator.args(["--client-id", &format!("of-{nodes}-at-{node}-{{i}}"), "--seconds", &seconds.to_string()]);
        generator.args(["--patience", PATIENCE_SECONDS]).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(generator.stderr(Stdio::piped()).spawn()?)
    };
    let running = (0..nodes).map(start).collect::<anyhow::Result<Vec<Child>>>()?;
    let mut load = Load::default();
    for (child, node) in running.into_iter().zip(NODES) {
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        ensure!(status.success(), "load of {node} ended with {status}: {}", String::from_utf8_lossy(&stderr));
        let report: Value = serde_json::from_slice(&stdout)?;
        let number = |field: &str| report[field].as_f64().with_context(|| format!("{field} in {report}"));
        ensure!(number("acknowledged")? > 0.0, "{node} has acknowledged nothing: {report}");
        load.acknowledged += number("acknowledged")?;
        load.rate += number("messages_per_second")?;
        load.p50_us = load.p50_us.max(number("ack_p50_us")?);
    }
    Ok(load)
}

#[test]
fn the_same_load_is_taken_by_one_ingress_process_and_by_four() -> anyhow::Result<()> {
    let Ok(seconds) = std::env::var(SECONDS) else {
        println!("NOT RUN: what a message costs one to four ingress processes (cargo xtask bench ingress measures it)");
        return Ok(());
    };
    let seconds: u64 = seconds.parse().with_context(|| format!("{SECONDS} = {seconds}"))?;
    let Some(backends) = Backends::start()? else { return Ok(()) };
    let mut processes = Processes::prepare_nodes(backends.environment(), u16::try_from(NODES.len())?)?;
    processes.start("registry")?;
    for nodes in 1..=NODES.len() {
        processes.start(NODES[nodes - 1])?;
        processes.until_ready()?;
        let spent = |processes: &Processes| -> anyhow::Result<f64> {
            NODES[..nodes].iter().map(|node| cpu_seconds(processes.pid(node)?)).sum()
        };
        let before = spent(&processes)?;
        let Load { acknowledged, rate, p50_us } = load(&processes, nodes, seconds)?;
        let cost_us = (spent(&processes)? - before) * 1e6 / acknowledged;
        println!(
            "scaling: {nodes} ingress with Kafka: {rate:.0} msg/s acknowledged, {cost_us:.1} µs of ingress a message, p50 {:.1} ms, \
             on {} cores",
            p50_us / 1e3,
            cores()
        );
    }
    Ok(())
}
