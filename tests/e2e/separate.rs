//! Every service a process of its own over a real Kafka and a real Cassandra: in any order, through the loss of each,
//! until all stop well; and through the first path, as one process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_load::client::Client;
use drover_mqtt::Version;
use drover_tests::{
    Backends, Collector, LocalRun, Manner, Processes, marks, options, publish, python, read_committed, tool,
};
use drover_types::{Qos, hex};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::first_path::{Site, exactly_five_hundred, publish_a_thousand, tls_device_to_kcat};
use crate::readme;
use crate::tails::{streamed, tailed};

/// Messages of each part of the test.
const MESSAGES: u64 = 50;
/// Processes that keep something in the database.
const KEEPERS: [&str; 6] = ["registry", "shadow-0", "shadow-1", "storage", "ingress-0", "ingress-1"];
/// How long a delta may take to its device.
const DELIVERY: Duration = Duration::from_secs(60);
/// How often one process may say of one thing that it waits: an outage lasts for longer than as many seconds.
const WAITS_MAX: usize = 20;

/// Publishes the next messages of one device by the ingress at `port`.
fn publish_next(port: u16, device: &str, first: u64) -> anyhow::Result<()> {
    let payloads: Vec<String> =
        (first..first + MESSAGES).map(|n| json!({"device": device, "n": n}).to_string()).collect();
    publish(port, device, &format!("fleet/{device}"), &payloads)
}

/// What has come out, as device and number, sorted.
fn outputs(brokers: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let read = |value: &str| -> anyhow::Result<(String, u64)> {
        let row: Value = serde_json::from_str(value)?;
        Ok((row["device"].as_str().context("a device")?.to_owned(), row["n"].as_u64().context("a number")?))
    };
    let mut rows: Vec<_> =
        read_committed(brokers, "fleet")?.iter().map(|output| read(&output.value)).collect::<anyhow::Result<_>>()?;
    rows.sort();
    Ok(rows)
}

fn expected(devices: &[(&str, u64)]) -> Vec<(String, u64)> {
    let mut all: Vec<_> =
        devices.iter().flat_map(|(device, messages)| (0..*messages).map(|n| ((*device).to_owned(), n))).collect();
    all.sort();
    all
}

/// Whether it is one of the devices that only show how far the rules are.
fn is_mark(device: &str) -> bool {
    ["probe-", "mark-"].iter().any(|prefix| device.starts_with(prefix))
}

/// How often a log says that something waits, by what that is.
fn waits_told(log: &str) -> BTreeMap<&str, usize> {
    let mut told = BTreeMap::<&str, usize>::new();
    for line in log.lines() {
        let by_readiness = line.split_once(r#"waiting name=""#).and_then(|(_, rest)| rest.split_once('"'));
        let otherwise = line.contains(" waits").then_some("what is told of otherwise");
        if let Some(what) = by_readiness.map(|(name, _)| name).or(otherwise) {
            *told.entry(what).or_default() += 1;
        }
    }
    told
}

/// Whether `/readyz` of a process says that it waits for `what`.
fn waits(processes: &Processes, name: &str, what: &str) -> bool {
    processes.readiness(name).is_ok_and(|told| told["waiting"][what].is_string())
}

/// What is wanted of a lamp by REST reaches the lamp at the ingress at `port`, and what the lamp says can be read.
fn shadow_round_trip(processes: &Processes, port: u16, level: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut lamp = Client::connect(options(port, Version::V311, "lamp")?).await?;
        lamp.subscribe("$aws/things/lamp/shadow/update/delta", Qos::AtLeastOnce).await?;
        let wanted = json!({"state": {"desired": {"level": level}}});
        tokio::task::block_in_place(|| processes.rest("PATCH", "/devices/lamp/shadow", Some(&wanted)))?;
        let delta = timeout(DELIVERY, lamp.next_message()).await?.context("a delta")?;
        let delta: Value = serde_json::from_slice(&delta.payload)?;
        anyhow::ensure!(delta["state"]["level"] == level, "{delta}");
        let told = json!({"state": {"reported": {"level": level}}}).to_string();
        lamp.publish("$aws/things/lamp/shadow/update", told.as_bytes(), Qos::AtLeastOnce).await?;
        lamp.disconnect().await;
        anyhow::Ok(())
    })
}

fn reported(processes: &Processes) -> anyhow::Result<Value> {
    Ok(processes.rest("GET", "/devices/lamp/shadow", None)?["state"]["reported"]["level"].clone())
}

