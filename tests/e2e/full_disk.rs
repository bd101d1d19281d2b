//! The disk of a whole platform fills up under a fleet: what is refused comes again, and nothing is lost, doubled or stalled.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_backends::small_disk;
use drover_load::client::Client;
use drover_mqtt::Version;
use drover_tests::fleet::{Fleet, Plan};
use drover_tests::marks::Row;
use drover_tests::{Platform, options, publish, read_committed};
use drover_types::Qos;
use serde_json::json;
use tokio::time::timeout;

/// What the platform, and the ballast, have to share.
const DISK_BYTES: u64 = 64 * 1024 * 1024;
/// How the ballast grows: soon, and then by what a file system gives out.
const CHUNKS: [usize; 2] = [1024 * 1024, 4096];
const DEVICES: usize = 10;
const MESSAGES: u64 = 300;
const PACE: Duration = Duration::from_millis(20);
/// Longest wait for the next message of a subscriber.
const DELIVERY: Duration = Duration::from_secs(30);

/// Takes all room that is left.
fn fill(ballast: &Path) -> anyhow::Result<()> {
    let mut file = File::create(ballast)?;
    for bytes in CHUNKS {
        let chunk = vec![0; bytes];
        loop {
            match file.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// A subscriber whose session is kept.
async fn ear(port: u16) -> anyhow::Result<Client> {
    let mut options = options(port, Version::V311, "ear")?;
    options.mqtt.clean_start = false;
    let client = Client::connect(options).await?;
    client.subscribe("fleet/+", Qos::AtLeastOnce).await?;
    Ok(client)
}

/// Reads until each message of the fleet has come at least once.
async fn hear_all(mut ear: Client) -> anyhow::Result<()> {
    let mut heard = BTreeSet::new();
    while heard.len() < DEVICES * usize::try_from(MESSAGES)? {
        let message = timeout(DELIVERY, ear.next_message()).await;
        let message = message.with_context(|| format!("{} messages heard", heard.len()))?.context("a connection")?;
        heard.insert((message.topic, message.payload));
    }
    ear.disconnect().await;
    Ok(())
}

/// A counter that is there from the start.
fn counter(platform: &Platform, name: &str) -> anyhow::Result<u64> {
    let text = platform.admin("/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("{name} in /metrics"))?.parse::<u64>().context(name.to_owned())
}

/// How many numbers time series keep of a device.
fn kept(platform: &Platform, device: usize) -> anyhow::Result<u64> {
    let path = format!("/devices/dev-{device}/telemetry?field=n&from=-1h&limit=1000");
    let answer = platform.rest("GET", &path, None)?;
    Ok(answer["items"].as_array().context("items")?.len() as u64)
}

#[test]
fn a_disk_that_fills_up_refuses_and_with_room_everything_goes_on() -> anyhow::Result<()> {
    let name = "full_disk::a_disk_that_fills_up_refuses_and_with_room_everything_goes_on";
    let Some(disk) = small_disk::enter(name, DISK_BYTES) else { return Ok(()) };
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let ear = runtime.block_on(ear(port))?;

    let all = DEVICES as u64 * MESSAGES;
    let fleet = Fleet::start(Plan::new(vec![port], DEVICES, MESSAGES, PACE));
    platform.until("under way", |_| Ok(fleet.acknowledged() >= all / 4))?;
    let ballast = disk.join("ballast");
    fill(&ballast)?;
    platform.until("refusing", |platform| Ok(counter(platform, "drover_ingress_appends_failed_total")? > 0))?;
    ensure!(fleet.acknowledged() < all, "everything was acknowledged on a full disk");
    std::fs::remove_file(&ballast)?;
    platform.until("acknowledged", |_| Ok(fleet.is_finished()))?;
    let mut ledger = fleet.finish()?;

    let of_fleet = |brokers: &str| -> anyhow::Result<Vec<Row>> {
        let rows = read_committed(brokers, "fleet")?;
        rows.iter().filter(|row| row.key.starts_with("dev-")).map(Row::read).collect()
    };
    platform.until("out of the rules", |_| Ok(of_fleet(&brokers)?.len() as u64 >= all))?;
    for row in of_fleet(&brokers)? {
        ledger.received(&format!("fleet/{}", row.device), &row.device, row.number);
    }
    let verdict = ledger.check();
    println!("full disk: {verdict}");
    ensure!(verdict.is_clean() && verdict.totals.acknowledged == all, "{verdict}");
    runtime.block_on(hear_all(ear))?;
    platform.until("kept", |platform| {
        let with =
            |all: bool, device: usize| -> anyhow::Result<bool> { Ok(all && kept(platform, device)? == MESSAGES) };
        (0..DEVICES).try_fold(true, with)
    })?;
    platform.until("ready", |platform| Ok(platform.admin("/readyz").is_ok()))?;
    ensure!(platform.stop()?.success(), "it does not end well");
    Ok(())
}
