//! Kafka hangs under load: acknowledgements stop, sockets are not read, memory stays, metrics and `/readyz` tell, nothing is lost.
//!
//! `cargo xtask hang` is the long form, by `DROVER_KAFKA_HANG_SECONDS` and `DROVER_KAFKA_HANG_RATE` (messages a second).

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::faults::Stage;
use drover_tests::fleet::{Fleet, Plan};
use drover_tests::marks;
use drover_tests::{Processes, number};

const DEVICES: u64 = 100;
/// Messages a second of all devices together.
const RATE: u64 = 3_000;
/// How long Kafka hangs, in seconds; before and after it the fleet works for a while as well.
const HANG_SECONDS: u64 = 15;
const CALM_SECONDS: u64 = 8;
/// After this long nothing is acknowledged any more: what was under way has arrived.
const SILENCE_AFTER: u64 = 2;
/// A producer that hears nothing for so long is told to be stalled (`drover_bus_producer_state`).
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// After this long `/readyz` names the log: it is looked at every five seconds, and given five to answer.
const UNREADY_AFTER: u64 = 10;
/// How much younger than the hang the oldest waiting record may be told to be, in seconds: it was on its way already, or the
/// metrics are those of a moment ago.
const TOLD_LATE: u64 = 3;
/// What an ingress may grow by.
const GROWTH_MIB: f64 = 64.0;
const NODES: [(&str, u16); 2] = [("ingress-0", 1883), ("ingress-1", 1884)];

/// One look at an ingress.
struct Look {
    resident_mib: f64,
    records: f64,
    oldest_seconds: f64,
    is_stalled: bool,
    /// Messages of QoS 1 that it has told to be durable so far.
    durable: f64,
    /// Bytes that devices have sent and the ingress has not read.
    unread: u64,
}

impl Look {
    fn at(processes: &Processes, name: &str, port: u16) -> anyhow::Result<Self> {
        let metric = |metric: &str| processes.metric(name, metric)?.with_context(|| format!("{metric} of {name}"));
        Ok(Self {
            resident_mib: processes.resident_mib(name)?,
            records: metric("drover_bus_records_waiting")?,
            oldest_seconds: metric("drover_bus_oldest_waiting_seconds")?,
            is_stalled: metric(r#"drover_bus_producer_state{state="stalled"}"#)? > 0.0,
            durable: metric(r#"drover_ingress_messages_in_total{qos="1"}"#)?,
            unread: unread(processes.port(port))?,
        })
    }
}

/// Bytes in the receive queues of connections to a port (proc(5), `/proc/net/tcp`).
fn unread(port: u16) -> anyhow::Result<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let local = format!(":{port:04X}");
    let queues = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).filter(|address| address.ends_with(&local))?;
        u64::from_str_radix(fields.get(4)?.split_once(':')?.1, 16).ok()
    });
    Ok(queues.sum())
}

#[allow(clippy::disallowed_methods, reason = "no runtime here: this looks at other processes once a second")]
fn second() {
    std::thread::sleep(Duration::from_secs(1));
}

fn looks(processes: &Processes) -> anyhow::Result<Vec<Look>> {
    NODES.iter().map(|(name, port)| Look::at(processes, name, *port)).collect()
}

fn look(processes: &Processes, fleet: &Fleet, when: &str) -> anyhow::Result<Vec<Look>> {
    let looks = looks(processes)?;
    let totals = fleet.totals();
    print!("{when:>10}: sent {:6}, acknowledged {:6}", totals.sent, totals.acknowledged);
    for Look { resident_mib, records, oldest_seconds, is_stalled, unread, .. } in &looks {
        let state = if *is_stalled { "stalled" } else { "working" };
        print!(
            " | {resident_mib:5.1} MiB, {records:5} waiting, oldest {oldest_seconds:4.1} s, {state}, {unread:6} B unread"
        );
    }
    println!();
    Ok(looks)
}

/// What `/readyz` of each node says: its status, and whether it waits for the log.
fn readiness(processes: &Processes) -> anyhow::Result<Vec<(u16, bool)>> {
    let told = |(name, _): &(&str, u16)| {
        let (status, answer) = processes.readyz(name)?;
        Ok((status, answer["waiting"]["log"].is_string()))
    };
    NODES.iter().map(told).collect()
}

/// How many messages all nodes have told to be durable.
fn durable(looks: &[Look]) -> u64 {
    looks.iter().map(|look| look.durable as u64).sum()
}

