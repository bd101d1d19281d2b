//! The ledger over the whole layout, with real Kafka and Cassandra, while everything is killed and hung by seed.
//!
//! `cargo xtask ledger` runs it with other numbers: `DROVER_LEDGER_DEVICES`, `_MESSAGES`, `_FAULTS`, `_SECONDS`, `_SEED`;
//! `_DECKS` 1: faults on the way of a message only.

use std::time::Duration;

use drover_tests::faults::{Stage, schedule};
use drover_tests::fleet::{Fleet, Plan};
use drover_tests::marks;
use drover_tests::{number, partitions};
use drover_types::TELEMETRY_TOPIC;

/// What faults are done to: first, in every run, one of each kind on the way of a message; then all others.
const TARGETS: [&[&str]; 2] = [
    &["kafka", "cassandra", "ingress-0", "rules-0"],
    &["ingress-1", "rules-1", "registry", "shadow-0", "shadow-1", "storage", "gateway"],
];
/// Time of the fleet's work for each fault, without what the faults take.
const TIME_OF_A_FAULT: Duration = Duration::from_secs(5);

/// Another one for each run.
fn any_seed() -> u64 {
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis());
    u64::try_from(time % 1_000_000).unwrap_or(0)
}

#[test]
fn ledger_faults_what_was_acknowledged_comes_out_exactly_once_and_in_order_whatever_dies_or_hangs() -> anyhow::Result<()>
{
    let devices = number("DROVER_LEDGER_DEVICES", 20_u64)?;
    let messages = number("DROVER_LEDGER_MESSAGES", 200_u64)?;
    let faults = number("DROVER_LEDGER_FAULTS", 7_u64)?;
    // Beyond session timeouts and keep-alives.
    let longest = Duration::from_secs(number("DROVER_LEDGER_SECONDS", 15)?);
    let seed = number("DROVER_LEDGER_SEED", any_seed())?;
    let decks = number("DROVER_LEDGER_DECKS", TARGETS.len())?.min(TARGETS.len());
    println!(
        "ledger: {devices} devices, {messages} messages each, {faults} faults of {longest:?} at most, seed {seed}"
    );
    let Some(mut stage) = Stage::start()? else { return Ok(()) };
    let brokers = stage.backends.kafka.brokers();
    marks::apply_fleet_rule(&mut stage.processes, &brokers)?;

    let pace = TIME_OF_A_FAULT * u32::try_from(faults)? / u32::try_from(messages)?;
    let ports = vec![stage.processes.port(1883), stage.processes.port(1884)];
    let fleet = Fleet::start(Plan::new(ports, usize::try_from(devices)?, messages, pace));
    let progress = || fleet.acknowledged() * 1_000 / (devices * messages);
    let faults = schedule(seed, &TARGETS[..decks], usize::try_from(faults)?, longest);
    stage.suffer(&faults, progress, || fleet.is_finished())?;
    let mut ledger = fleet.finish()?;

    stage.processes.until_ready()?;
    marks::through(&mut stage.processes, &brokers, "mark", |row| {
        if row.device.starts_with("dev-") {
            ledger.received(&format!("fleet/{}", row.device), &row.device, row.number);
        }
    })?;
    let verdict = ledger.check();
    let kept = Fleet::kept(&brokers)?;
    println!("ledger: {verdict}");
    println!(
        "ledger: lost {}, doubled {}, reordered {}, unexpected {}; {kept} records in the log's {} partitions, so {} were \
         repeats",
        verdict.lost.count,
        verdict.doubled.count,
        verdict.reordered.count,
        verdict.unexpected.count,
        partitions(&brokers, TELEMETRY_TOPIC)?,
        kept.saturating_sub(devices * messages),
    );
    assert_eq!(verdict.totals.acknowledged, devices * messages, "every message was acknowledged in the end");
    assert!(verdict.is_clean(), "seed {seed}: {verdict}\n{}", stage.processes.log_ends());
    stage.processes.stop()
}
