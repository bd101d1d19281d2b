//! The README's chapter on Kubernetes, on a real node: the chart is installed, tests itself, and a device connects with what is
//! in its Secret; then it is upgraded, rolled back and uninstalled.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_backends::ports;
use drover_load::client::{Client, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_tests::{IMAGE, KubernetesNode, Patience, pause, read_committed};
use drover_types::Qos;
use serde_json::Value;

/// The embedded log's port: its listener tells clients the address that they came by, so it is the same here.
const KAFKA: u16 = 9092;
/// Longest wait for a delta, and for a row; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_chart_runs_tests_itself_and_a_device_connects_with_its_secret() -> anyhow::Result<()> {
    let Some(node) = KubernetesNode::start()? else { return Ok(()) };
    node.load_image(IMAGE)?;
    node.helm(&["install", "drover", "helm/drover", "--wait", "--timeout", "5m"]).with_context(|| node.explain())?;
    node.helm(&["test", "drover", "--timeout", "3m"]).with_context(|| node.explain())?;
    let cluster = &node.cluster;
    cluster.kubectl(&["apply", "-f", "deploy/examples"])?;
    let declared =
        ["device/thermo-1", "rule/hot-rooms", "policy/sensor", "function/decode-climate", "devicefleet/sensors"];
    for what in declared {
        cluster.wait_for("default", "condition=Ready", &[what]).with_context(|| node.explain())?;
    }

    // Its certificate proves who it is; what is wanted of it comes as a delta, and what it says goes through the rule.
    let port = ports::free()?;
    let _mqtts = node.forward("service/drover", port, 8883)?;
    let directory = tempfile::tempdir()?;
    let secret = cluster.get("default", &["secret", "thermo-1-tls"])?;
    let file = |key: &str| -> anyhow::Result<_> {
        let path = directory.path().join(key);
        std::fs::write(&path, BASE64_STANDARD.decode(secret["data"][key].as_str().context("a key")?)?)?;
        Ok(path)
    };
    let files = TlsFiles { authority: Some(file("ca.crt")?), identity: Some((file("tls.crt")?, file("tls.key")?)) };
    let target = Target::new(&format!("mqtts://127.0.0.1:{port}"), &files)?;
    let options = Options::new(target, ClientOptions::new(Version::V5, "thermo-1"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let delta = runtime.block_on(async {
        let mut device = Client::connect(options).await?;
        device.subscribe("$aws/things/thermo-1/shadow/update/delta", Qos::AtLeastOnce).await?;
        let reported = br#"{"state": {"reported": {"targetTemperature": 19}}}"#;
        device.publish("$aws/things/thermo-1/shadow/update", reported, Qos::AtLeastOnce).await?;
        let delta = tokio::time::timeout(PATIENCE, device.next_message()).await?.context("a delta")?;
        device.publish("sensors/kitchen/climate", br#"{"temperature": 31.5}"#, Qos::AtLeastOnce).await?;
        device.disconnect().await;
        anyhow::Ok(serde_json::from_slice::<Value>(&delta.payload)?)
    })?;
    ensure!(delta["state"]["targetTemperature"] == 21, "{delta}");

    let _kafka = node.forward("pod/drover-0", KAFKA, KAFKA)?;
    let (mut rows, waiting) = (Vec::new(), Patience::new(PATIENCE));
    while rows.is_empty() {
        ensure!(waiting.lasts(), "no row within {PATIENCE:?}");
        pause();
        rows = read_committed(&format!("127.0.0.1:{KAFKA}"), "home.hot-rooms")?;
    }
    let row: Value = serde_json::from_str(&rows[0].value)?;
    ensure!(row["temperature"] == 31.5 && row["device"] == "kitchen", "{row}");

    let table = cluster.kubectl(&["get", "devices,rules"])?;
    ensure!(table.contains("thermo-1") && table.contains("hot-rooms"), "{table}");
    crate::load_jobs::run(&node)?;
    upgrade_and_take_it_back(&node).with_context(|| node.explain())?;
    uninstall(&node)
}

/// An upgrade replaces the pod, a rollback brings the former one back, and devices are as they were.
fn upgrade_and_take_it_back(node: &KubernetesNode) -> anyhow::Result<()> {
    let annotation = ["get", "pod", "drover-0", "-o", "jsonpath={.metadata.annotations.revision}"];
    let waiting = ["--wait", "--timeout", "5m"];
    let upgrade = ["upgrade", "drover", "helm/drover", "--reuse-values", "--set", "podAnnotations.revision=two"];
    node.helm(&[&upgrade[..], &waiting].concat())?;
    ensure!(node.cluster.kubectl(&annotation)? == "two", "the upgrade has not replaced the pod");
    node.helm(&[&["rollback", "drover", "1"][..], &waiting].concat())?;
    ensure!(node.cluster.kubectl(&annotation)?.is_empty(), "the rollback has not replaced the pod");
    node.cluster.wait_for("default", "condition=Ready", &["device/thermo-1"])
}

/// Objects outlive the release, and can be deleted without it.
fn uninstall(node: &KubernetesNode) -> anyhow::Result<()> {
    let uninstalled = node.helm(&["uninstall", "drover", "--wait", "--timeout", "5m"]);
    uninstalled.with_context(|| node.explain())?;
    let device = node.cluster.get("default", &["device/thermo-1"])?;
    ensure!(device["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty), "{device}");
    node.cluster.kubectl(&["delete", "-f", "deploy/examples", "--timeout=60s"]).map(drop)
}
