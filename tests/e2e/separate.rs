//! Every service a process of its own over a real Kafka: in any order, through the loss of each, until all stop well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use drover_backends::kafka::Kafka;
use drover_load::client::{Client, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_tests::{Collector, Manner, Processes, publish, read_committed};
use serde_json::{Value, json};

/// Messages of each part of the test.
const MESSAGES: u64 = 50;

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

/// Connects as the device with its token to each ingress; returns when both have closed the connection.
fn closed_by_both(ports: [u16; 2], token: &str, revoke: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for port in ports {
            let target = Target::new(&format!("mqtt://127.0.0.1:{port}"), &TlsFiles::default())?;
            let mut mqtt = ClientOptions::new(Version::V5, "revoked");
            mqtt.user_name = Some("revoked".to_owned());
            mqtt.password = Some(token.as_bytes().to_vec());
            let mut options = Options::new(target, mqtt);
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

#[test]
fn the_platform_works_in_separate_processes_and_survives_the_loss_of_each() -> anyhow::Result<()> {
    let Some(kafka) = Kafka::start()? else { return Ok(()) };
    let collector = Collector::start(Manner::Takes)?;
    let brokers = kafka.brokers();
    let endpoint = format!("http://{}", collector.address);
    let environment = [("DROVER_BUS__KAFKA__BROKERS", brokers.as_str()), ("DROVER_OTLP__ENDPOINT", endpoint.as_str())];
    let mut processes = Processes::prepare(&environment)?;

    // In the least helpful order: those that need others first, and the log is away.
    kafka.kill()?;
    for name in Processes::names() {
        processes.start(name)?;
    }
    processes.until("waiting for the log and for the registry", |processes| {
        let waits =
            |name: &str, what: &str| processes.readiness(name).is_ok_and(|told| told["waiting"][what].is_string());
        Ok(Processes::names().all(|name| waits(name, "log")))
    })?;
    kafka.restart()?;
    processes.until_ready()?;

    let rule = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "fleet"},
        "spec": {"sql": "SELECT device, n FROM 'fleet/+'", "actions": [{"kafka": {"topic": "fleet"}}]},
    });
    let file = processes.file("rule.json");
    std::fs::write(&file, rule.to_string())?;
    processes.cli(&["rule", "apply", "-f", &file.display().to_string()])?;
    let [first, second] = [processes.port(1883), processes.port(1884)];
    let probes = AtomicU64::new(0);
    processes.until("through the rule", |_| {
        // Other numbers each time: the same again would be taken for a repeat.
        publish_next(first, "probe", probes.fetch_add(MESSAGES, Ordering::Relaxed))?;
        Ok(read_committed(&brokers, "fleet").is_ok_and(|rows| !rows.is_empty()))
    })?;
    let ours = |rows: Vec<(String, u64)>| rows.into_iter().filter(|(device, _)| device != "probe").collect::<Vec<_>>();
    publish_next(first, "a", 0)?;
    publish_next(second, "b", 0)?;
    let all = expected(&[("a", MESSAGES), ("b", MESSAGES)]);
    processes.until("out of the rules", |_| Ok(ours(outputs(&brokers)?) == all))?;

    // One trace, although the ingress and the rules are different processes.
    processes.until("traced", |_| {
        let spans = collector.spans();
        let of = |name: &'static str| spans.iter().filter(move |span| span.name == name);
        Ok(of("rule")
            .any(|rule| of("publish").any(|p| p.span_id == rule.parent_span_id && p.trace_id == rule.trace_id)))
    })?;

    // A revocation is confirmed by both ingress processes.
    let created: Value = serde_json::from_str(&processes.cli(&["device", "create", "revoked", "-o", "json"])?)?;
    let token = created["token"].as_str().context("a token")?.to_owned();
    closed_by_both([first, second], &token, || {
        processes.cli(&["device", "delete", "revoked"])?;
        Ok(())
    })?;

    // Half of everything is gone; the other half goes on.
    processes.kill("ingress-0")?;
    processes.kill("rules-0")?;
    publish_next(second, "a", MESSAGES)?;
    let all = expected(&[("a", 2 * MESSAGES), ("b", MESSAGES)]);
    processes.until("out of the rules that are left", |_| Ok(ours(outputs(&brokers)?) == all))?;
    processes.start("ingress-0")?;
    processes.start("rules-0")?;
    processes.until_ready()?;

    // The registry away: who is connected is served on, and `/readyz` says what is missed.
    processes.kill("registry")?;
    processes.until("telling of the registry", |processes| {
        Ok(processes.readiness("ingress-0")?["waiting"]["registry"].is_string())
    })?;
    processes.start("registry")?;
    processes.until_ready()?;
    publish_next(first, "b", MESSAGES)?;
    let all = expected(&[("a", 2 * MESSAGES), ("b", 2 * MESSAGES)]);
    processes.until("out of the rules once more", |_| Ok(ours(outputs(&brokers)?) == all))?;

    for (name, status) in processes.stop()? {
        assert!(status.success(), "{name} ended with {status}");
    }
    let log = std::fs::read_to_string(processes.log("ingress-0"))?;
    assert!(log.matches(r#"name="log" why="#).count() <= 20, "no spin: {log}");
    Ok(())
}
