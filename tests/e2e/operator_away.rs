//! What the operator cannot have: a registry that is away, and objects that only a newer one can read. It says so, nothing spins,
//! and no namespace hangs; nor does one where no operator runs any more.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::{Kubernetes, OperatorProcess, Patience, Platform, executable, lines_of, pause};
use serde_json::{Value, json};

/// How long what is being deleted waits here.
const PATIENT: &str = "operator.deletion_patience=5s";
/// Failed turns of one object at most meanwhile: pauses double from one second on.
const TURNS_MAX: f64 = 12.0;
/// Lines of log at most while the API server restarts: some for each watch and each look at the Lease, over half a minute.
const LINES_MAX: usize = 500;

/// An API server with the CRDs and the namespaces, a platform, and an operator that leads.
fn stage(namespaces: &[&str]) -> anyhow::Result<Option<(Kubernetes, Platform, OperatorProcess)>> {
    let Some(cluster) = Kubernetes::start_own()? else { return Ok(None) };
    cluster.kubectl(&["apply", "--server-side", "-f", "deploy/crds/drover.yaml"])?;
    cluster.wait_for("default", "condition=Established", &["crd", "--all"])?;
    for namespace in namespaces {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    let platform = Platform::start()?;
    let settings = ["operator.resync=2s", PATIENT];
    let mut operator = OperatorProcess::start(&platform, &cluster.kubeconfig()?, &settings)?;
    operator.lead()?;
    Ok(Some((cluster, platform, operator)))
}

fn device(serial: &str) -> Value {
    json!({
        "apiVersion": "devices.drover.dev/v1alpha1", "kind": "Device", "metadata": {"name": "d"},
        "spec": {"attributes": {"serial": serial}, "credentials": [{"token": {"secretName": "d"}}]},
    })
}

fn policy(name: &str, effect: &str) -> Value {
    let statement = json!({"effect": effect, "actions": ["publish"], "resources": ["a/#"]});
    json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Policy",
        "metadata": {"name": name}, "spec": {"statements": [statement]},
    })
}

/// The condition `Accepted` of an object.
fn accepted(cluster: &Kubernetes, what: &str) -> anyhow::Result<Value> {
    let found = cluster.get("home", &[what])?;
    let conditions = found["status"]["conditions"].as_array().context("conditions")?;
    conditions.iter().find(|one| one["type"] == "Accepted").cloned().with_context(|| format!("Accepted of {found}"))
}

#[test]
fn a_registry_that_is_away_is_told_and_waited_for_and_hangs_no_namespace() -> anyhow::Result<()> {
    let Some((cluster, mut platform, mut operator)) = stage(&["home", "gone"])? else { return Ok(()) };
    cluster.apply("home", &[device("1")])?;
    cluster.apply("gone", &[device("1"), policy("p", "allow")])?;
    cluster.wait_for("home", "condition=Ready", &["device/d"])?;
    cluster.wait_for("gone", "condition=Ready", &["device/d", "policy/p"])?;

    platform.kill()?;
    let failed = "drover_operator_reconciles_total{kind=\"Device\",outcome=\"failed\"";
    let before = operator.metric(failed)?;
    cluster.apply("home", &[device("2")])?;
    cluster.wait_for("home", "condition=Accepted=Unknown", &["device/d"])?;
    let told = accepted(&cluster, "device/d")?;
    ensure!(told["reason"] == "Unavailable" && told["observedGeneration"] == 2, "{told}");
    let events = cluster.kubectl(&["-n", "home", "get", "events"])?;
    ensure!(events.contains("Unavailable") && events.contains("it is tried again"), "{events}");

    // What is left in the registry is counted, and the namespace goes.
    cluster.kubectl(&["delete", "namespace", "gone", "--timeout=90s"])?;
    let left = operator.metric("drover_operator_left_behind_total")?;
    ensure!(left == 2.0, "{left} objects were left behind, of 2");
    let turns = operator.metric(failed)? - before;
    ensure!(turns <= 2.0 * TURNS_MAX, "two devices were tried {turns} times while the registry was away");

    platform.resume()?;
    cluster.wait_for("home", "condition=Ready", &["device/d"])?;
    let now: Value = serde_json::from_str(&platform.cli(&["device", "get", "d", "-o", "json", "-n", "home"])?)?;
    ensure!(now["spec"]["attributes"]["serial"] == "2", "{now}");
    operator.until("ready again", |operator| Ok(operator.metric("drover_operator_leading")? > 0.0))
}