/// Numbers that time series keep of a device, read by the gateway; sorted, for of one millisecond any may come first.
fn kept(processes: &Processes, device: &str) -> anyhow::Result<Vec<u64>> {
    let answer = processes.rest("GET", &format!("/devices/{device}/telemetry?field=n&from=-1h&limit=1000"), None)?;
    let items = answer["items"].as_array().context("items")?;
    let mut numbers: Vec<u64> = items.iter().filter_map(|item| item["value"].as_f64()).map(|n| n as u64).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// How many numbers each device has that SQL finds in the database.
fn counted(processes: &Processes) -> anyhow::Result<BTreeMap<String, u64>> {
    let sql = "SELECT device, count(double) AS n FROM points WHERE field = 'n' GROUP BY device";
    let answer = processes.rest("POST", "/query", Some(&json!({"sql": sql})))?;
    let rows = answer["rows"].as_array().context("rows")?.iter();
    Ok(rows.filter_map(|row| Some((row["device"].as_str()?.to_owned(), row["n"].as_u64()?))).collect())
}

/// Connects as the device with its token to each ingress; returns when both have closed the connection.
fn closed_by_both(ports: [u16; 2], token: &str, revoke: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for port in ports {
            let mut options = options(port, Version::V5, "revoked")?;
            options.mqtt.user_name = Some("revoked".to_owned());
            options.mqtt.password = Some(token.as_bytes().to_vec());
            options.reconnect_for = Duration::ZERO;
            clients.push(Client::connect(options).await?);
        }
        tokio::task::block_in_place(revoke)?;
        for client in clients {
            client.closed().await;
        }
        anyhow::Ok(())
    })
}

/// Who makes a device is told where it connects: at the ports that the processes have here.
fn devices_are_told_the_way(processes: &Processes) -> anyhow::Result<()> {
    let created: Value = serde_json::from_str(&processes.cli(&["device", "create", "told", "-o", "json"])?)?;
    let expected = json!({
        "mqtt": format!("127.0.0.1:{}", processes.port(1883)),
        "mqtts": format!("127.0.0.1:{}", processes.port(8883)),
        "http": format!("127.0.0.1:{}", processes.port(8081)),
    });
    ensure!(created["endpoints"] == expected, "where a device connects: {created}");
    Ok(())
}

/// Runs the whole layout; each test of this file is one story on it.
struct Layout {
    backends: Backends,
    processes: Processes,
    collector: Collector,
}

impl Layout {
    /// `None` where Kafka or Cassandra cannot be had. Starts no process yet.
    fn prepare() -> anyhow::Result<Option<Self>> {
        let Some(backends) = Backends::start()? else { return Ok(None) };
        let collector = Collector::start(Manner::Takes)?;
        let mut environment = backends.environment();
        environment.push(("DROVER_OTLP__ENDPOINT".to_owned(), format!("http://{}", collector.address)));
        Ok(Some(Self { backends, processes: Processes::prepare(environment)?, collector }))
    }

    fn ports(&self) -> [u16; 2] {
        [self.processes.port(1883), self.processes.port(1884)]
    }

    /// In the least helpful order: those that need others first, and log and database are away.
    fn start_without_anything(&mut self) -> anyhow::Result<()> {
        self.backends.kafka.kill()?;
        self.backends.cassandra.kill();
        for name in Processes::names() {
            self.processes.start(name)?;
        }
        self.processes
            .until("waiting for the log", |all| Ok(Processes::names().all(|name| waits(all, name, "log"))))?;
        self.backends.kafka.restart()?;
        self.processes.until("waiting for the database", |all| {
            Ok(waits(all, "registry", "registry")
                && waits(all, "storage", "storage")
                && waits(all, "gateway", "registry"))
        })?;
        self.backends.cassandra.restart();
        self.processes.until_ready()
    }

    /// Applies the rule of the fleet; returns when it works on every partition.
    fn apply_fleet_rule(&mut self) -> anyhow::Result<()> {
        marks::apply_fleet_rule(&mut self.processes, &self.backends.kafka.brokers())
    }

    /// Waits until whatever was published before has gone through the rules.
    fn through(&mut self, mark: &str) -> anyhow::Result<()> {
        marks::through(&mut self.processes, &self.backends.kafka.brokers(), mark, |_| {})
    }