/// While Kafka has hung for so many seconds: what each node tells is what the fleet sees.
fn tells_the_truth(looks: &[Look], passed: u64, acknowledged: u64, durable: u64) -> anyhow::Result<()> {
    for look in looks {
        ensure!(look.records > 0.0, "hung for {passed} s, and no record is told to wait");
        let oldest = passed.saturating_sub(TOLD_LATE) as f64;
        ensure!(look.oldest_seconds >= oldest, "hung for {passed} s, the oldest record {:.1} s", look.oldest_seconds);
        let due = passed >= STALLED_AFTER.as_secs() + TOLD_LATE;
        ensure!(look.is_stalled || !due, "hung for {passed} s, and the producer is told to work");
    }
    ensure!(durable == acknowledged, "{durable} messages are told to be durable, {acknowledged} are acknowledged");
    Ok(())
}

#[test]
fn while_kafka_hangs_nothing_is_acknowledged_nothing_grows_and_metrics_tell_and_afterwards_all_is_there()
-> anyhow::Result<()> {
    let hang = number("DROVER_KAFKA_HANG_SECONDS", HANG_SECONDS)?;
    let rate = number("DROVER_KAFKA_HANG_RATE", RATE)?;
    ensure!((DEVICES..=100_000).contains(&rate), "DROVER_KAFKA_HANG_RATE is {rate}, {DEVICES} to 100000 are allowed");
    let pace = Duration::from_micros(DEVICES * 1_000_000 / rate);
    let Some(mut stage) = Stage::start()? else { return Ok(()) };
    let brokers = stage.backends.kafka.brokers();
    marks::apply_fleet_rule(&mut stage.processes, &brokers)?;
    let ports = NODES.map(|(_, port)| stage.processes.port(port)).to_vec();
    let messages = (hang + 2 * CALM_SECONDS) * rate / DEVICES;
    // They go on sending: a window that is never full, and no device that leaves.
    let window = NonZeroU16::MAX;
    let plan = Plan::new(ports, usize::try_from(DEVICES)?, messages, pace);
    let durable_before = durable(&looks(&stage.processes)?);
    let fleet = Fleet::start(Plan { window, keep_alive_s: 0, ..plan });
    for _ in 0..CALM_SECONDS {
        second();
    }
    let before = look(&stage.processes, &fleet, "before")?;

    stage.backends.kafka.pause()?;
    let mut acknowledged = None;
    let mut worst: Vec<f64> = before.iter().map(|look| look.resident_mib).collect();
    let mut last = Vec::new();
    for passed in 1..=hang {
        second();
        last = look(&stage.processes, &fleet, &format!("hung {passed:2} s"))?;
        last.iter().zip(&mut worst).for_each(|(look, worst)| *worst = worst.max(look.resident_mib));
        if passed >= SILENCE_AFTER {
            let now = fleet.acknowledged();
            ensure!(*acknowledged.get_or_insert(now) == now, "acknowledged while the log hangs");
            tells_the_truth(&last, passed, now, durable(&last) - durable_before)?;
        }
        if passed >= UNREADY_AFTER + TOLD_LATE {
            let told = readiness(&stage.processes)?;
            ensure!(told == [(503, true); 2], "hung for {passed} s, and /readyz says {told:?}");
        }
    }
    for ((look, first), worst) in last.iter().zip(&before).zip(&worst) {
        ensure!(look.unread > 0, "devices go on sending, and nothing of it is left unread");
        ensure!(worst - first.resident_mib < GROWTH_MIB, "{:.1} MiB became {worst:.1}", first.resident_mib);
    }
    stage.backends.kafka.resume()?;

    let mut passed = 0;
    stage.processes.until("acknowledged", |processes| {
        second();
        passed += 1;
        look(processes, &fleet, &format!("back {passed:2} s"))?;
        Ok(fleet.is_finished())
    })?;
    stage.processes.until("idle again by their metrics", |processes| {
        let over = |(name, port): &(&str, u16)| -> anyhow::Result<bool> {
            let look = Look::at(processes, name, *port)?;
            Ok(look.records == 0.0 && !look.is_stalled)
        };
        NODES.iter().try_fold(true, |all, node| Ok(all & over(node)?))
    })?;
    stage.processes.until("ready again", |processes| Ok(readiness(processes)? == [(200, false); 2]))?;
    let mut ledger = fleet.finish()?;
    marks::through(&mut stage.processes, &brokers, "mark", |row| {
        if row.device.starts_with("dev-") {
            ledger.received(&format!("fleet/{}", row.device), &row.device, row.number);
        }
    })?;
    let verdict = ledger.check();
    let kept = Fleet::kept(&brokers)?;
    println!("{hang} s hung: {verdict}; {kept} records in the log");
    let is_kept = verdict.is_clean() && verdict.totals.acknowledged == verdict.totals.sent;
    ensure!(is_kept, "{verdict}\n{}", stage.processes.log_ends());
    Ok(())
}
