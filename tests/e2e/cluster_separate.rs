//! Every service by itself on a real node, under load: pods are killed one by one, and all are replaced by an upgrade. Whatever
//! was acknowledged comes out of the rule, once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::{Held, Patience, SeparateCluster, generator, pause, read_committed, tool};
use serde_json::Value;
use tempfile::TempDir;

/// What load is, but for its numbers.
const SCENARIO: &str = include_str!("cluster-load.toml");
/// Workloads of which a pod is killed, and the pod of those that have names.
const KILLED: [(&str, &str); 7] = [
    ("statefulset/drover-ingress", "drover-ingress-0"),
    ("statefulset/drover-registry", "drover-registry-0"),
    ("statefulset/drover-rules", "drover-rules-1"),
    ("statefulset/drover-shadow", "drover-shadow-0"),
    ("statefulset/drover-storage", "drover-storage-1"),
    ("deployment/drover-gateway", ""),
    ("deployment/drover-operator", ""),
];
/// Devices that are connected during the upgrade, and how often each sends: 1,000 messages a second.
const DEVICES: usize = 2_000;
const EVERY: &str = "2s";
/// Connections that a node closes a second when it stops (`tests/e2e/cluster-ha.yaml`).
const CLOSES: f64 = 100.0;
/// Over how many seconds reconnects are counted together: devices wait for up to two before they come back.
const WINDOW: usize = 5;
/// Share by which counts of a window may be over, for the tokens that a node has at first.
const SLACK: f64 = 1.25;
/// Longest wait for anything; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// `drover-load` in the network of the node.
struct Load {
    held: Held,
    directory: TempDir,
}

impl Load {
    /// Starts so many devices for so many seconds.
    fn start(cluster: &SeparateCluster, devices: usize, every: &str, seconds: u32) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let scenario = SCENARIO
            .replace("DEVICES", &devices.to_string())
            .replace("EVERY", every)
            .replace("SECONDS", &seconds.to_string())
            .replace("BROKERS", cluster.brokers());
        let file = directory.path().join("load.toml");
        std::fs::write(&file, scenario)?;
        let service = cluster.node.cluster.get("default", &["service", "drover"])?;
        let target = format!("{}:1883", service["spec"]["clusterIP"].as_str().context("an address")?);
        let mut command = cluster.node.enter(&generator()?)?;
        command.arg("run").arg(&file).args(["--target", &target, "--quiet", "--out"]).arg(directory.path());
        let held = Held::start(&command, directory.path().join("load.log"))?;
        Ok(Self { held, directory })
    }

    /// Fails where it has ended: what was done meanwhile was not done under load.
    fn goes_on(&mut self) -> anyhow::Result<()> {
        let ended = self.held.ended()?;
        ensure!(ended.is_none(), "the load has ended too early: {ended:?}: {}", self.held.said());
        Ok(())
    }

    /// Waits for its end; its report, if every threshold was met.
    fn finish(mut self) -> anyhow::Result<Value> {
        let status = loop {
            match self.held.ended()? {
                Some(status) => break status,
                None => pause(),
            };
        };
        let said = self.held.said();
        ensure!(status.success(), "drover-load ended with {status}:\n{said}");
        println!("{said}");
        Ok(serde_json::from_str(&std::fs::read_to_string(self.directory.path().join("report.json"))?)?)
    }
}

/// The cluster, with the rule whose output is compared.
fn stage(settings: &[&str], metrics: bool) -> anyhow::Result<Option<SeparateCluster>> {
    if tool("kcat").is_none() {
        return Ok(None);
    }
    let Some(cluster) = SeparateCluster::start(settings, metrics)? else { return Ok(None) };
    cluster.node.cluster.kubectl(&["apply", "-f", "loadtest/scenarios/chaos-rule.yaml"])?;
    let ready = cluster.node.cluster.wait_for("default", "condition=Ready", &["rule/chaos"]);
    ready.with_context(|| cluster.node.explain())?;
    Ok(Some(cluster))
}