    /// The steps of the first path, with the clients of others that are here; after [`Self::apply_fleet_rule`].
    fn take_the_first_path(&mut self) -> anyhow::Result<()> {
        if let Some(python) = python() {
            tls_device_to_kcat(self, &python)?;
        }
        if let Some(mosquitto_pub) = tool("mosquitto_pub") {
            publish_a_thousand(self, &mosquitto_pub)?;
            self.through("mark-lines")?;
            exactly_five_hundred(self)?;
        }
        Ok(())
    }

    /// Waits until exactly these messages have come out of the rule.
    fn until_out(&mut self, devices: &[(&str, u64)]) -> anyhow::Result<()> {
        let (all, brokers) = (expected(devices), self.backends.kafka.brokers());
        self.processes.until("out of the rules", |_| {
            let rows = outputs(&brokers)?.into_iter().filter(|(device, _)| !is_mark(device));
            Ok(rows.eq(all.iter().cloned()))
        })
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.processes.stop()?;
        let mut lines = 0;
        for name in Processes::names() {
            let log = std::fs::read_to_string(self.processes.log(name))?;
            let told = waits_told(&log);
            assert!(told.values().all(|times| *times <= WAITS_MAX), "{name} does not spin: {told:?}\n{log}");
            lines += told.values().sum::<usize>();
        }
        assert!(lines > 0, "what was away was waited for");
        Ok(())
    }
}

impl Site for Layout {
    fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.processes.cli(arguments)
    }

    fn port(&self, contract: u16) -> u16 {
        self.processes.port(contract)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.processes.file(name)
    }

    fn brokers(&self) -> String {
        self.backends.kafka.brokers()
    }

    fn until(&mut self, what: &str, mut state: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        self.processes.until(what, |_| state())
    }
}

#[test]
fn the_platform_works_in_separate_processes_and_survives_the_loss_of_each() -> anyhow::Result<()> {
    let Some(mut layout) = Layout::prepare()? else { return Ok(()) };
    layout.start_without_anything()?;
    layout.apply_fleet_rule()?;
    layout.take_the_first_path()?;
    let [first, second] = layout.ports();
    publish_next(first, "a", 0)?;
    publish_next(second, "b", 0)?;
    layout.until_out(&[("a", MESSAGES), ("b", MESSAGES)])?;

    // Live, by a process that has nothing but the log: what one device sent, and what a rule wrote in several transactions.
    let all: Vec<u64> = (0..MESSAGES).collect();
    let count = usize::try_from(MESSAGES)?;
    let (processes, from) = (&mut layout.processes, ["--from", "earliest"]);
    assert_eq!(streamed(processes, "filter=%23&device=a&from=earliest", "a", count)?, all, "by its device");
    assert_eq!(tailed(processes, &["fleet/b", from[0], from[1]], "b", count)?, all, "by its topic");
    for device in ["a", "b"] {
        assert_eq!(tailed(processes, &["--topic", "fleet", from[0], from[1]], device, count)?, all, "of the rule");
    }

    // One trace to the output, although the ingress and the rules are different processes.
    let (collector, brokers) = (&layout.collector, layout.backends.kafka.brokers());
    layout.processes.until("traced", |_| {
        let spans = collector.spans();
        let of = |name: &'static str| spans.iter().filter(move |span| span.name == name);
        let outputs = read_committed(&brokers, "fleet")?;
        let told: BTreeSet<String> = outputs.into_iter().filter_map(|output| output.traceparent).collect();
        Ok(of("rule")
            .filter(|rule| told.contains(&format!("00-{}-{}-01", hex(&rule.trace_id), hex(&rule.span_id))))
            .any(|rule| of("publish").any(|p| p.span_id == rule.parent_span_id && p.trace_id == rule.trace_id)))
    })?;

    // What devices sent is kept, and read by the gateway; what is wanted of a device reaches it by either ingress.
    layout.processes.until("kept", |all| Ok(kept(all, "a")? == (0..MESSAGES).collect::<Vec<_>>()))?;
    let all = BTreeMap::from([("a".to_owned(), MESSAGES), ("b".to_owned(), MESSAGES)]);
    layout.processes.until("answered in SQL", |processes| {
        let mut found = counted(processes)?;
        found.retain(|device, _| all.contains_key(device));
        Ok(found == all)
    })?;
    let registered = json!({"sql": "SELECT count(*) AS n FROM devices"});
    let registered = layout.processes.rest("POST", "/query", Some(&registered))?;
    assert!(registered["rows"][0]["n"].is_u64(), "storage asks the registry: {registered}");
    for (level, port) in [(1, first), (2, second)] {
        shadow_round_trip(&layout.processes, port, level)?;
        layout.processes.until("reported", |all| Ok(reported(all)? == level))?;
    }

    // A revocation is confirmed by both ingress processes.
    let processes = &layout.processes;
    let created: Value = serde_json::from_str(&processes.cli(&["device", "create", "revoked", "-o", "json"])?)?;
    let token = created["token"].as_str().context("a token")?.to_owned();
    closed_by_both([first, second], &token, || {
        processes.cli(&["device", "delete", "revoked"])?;
        Ok(())
    })?;

    // Half of everything is gone; the other half goes on.
    layout.processes.kill("ingress-0")?;
    layout.processes.kill("rules-0")?;
    publish_next(second, "a", MESSAGES)?;
    layout.until_out(&[("a", 2 * MESSAGES), ("b", MESSAGES)])?;
    layout.processes.start("ingress-0")?;
    layout.processes.start("rules-0")?;
    layout.processes.until_ready()?;

    // The registry away: who is connected is served on, and `/readyz` says what is missed.
    layout.processes.kill("registry")?;
    layout.processes.until("telling of the registry", |all| Ok(waits(all, "ingress-0", "registry")))?;
    layout.processes.start("registry")?;
    layout.processes.until_ready()?;
    publish_next(first, "b", MESSAGES)?;
    layout.until_out(&[("a", 2 * MESSAGES), ("b", 2 * MESSAGES)])?;
    layout.stop()
}

