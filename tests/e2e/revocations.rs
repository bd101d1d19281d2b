//! From a revocation to the closed socket, with three ingress nodes and many connections: in calm, and while Kafka hangs.
//!
//! `DROVER_REVOCATIONS=300` (of each part) and `DROVER_REVOCATIONS_CONNECTIONS=10000` are the full form, which
//! `cargo xtask bench revoke` runs over the release build. Devices that are revoked have tokens and are the test's own; the
//! other connections have no credentials and stay silent.

use std::time::Duration;

use anyhow::{Context, ensure};
use drover_load::client::{Client, ConnectionError};
use drover_mqtt::{ReasonCode, Version};
use drover_tests::{Backends, Idle, Processes, number, options, pause, raise_descriptors};
use drover_types::Qos;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

const NODES: [&str; 3] = ["ingress-0", "ingress-1", "ingress-2"];
/// MQTT port of the first node, as configured; the others' follow it.
const PORT: u16 = 1883;
/// Devices revoked in each of the two parts.
const REVOCATIONS: usize = 20;
/// Connections of all nodes together.
const CONNECTIONS: usize = 240;
/// How soon a socket is closed: what 99 of 100 have to keep to, and 9 of 10 where there are fewer than [`JUDGED_BY_P99`], whose
/// 99th percentile is the slowest of them.
const CLOSED_MAX: Duration = Duration::from_secs(1);
const JUDGED_BY_P99: usize = 100;
/// How long anything may take, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device with a token, connected.
struct Device {
    name: String,
    credential: String,
    client: Client,
}

struct Stage {
    processes: Processes,
    backends: Backends,
    runtime: Runtime,
}

impl Stage {
    /// `None` where Kafka or Cassandra cannot be had.
    fn start() -> anyhow::Result<Option<Self>> {
        let Some(backends) = Backends::start()? else { return Ok(None) };
        let mut environment = backends.environment();
        environment.push(("DROVER_INGRESS__TIMEOUTS__OWNERSHIP".to_owned(), "15s".to_owned()));
        environment.push(("DROVER_CASSANDRA__REQUEST_TIMEOUT".to_owned(), "10s".to_owned()));
        let mut processes = Processes::prepare_nodes(environment, u16::try_from(NODES.len())?)?;
        for name in ["registry", "gateway"].into_iter().chain(NODES) {
            processes.start(name)?;
        }
        processes.until_ready()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Some(Self { processes, backends, runtime }))
    }

    fn port(&self, node: usize) -> anyhow::Result<u16> {
        Ok(self.processes.port(PORT + u16::try_from(node)?))
    }

    /// Registers devices `PREFIX-0` and so on, and connects each by its token, to the nodes in turn.
    fn devices(&self, prefix: &str, count: usize) -> anyhow::Result<Vec<Device>> {
        (0..count).map(|number| self.device(format!("{prefix}-{number}"), number % NODES.len())).collect()
    }

    fn device(&self, name: String, node: usize) -> anyhow::Result<Device> {
        let declared = json!({"metadata": {"name": name}, "spec": {}});
        let created = self.processes.rest("POST", "/devices", Some(&declared))?;
        let text = |field: &str| created[field].as_str().map(str::to_owned).context("the answer to a new device");
        let mut options = options(self.port(node)?, Version::V5, &name)?;
        options.mqtt.user_name = Some(name.clone());
        options.mqtt.password = Some(text("token")?.into_bytes());
        options.reconnect_for = Duration::ZERO;
        let client = self.runtime.block_on(Client::connect(options)).with_context(|| name.clone())?;
        Ok(Device { credential: text("credential")?, name, client })
    }

    /// Revokes one; from the request to the end of its connection.
    fn revoke(&self, Device { name, credential, client }: Device) -> anyhow::Result<Duration> {
        let ending = self.runtime.spawn(async move {
            let end = client.closed().await;
            (Instant::now(), end)
        });
        let asked = Instant::now();
        let path = format!("/devices/{name}/credentials/{credential}");
        let answer = self.processes.rest("DELETE", &path, None)?;
        let ended = self.runtime.block_on(async { timeout(PATIENCE, ending).await });
        let (at, end) = ended.with_context(|| format!("{name} stays connected"))??;
        let told = matches!(end, ConnectionError::Disconnected(ReasonCode::AdministrativeAction));
        ensure!(told, "{name}: {end}");
        ensure!(answer["unconfirmedNodes"] == json!([]), "{name}: {answer}");
        Ok(at - asked)
    }

    /// Revokes all, one after the other, and says how long that took.
    fn revoke_all(&self, when: &str, devices: Vec<Device>) -> anyhow::Result<()> {
        let (count, connected) = (devices.len(), self.connections()?);
        let took = devices.into_iter().map(|device| self.revoke(device)).collect::<anyhow::Result<Vec<Duration>>>();
        let mut took = took.context(when.to_owned())?;
        took.sort_unstable();
        let at = |share: usize| took[(count * share).div_ceil(100) - 1];
        println!(
            "revocations: {when}: {count} of {connected} connections at {} nodes, to the closed socket p50 {:.1} ms, p99 {:.1} ms, \
             max {:.1} ms",
            NODES.len(),
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3,
            at(100).as_secs_f64() * 1e3
        );
        let share = if count < JUDGED_BY_P99 { 90 } else { 99 };
        ensure!(at(share) < CLOSED_MAX, "{when}: p{share} is {:?}, limit {CLOSED_MAX:?}", at(share));
        Ok(())
    }

    fn connections(&self) -> anyhow::Result<usize> {
        Ok(self.processes.connections(&NODES)?.iter().sum())
    }

    /// Waits until the nodes have so many connections together.
    fn until_connected(&mut self, count: usize, idle: &mut [Idle]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let held = self.connections().unwrap_or_default(); // one that is too busy to tell is asked again
            if held == count {
                return Ok(());
            }
            idle.iter_mut().try_for_each(Idle::check)?;
            ensure!(began.elapsed() < PATIENCE, "{held} of {count} connections:\n{}", self.processes.log_ends());
            pause();
        }
    }
}

