//! `kill -9` of the operator, again and again, while five hundred objects are made and deleted: all becomes as declared, and
//! nothing is left over on either side.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::{Kubernetes, OperatorProcess, Patience, Platform, pause};
use serde_json::{Value, json};

/// Objects of each kind: devices with a Secret, and rules.
const DEVICES: usize = 450;
const RULES: usize = 50;
/// Kills while they are made, and as many while they are deleted.
const KILLS: usize = 25;
/// Longest life of an operator that is killed, in looks: long enough for some dozens of objects.
const LOOKS_MAX: u64 = 40;
/// Longest wait for anything; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Numbers that look random, and are the same for the same seed.
struct Dice(u64);

impl Dice {
    /// Below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn objects() -> Vec<Value> {
    let device = |number: usize| {
        let credential = json!({"token": {"secretName": format!("d-{number:03}")}});
        json!({
            "apiVersion": "devices.drover.dev/v1alpha1", "kind": "Device",
            "metadata": {"name": format!("d-{number:03}")}, "spec": {"credentials": [credential]},
        })
    };
    let rule = |number: usize| {
        let sql = format!("SELECT * FROM 'a/{number}'");
        json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": format!("r-{number:02}")},
            "spec": {"sql": sql, "actions": [{"republish": {"topic": "b"}}]},
        })
    };
    (0..DEVICES).map(device).chain((0..RULES).map(rule)).collect()
}

/// Kills the operator at a moment of its work, and starts it again, many times.
fn harass(cluster: &Kubernetes, operator: &mut OperatorProcess, dice: &mut Dice) -> anyhow::Result<()> {
    for _ in 0..KILLS {
        // The Lease of the one before would hold for fifteen seconds: whoever follows need not wait so often here.
        cluster.kubectl(&["-n", "home", "delete", "lease", "killed", "--ignore-not-found"])?;
        operator.lead()?;
        for _ in 0..dice.below(LOOKS_MAX) {
            pause();
        }
        operator.kill()?;
        operator.resume()?;
    }
    cluster.kubectl(&["-n", "home", "delete", "lease", "killed", "--ignore-not-found"])?;
    operator.lead()
}

/// Waits until what `read` answers is so; what it answered last, otherwise.
fn until(
    operator: &OperatorProcess,
    what: &str,
    mut left: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let waiting = Patience::new(PATIENCE);
    loop {
        let left = left()?;
        if left == 0 {
            return Ok(());
        }
        let log = operator.log();
        let last: Vec<&str> = log.lines().rev().take(20).collect();
        ensure!(
            waiting.lasts(),
            "{left} {what} after {PATIENCE:?}; the operator's last words, latest first: {last:#?}"
        );
        (0..25).for_each(|_| pause());
    }
}

/// How many of all objects are not Ready.
fn not_ready(cluster: &Kubernetes) -> anyhow::Result<usize> {
    let ready = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let ready = cluster.kubectl(&["-n", "home", "get", "devices,rules", "-o", ready])?;
    Ok((DEVICES + RULES).saturating_sub(ready.lines().filter(|status| *status == "True").count()))
}

/// Items of a list of the gateway for the tenant `home`.
fn registered(platform: &Platform, what: &[&str]) -> anyhow::Result<Vec<Value>> {
    let listed = platform.cli(&[what, &["-n", "home", "-o", "json"]].concat())?;
    let mut listed: Value = serde_json::from_str(&listed)?;
    serde_json::from_value(listed["items"].take()).with_context(|| format!("items of {what:?}"))
}

/// Each device has one credential, and its Secret is of that one.
fn check_credentials(cluster: &Kubernetes, platform: &Platform) -> anyhow::Result<()> {
    let secrets = cluster.get("home", &["secrets", "-l", "app.kubernetes.io/managed-by=drover-operator"])?;
    let secrets = secrets["items"].as_array().context("Secrets")?;
    ensure!(secrets.len() == DEVICES, "{} Secrets of {DEVICES} devices", secrets.len());
    for secret in secrets {
        let name = secret["metadata"]["name"].as_str().context("a name")?;
        let held = &secret["metadata"]["annotations"]["drover.dev/credential"];
        let known = platform.rest("GET", &format!("/tenants/home/devices/{name}/credentials"), None)?;
        let known: Vec<&Value> = known["items"].as_array().into_iter().flatten().map(|one| &one["id"]).collect();
        ensure!(known == [held], "{name} has the credentials {known:?}, and its Secret holds {held}");
    }
    Ok(())
}

#[test]
fn an_operator_that_is_killed_fifty_times_leaves_nothing_undone_and_nothing_behind() -> anyhow::Result<()> {
    let Some(cluster) = Kubernetes::start_own()? else { return Ok(()) };
    cluster.kubectl(&["apply", "--server-side", "-f", "deploy/crds/drover.yaml"])?;
    for crd in ["crd/devices.devices.drover.dev", "crd/rules.drover.dev"] {
        cluster.wait_for("default", "condition=Established", &[crd])?;
    }
    cluster.kubectl(&["create", "namespace", "home"])?;
    let platform = Platform::start()?;
    let seed = u64::from(std::process::id()) * 2_654_435_761 + 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    // Few at a time, so that there is work left for each of the lives.
    let settings = ["operator.concurrency=2", "operator.lease.namespace=home", "operator.lease.name=killed"];
    let mut operator = OperatorProcess::start(&platform, &cluster.kubeconfig()?, &settings)?;
    cluster.create("home", &objects())?;
    harass(&cluster, &mut operator, &mut dice)?;
    until(&operator, "objects are not Ready", || not_ready(&cluster))?;
    check_credentials(&cluster, &platform)?;
    let names: BTreeSet<String> = registered(&platform, &["device", "list", "--all"])?
        .iter()
        .filter_map(|device| device["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    ensure!(names.len() == DEVICES, "the registry has {} devices of {DEVICES}", names.len());

    cluster.kubectl(&["-n", "home", "delete", "devices,rules", "--all", "--wait=false"])?;
    harass(&cluster, &mut operator, &mut dice)?;
    let count = |what: &str| -> anyhow::Result<usize> {
        Ok(cluster.get("home", &[what])?["items"].as_array().map_or(0, Vec::len))
    };
    until(&operator, "objects are still there", || Ok(count("devices")? + count("rules")?))?;
    // Kubernetes takes the Secrets away after their Devices.
    until(&operator, "Secrets are still there", || count("secrets"))?;
    let left = registered(&platform, &["device", "list", "--all"])?;
    ensure!(left.is_empty(), "{} devices are left in the registry, the first is {}", left.len(), left[0]);
    let left = registered(&platform, &["rule", "list"])?;
    ensure!(left.is_empty(), "{} rules are left in the registry, the first is {}", left.len(), left[0]);
    Ok(())
}