#[test]
fn log_and_database_may_go_and_come_back_and_the_stores_of_single_processes_too() -> anyhow::Result<()> {
    let Some(mut layout) = Layout::prepare()? else { return Ok(()) };
    for name in Processes::names() {
        layout.processes.start(name)?;
    }
    layout.processes.until_ready()?;
    layout.apply_fleet_rule()?;
    let [first, second] = layout.ports();
    shadow_round_trip(&layout.processes, first, 1)?;
    layout.processes.until("reported", |all| Ok(reported(all)? == 1))?;

    // The database: those that keep something there say so and wait; who is connected goes on, through the rules as well.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let steady = runtime.block_on(Client::connect(options(first, Version::V311, "steady")?))?;
    layout.backends.cassandra.kill();
    let payload = json!({"device": "steady", "n": 0}).to_string();
    runtime.block_on(steady.publish("fleet/steady", payload.as_bytes(), Qos::AtLeastOnce))?;
    layout.until_out(&[("steady", 1)])?;
    layout.processes.until("telling of the database", |all| {
        let told = KEEPERS.iter().all(|name| waits(all, name, "database"));
        Ok(told && waits(all, "registry", "registry") && waits(all, "storage", "storage"))
    })?;
    layout.backends.cassandra.restart();
    layout.processes.until_ready()?;

    // The log, by its death: nobody is ready without it.
    layout.backends.kafka.kill()?;
    layout.processes.until("telling of the log", |all| Ok(Processes::names().all(|name| waits(all, name, "log"))))?;
    layout.backends.kafka.restart()?;
    layout.processes.until_ready()?;

    publish_next(first, "a", 0)?;
    publish_next(second, "b", 0)?;
    layout.until_out(&[("a", MESSAGES), ("b", MESSAGES), ("steady", 1)])?;
    runtime.block_on(steady.disconnect());
    layout.processes.until("kept", |all| Ok(kept(all, "b")? == (0..MESSAGES).collect::<Vec<_>>()))?;

    // Shadows and time series are where they were after their processes died.
    for name in ["shadow-0", "storage"] {
        layout.processes.kill(name)?;
        layout.processes.start(name)?;
    }
    layout.processes.until_ready()?;
    assert_eq!(reported(&layout.processes)?, 1);
    assert_eq!(kept(&layout.processes, "b")?.len() as u64, MESSAGES);
    layout.stop()?;

    // Once more on the same data, as the README has it: one command starts them all, and Ctrl-C stops them.
    let [_, line] = readme::separate_processes()?;
    let mut run = LocalRun::start(&layout.processes, &line)?;
    layout.processes.until("ready by deploy/local/run", |all| run.is_ready(all))?;
    assert_eq!(layout.processes.complaints("registry")?, Vec::<Value>::new(), "the doctor finds nothing to do");
    devices_are_told_the_way(&layout.processes)?;
    publish_next(first, "a", MESSAGES)?;
    layout.until_out(&[("a", 2 * MESSAGES), ("b", MESSAGES), ("steady", 1)])?;
    run.stop(&layout.processes)
}