#[test]
fn a_revoked_device_is_disconnected_at_once_among_many_and_while_kafka_hangs() -> anyhow::Result<()> {
    let each = number("DROVER_REVOCATIONS", REVOCATIONS)?;
    let all = number("DROVER_REVOCATIONS_CONNECTIONS", CONNECTIONS)?;
    ensure!(each > 0 && all > 2 * each, "{all} connections are to be more than those of 2 times {each} devices");
    raise_descriptors();
    let Some(mut stage) = Stage::start()? else { return Ok(()) };
    let share = (all - 2 * each) / NODES.len();
    let start = |(node, number): (&str, u8)| {
        let port = stage.processes.port(PORT + u16::from(number));
        Idle::start(port, &format!("idle-{node}"), share, 3, number + 1)
    };
    let mut idle = NODES.into_iter().zip(0..).map(start).collect::<anyhow::Result<Vec<Idle>>>()?;
    let (silent, calm, hung) = (share * NODES.len(), stage.devices("calm", each)?, stage.devices("hung", each)?);
    stage.until_connected(silent + 2 * each, &mut idle)?;

    stage.revoke_all("in calm", calm)?;
    stage.until_connected(silent + each, &mut idle)?;

    // What a device has on its way into the log holds nothing up.
    stage.backends.kafka.pause()?;
    for device in &hung {
        let publisher = device.client.publisher();
        let sent = async { publisher.start("fleet/hung", b"x", Qos::AtLeastOnce).await };
        drop(stage.runtime.block_on(sent)?);
    }
    stage.revoke_all("while Kafka hangs", hung)?;
    stage.until_connected(silent, &mut idle)?;
    stage.backends.kafka.resume()?;
    Ok(())
}