/// Waits until so many devices are connected to all ingress pods together.
fn connected(cluster: &SeparateCluster, load: &mut Load, devices: usize) -> anyhow::Result<()> {
    let waiting = Patience::new(PATIENCE);
    loop {
        let mut open = 0.0;
        for pod in ["drover-ingress-0", "drover-ingress-1"] {
            let path = format!("/api/v1/namespaces/default/pods/{pod}:9468/proxy/metrics");
            let metrics = cluster.node.cluster.kubectl(&["get", "--raw", &path])?;
            let line = metrics.lines().find_map(|line| line.strip_prefix("drover_ingress_connections "));
            open += line.context("drover_ingress_connections")?.parse::<f64>()?;
        }
        if open >= devices as f64 {
            return Ok(());
        }
        load.goes_on()?;
        ensure!(waiting.lasts(), "{open} of {devices} devices are connected after {:?}", waiting.elapsed());
        (0..25).for_each(|_| pause());
    }
}

#[test]
fn a_pod_of_every_service_is_killed_under_load_and_nothing_is_lost() -> anyhow::Result<()> {
    let Some(cluster) = stage(&[], false)? else { return Ok(()) };
    let kubernetes = &cluster.node.cluster;
    cluster.node.helm(&["test", "drover", "--timeout", "3m"]).with_context(|| cluster.node.explain())?;
    let mut load = Load::start(&cluster, 40, "200ms", 420)?;
    connected(&cluster, &mut load, 40)?;
    for (workload, pod) in KILLED {
        let component = workload.rsplit_once('-').context("a component")?.1;
        let label = format!("app.kubernetes.io/component={component}");
        let pods = kubernetes.kubectl(&["get", "pods", "-l", &label, "-o", "jsonpath={.items[*].metadata.name}"])?;
        let pod = if pod.is_empty() { pods.split(' ').next().context("a pod")? } else { pod };
        let uid = |name: &str| {
            kubernetes.kubectl(&["get", "pod", name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"])
        };
        let killed = uid(pod)?;
        kubernetes.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"])?;
        let waiting = Patience::new(PATIENCE);
        while uid(pod)? == killed {
            ensure!(waiting.lasts(), "{pod} is still there after {:?}", waiting.elapsed());
            pause();
        }
        let ready = kubernetes.kubectl(&["rollout", "status", workload, "--timeout=120s"]);
        ready.with_context(|| format!("{workload} after {pod} was killed\n{}", cluster.node.explain()))?;
        load.goes_on().with_context(|| format!("when {pod} had been replaced"))?;
    }
    load.finish().with_context(|| cluster.node.explain())?;
    Ok(())
}

#[test]
fn an_upgrade_replaces_every_pod_and_two_thousand_devices_lose_nothing() -> anyhow::Result<()> {
    let Some(cluster) = stage(&[], false)? else { return Ok(()) };
    let mut load = Load::start(&cluster, DEVICES, EVERY, 600)?;
    connected(&cluster, &mut load, DEVICES)?;
    let pods = || cluster.node.cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"]);
    let before = pods()?;
    let upgrade = [
        "upgrade",
        "drover",
        "helm/drover",
        "--reuse-values",
        "--set",
        "podAnnotations.revision=two",
        "--wait",
        "--timeout",
        "9m",
    ];
    cluster.node.helm(&upgrade).with_context(|| cluster.node.explain())?;
    load.goes_on().context("when the upgrade had ended")?;
    let after = pods()?;
    let stayed: Vec<&str> = before.split(' ').filter(|uid| after.contains(uid)).collect();
    ensure!(stayed.is_empty(), "{} pods were not replaced", stayed.len());
    connected(&cluster, &mut load, DEVICES)?;
    let report = load.finish().with_context(|| cluster.node.explain())?;
    reconnects_are_bounded(&report)?;
    presence_never_contradicts_itself(&cluster)
}

#[test]
fn an_autoscaler_adds_an_ingress_pod_under_load() -> anyhow::Result<()> {
    let settings = [
        "ingress.replicas=1",
        "ingress.nodes=2",
        "ingress.autoscaling.enabled=true",
        "ingress.autoscaling.cpu=60",
        "ingress.resources.requests.cpu=100m",
    ];
    let Some(cluster) = stage(&settings, true)? else { return Ok(()) };
    let kubernetes = &cluster.node.cluster;
    let scaler =
        |field: &str| kubernetes.kubectl(&["get", "hpa", "drover-ingress", "-o", &format!("jsonpath={{{field}}}")]);
    let explain = || format!("{}\n{}", scaler(".status").unwrap_or_default(), cluster.node.explain());
    let waiting = Patience::new(PATIENCE);
    while scaler(".status.currentMetrics[0].resource.current.averageUtilization")?.is_empty() {
        ensure!(waiting.lasts(), "the autoscaler knows no use of CPU after {:?}: {}", waiting.elapsed(), explain());
        (0..25).for_each(|_| pause());
    }
    ensure!(scaler(".status.currentReplicas")? == "1", "there is no load yet: {}", explain());
    let mut load = Load::start(&cluster, 400, "100ms", 300)?;
    let waiting = Patience::new(PATIENCE);
    let ready = ["get", "statefulset", "drover-ingress", "-o", "jsonpath={.status.readyReplicas}"];
    while kubernetes.kubectl(&ready)? != "2" {
        load.goes_on().with_context(explain)?;
        (0..25).for_each(|_| pause());
    }
    println!("the second pod was ready after {:?}", waiting.elapsed());
    load.finish().with_context(explain)?;
    Ok(())
}

/// Once all were connected, nobody came back faster than nodes may close connections.
fn reconnects_are_bounded(report: &Value) -> anyhow::Result<()> {
    let points = report["points"].as_array().context("points")?;
    let arrived = points.iter().position(|point| point["connected"].as_u64() >= Some(DEVICES as u64));
    let after = &points[arrived.context("all are connected")? + 1..];
    let connects: Vec<f64> = after.iter().filter_map(|point| point["counts"]["connects"].as_f64()).collect();
    let most = connects.windows(WINDOW).map(|window| window.iter().sum::<f64>() / WINDOW as f64).fold(0.0, f64::max);
    let all: f64 = connects.iter().sum();
    println!("{all} reconnects, at most {most:.1} a second over {WINDOW} s");
    ensure!(all >= DEVICES as f64, "each node was replaced, so every device has come back once at least");
    ensure!(most <= CLOSES * SLACK, "{most:.1} devices a second have come back, at most {CLOSES} are closed");
    Ok(())
}

/// Connected and disconnected of each device alternate, and all have gone in the end.
fn presence_never_contradicts_itself(cluster: &SeparateCluster) -> anyhow::Result<()> {
    let waiting = Patience::new(PATIENCE);
    loop {
        let mut last: BTreeMap<String, bool> = BTreeMap::new();
        for event in read_committed(&cluster.kafka.brokers(), "drover.events")? {
            let event: Value = serde_json::from_str(&event.value)?;
            let Some(client) = event["clientId"].as_str().filter(|client| client.starts_with("cluster-")) else {
                continue;
            };
            let connects = event["eventType"] == "connected";
            let former = last.insert(client.to_owned(), connects).unwrap_or(false);
            ensure!(former != connects, "{client} has contradicted itself: {event}");
        }
        let here = last.values().filter(|connected| **connected).count();
        if here == 0 && last.len() == DEVICES {
            return Ok(());
        }
        ensure!(waiting.lasts(), "of {} devices {here} are told to be here, and none is", last.len());
        (0..50).for_each(|_| pause());
    }
}
