//! What a message costs: publish to read-committed output, on an idle platform and at 5,000 messages a second, and
//! processor time of ingress and rules.
//!
//! Prints figures, beside the project's ceilings, and judges none but that all messages come out: what they are worth
//! depends on the machine and on what else it does. `cargo xtask costs` measures the release build, for longer; only its
//! figures are to be held against the ceilings. Kafka and Cassandra are started as the README says.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_load::client::Client;
use drover_mqtt::Version;
use drover_tests::fleet::{Fleet, Plan};
use drover_tests::marks::{self, Row};
use drover_tests::{Follower, LocalBackends, Platform, Processes, number, options, publish, read_committed};
use drover_types::Qos;
use serde_json::json;
use tokio::time::{Instant, interval};

use crate::readme;

/// Messages published one by one, and the time between two: each finds an idle platform, if there is no other load.
const SINGLES: u64 = 200;
const SINGLE_PACE: Duration = Duration::from_millis(20);
/// The load beside them: so many devices with a message each so often, 5,000 a second, for longer than they take.
const BUSY_DEVICES: usize = 50;
const BUSY_PACE: Duration = Duration::from_millis(10);
const BUSY_MESSAGES: u64 = 600;
/// The fleet of the last part: closed loops, as fast as the windows let them.
const DEVICES: usize = 50;
const LONGEST_POLL: Duration = Duration::from_secs(1);
/// Longest that the outputs of all singles take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Processor time of a message with Kafka, librdkafka's included, in µs: most of the ingress, most of the rules.
const CEILINGS_US: [f64; 2] = [20.0, 10.0];
/// The device of the first part.
const SINGLE: &str = "single";

/// Messages of each device of the fleet.
fn messages() -> anyhow::Result<u64> {
    number("DROVER_COSTS_MESSAGES", 200)
}

/// User and system time of a process (proc(5): fields 14 and 15 of `/proc/PID/stat`, 100 ticks a second on Linux).
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a name in parentheses")?.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