#[test]
fn an_api_server_that_restarts_is_waited_for_and_nothing_spins() -> anyhow::Result<()> {
    let Some((cluster, platform, mut operator)) = stage(&["home"])? else { return Ok(()) };
    cluster.apply("home", &[device("1")])?;
    cluster.wait_for("home", "condition=Ready", &["device/d"])?;
    let before = operator.log().lines().count();
    // For longer than a Lease may go without being renewed.
    cluster.without_api_server(|| {
        operator.until("a candidate again", |operator| Ok(operator.metric("drover_operator_leading")? == 0.0))
    })?;
    operator.lead()?;
    let said = operator.log().lines().count() - before;
    ensure!(said <= LINES_MAX, "{said} lines about an API server that was away:\n{}", operator.log());

    cluster.apply("home", &[device("2")])?;
    operator.until("done with what came after", |_| {
        let now = platform.cli(&["device", "get", "d", "-o", "json", "-n", "home"])?;
        Ok(serde_json::from_str::<Value>(&now)?["spec"]["attributes"]["serial"] == "2")
    })
}

#[test]
fn an_object_of_a_newer_crd_is_told_so_and_stops_no_other() -> anyhow::Result<()> {
    let Some((cluster, platform, mut operator)) = stage(&["home"])? else { return Ok(()) };
    // As after a rollback: the CRD knows an effect that this operator does not.
    let effect =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/statements/items/properties/effect/enum/-";
    let newer = json!([{"op": "add", "path": effect, "value": "audit"}]).to_string();
    cluster.kubectl(&["patch", "crd", "policies.drover.dev", "--type=json", "-p", &newer])?;
    let waiting = Patience::new(Duration::from_secs(60));
    // The API server takes a moment to serve what it has.
    while let Err(refused) = cluster.apply("home", &[policy("future", "audit")]) {
        ensure!(waiting.lasts(), "{refused:#}");
        (0..10).for_each(|_| pause());
    }
    cluster.wait_for("home", "condition=Accepted=False", &["policy/future"])?;
    let told = accepted(&cluster, "policy/future")?;
    let message = told["message"].as_str().context("a message")?;
    ensure!(told["reason"] == "Unreadable" && message.contains("audit"), "{told}");
    let table = cluster.kubectl(&["-n", "home", "get", "policies"])?;
    ensure!(table.contains("REASON") && table.contains("Unreadable"), "{table}");

    // One that begins to lead lists them all.
    operator.kill()?;
    operator.resume()?;
    cluster.kubectl(&["-n", "default", "delete", "lease", "drover-operator", "--ignore-not-found"])?;
    operator.lead()?;
    cluster.apply("home", &[policy("plain", "allow")])?;
    cluster.wait_for("home", "condition=Ready", &["policy/plain"])?;
    cluster.kubectl(&["delete", "namespace", "home", "--timeout=90s"])?;
    ensure!(!platform.cli(&["policy", "list", "-n", "home"])?.contains("plain"), "left in the registry");
    Ok(())
}

#[test]
fn where_no_operator_runs_any_more_a_command_lets_the_objects_of_a_namespace_go() -> anyhow::Result<()> {
    let Some((cluster, _platform, mut operator)) = stage(&["home", "kept"])? else { return Ok(()) };
    cluster.apply("home", &[device("1"), policy("p", "allow")])?;
    cluster.apply("kept", &[policy("p", "allow")])?;
    cluster.wait_for("home", "condition=Ready", &["device/d", "policy/p"])?;
    cluster.wait_for("kept", "condition=Ready", &["policy/p"])?;

    operator.kill()?;
    cluster.kubectl(&["delete", "namespace", "home", "--wait=false"])?;
    let mut command = Command::new(executable()?);
    command.args(["crd", "--remove-finalizers", "--namespace", "home"]).envs(cluster.environment());
    let said = lines_of(&mut command, b"")?;
    ensure!(said == ["finalizers removed: 2"], "{said:?}");
    cluster.kubectl(&["wait", "--for=delete", "namespace/home", "--timeout=90s"])?;
    let kept = cluster.get("kept", &["policy/p"])?;
    ensure!(kept["metadata"]["finalizers"][0] == "drover.dev/registry", "{kept}");
    Ok(())
}