/// What the figures were measured on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Publishes one by one, beside a load if there is one; milliseconds from each publish until a read-committed consumer has
/// its output, sorted.
fn latencies(port: u16, brokers: &str, load: Option<Plan>) -> anyhow::Result<Vec<f64>> {
    let mut output = Follower::open(brokers, "fleet")?;
    while output.next(Duration::from_secs(1))?.is_some() {}
    // Other numbers each time: the same again would be taken for repeats.
    let first = if load.is_some() { SINGLES } else { 0 };
    let load = load.map(Fleet::start);
    let arriving = std::thread::spawn(move || -> anyhow::Result<HashMap<u64, Instant>> {
        let (mut arrivals, since) = (HashMap::new(), Instant::now());
        while (arrivals.len() as u64) < SINGLES {
            ensure!(since.elapsed() < PATIENCE, "{} of {SINGLES} outputs within {PATIENCE:?}", arrivals.len());
            let Some(record) = output.next(LONGEST_POLL)? else { continue };
            let (row, now) = (Row::read(&record)?, Instant::now());
            if row.device == SINGLE && row.number >= first {
                arrivals.insert(row.number, now);
            }
        }
        Ok(arrivals)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sent: Vec<Instant> = runtime.block_on(async {
        let client = Client::connect(options(port, Version::V311, SINGLE)?).await?;
        let (mut pace, mut sent) = (interval(SINGLE_PACE), Vec::new());
        for number in first..first + SINGLES {
            pace.tick().await;
            sent.push(Instant::now());
            let payload = json!({"device": SINGLE, "n": number}).to_string();
            client.publish(&format!("fleet/{SINGLE}"), payload.as_bytes(), Qos::AtLeastOnce).await?;
        }
        client.disconnect().await;
        anyhow::Ok(sent)
    })?;
    let arrivals = arriving.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
    if let Some(load) = load {
        let totals = load.finish()?.totals();
        ensure!(totals.acknowledged == BUSY_DEVICES as u64 * BUSY_MESSAGES, "the load: {totals:?}");
    }
    let took =
        |(number, sent): (u64, &Instant)| arrivals.get(&number).map(|arrived| (*arrived - *sent).as_secs_f64() * 1e3);
    let mut took: Vec<f64> = (first..).zip(&sent).filter_map(took).collect();
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// 5,000 messages a second.
fn busy(ports: Vec<u16>) -> Plan {
    Plan { prefix: "busy", keep_alive_s: 0, ..Plan::new(ports, BUSY_DEVICES, BUSY_MESSAGES, BUSY_PACE) }
}

fn tell(what: &str, latencies: &[f64]) {
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!("costs: {what}: publish to read-committed output p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
}

/// A fleet as fast as its windows let it; how many messages a second were acknowledged.
fn load(ports: Vec<u16>) -> anyhow::Result<(u64, f64)> {
    let since = Instant::now();
    let pace = Duration::from_micros(1);
    let window = NonZeroU16::new(20).context("not 0")?;
    let fleet = Fleet::start(Plan { window, keep_alive_s: 0, ..Plan::new(ports, DEVICES, messages()?, pace) });
    let totals = fleet.finish()?.totals();
    Ok((totals.acknowledged, totals.acknowledged as f64 / since.elapsed().as_secs_f64()))
}

#[test]
fn costs_of_a_message_in_one_process() -> anyhow::Result<()> {
    let mut platform = Platform::start()?;
    let actions = json!([{"kafka": {"topic": "fleet"}}]);
    platform.apply_rule("fleet", json!({"sql": "SELECT device, n FROM 'fleet/+'", "actions": actions}))?;
    let (port, brokers) = (platform.port(1883), platform.brokers());
    let mut probes = 0_u64;
    platform.until("through the rule", |_| {
        // Another number each time: the same again would be taken for a repeat.
        probes += 1;
        publish(port, "probe", "fleet/probe", &[json!({"device": "probe", "n": probes}).to_string()])?;
        Ok(read_committed(&brokers, "fleet").is_ok_and(|rows| !rows.is_empty()))
    })?;
    tell("one process", &latencies(port, &brokers, None)?);
    tell("one process, at 5,000 msg/s", &latencies(port, &brokers, Some(busy(vec![port])))?);
    let (pid, before) = (platform.pid()?, cpu_seconds(platform.pid()?)?);
    let (count, rate) = load(vec![port])?;
    platform.until("out of the rules", |_| {
        let rows = read_committed(&brokers, "fleet")?;
        Ok(rows.iter().filter(|row| row.key.starts_with("dev-")).count() as u64 >= count)
    })?;
    let cpu = (cpu_seconds(pid)? - before) * 1e6 / count as f64;
    println!(
        "costs: one process: {rate:.0} msg/s acknowledged, {cpu:.1} µs of processor a message, to the consumer, on {} cores",
        cores()
    );
    Ok(())
}

#[test]
fn costs_of_a_message_in_separate_processes_with_kafka() -> anyhow::Result<()> {
    let [line, _] = readme::separate_processes()?;
    let Some(backends) = LocalBackends::start(&line)? else { return Ok(()) };
    let (brokers, mut processes) = (backends.brokers(), Processes::prepare(backends.environment())?);
    for name in Processes::names() {
        processes.start(name)?;
    }
    processes.until_ready()?;
    marks::apply_fleet_rule(&mut processes, &brokers)?;
    let ports = vec![processes.port(1883), processes.port(1884)];
    tell("with Kafka", &latencies(ports[0], &brokers, None)?);
    tell("with Kafka, at 5,000 msg/s", &latencies(ports[0], &brokers, Some(busy(ports.clone())))?);
    let spent = |processes: &Processes, names: [&str; 2]| -> anyhow::Result<f64> {
        names.iter().map(|name| cpu_seconds(processes.pid(name)?)).sum()
    };
    let of = |processes: &Processes| -> anyhow::Result<[f64; 2]> {
        Ok([spent(processes, ["ingress-0", "ingress-1"])?, spent(processes, ["rules-0", "rules-1"])?])
    };
    let before = of(&processes)?;
    let (count, rate) = load(ports)?;
    let mut rows = 0;
    marks::through(&mut processes, &brokers, "mark", |row| rows += u64::from(row.device.starts_with("dev-")))?;
    let after = of(&processes)?;
    let cost = |part: usize| (after[part] - before[part]) * 1e6 / count as f64;
    let ([ingress, rules], [ingress_most, rules_most]) = ([cost(0), cost(1)], CEILINGS_US);
    println!(
        "costs: with Kafka: {rate:.0} msg/s acknowledged, processor time a message: ingress {ingress:.1} µs (ceiling \
         {ingress_most}), rules {rules:.1} µs (ceiling {rules_most}), on {} cores",
        cores()
    );
    anyhow::ensure!(rows == count, "{count} acknowledged, {rows} came out");
    Ok(())
}
