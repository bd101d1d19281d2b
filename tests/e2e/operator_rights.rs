//! The operator with the rights that the chart gives it, and no others: every branch that reads or writes the API server works,
//! and nothing is refused. Needs `helm`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_backends::ports;
use drover_tests::{Kubernetes, OperatorProcess, Patience, Platform, executable, lines_of, pause, tool};
use serde_json::{Value, json};

use crate::chart::{NAMESPACE, rendered_with};

/// Kinds of the chart that say who may do what, and what the operator may only change and not make.
const RIGHTS: [&str; 7] = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "Secret",
    "ValidatingWebhookConfiguration",
];
/// How much of a refusal is shown: who may not do what.
const REFUSAL_CHARS: usize = 200;
/// Longest wait for anything; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API server with the chart's rights in it, and the namespaces of the release and of a tenant.
fn cluster(values: &str, settings: &[&str]) -> anyhow::Result<Option<Kubernetes>> {
    let (Some(helm), Some(cluster)) = (tool("helm"), Kubernetes::start_own()?) else { return Ok(None) };
    for namespace in [NAMESPACE, "home"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    let objects = rendered_with(&helm, &[values], settings)?;
    for object in objects.iter().filter(|object| RIGHTS.iter().any(|kind| object["kind"] == *kind)) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        cluster.apply(namespace, std::slice::from_ref(object))?;
    }
    Ok(Some(cluster))
}

/// `drover crd` with the rights of an account; what it says.
fn crd(kubeconfig: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig)?;
    lines_of(Command::new(executable()?).arg("crd").args(arguments).env("KUBECONFIG", file), b"")
}

/// The job after an uninstallation finds what the operator has left, with `arguments` in the namespace `home`.
fn let_go(cluster: &Kubernetes, arguments: &[&str]) -> anyhow::Result<()> {
    let statement = json!({"effect": "allow", "actions": ["connect"], "resources": ["${device}"]});
    let mut left = object("drover.dev/v1alpha1", "Policy", "left", json!({"statements": [statement]}));
    left["metadata"]["finalizers"] = json!(["drover.dev/registry"]);
    cluster.apply("home", &[left])?;
    let arguments = [&["--remove-finalizers"][..], arguments].concat();
    let said = crd(&cluster.account(NAMESPACE, "drover-finalizers")?, &arguments)?;
    ensure!(said == ["finalizers removed: 1"], "{said:?}");
    cluster.kubectl(&["-n", "home", "delete", "policy", "left", "--timeout=60s"]).map(drop)
}

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn device(name: &str, spec: Value) -> Value {
    object("devices.drover.dev/v1alpha1", "Device", name, spec)
}

fn table(rows: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": {"devices.csv": rows}})
}

/// One of each kind, a table, and one that is refused.
fn objects() -> Vec<Value> {
    let credentials = json!([{"token": {"secretName": "t"}}, {"certificate": {"secretName": "c", "duration": "48h"}}]);
    let of_drover = |kind, name, spec| object("drover.dev/v1alpha1", kind, name, spec);
    let statement = json!({"effect": "allow", "actions": ["connect"], "resources": ["${device}"]});
    let rule = json!({"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": "home.t"}}]});
    vec![
        table("name\na\n"),
        device("d", json!({"credentials": credentials})),
        device("by-hand", json!({})),
        of_drover("Policy", "p", json!({"statements": [statement]})),
        of_drover("Rule", "r", rule),
        of_drover("Function", "f", json!({"source": "function main(input) { return null; }"})),
        of_drover("DeviceFleet", "listed", json!({"source": {"csv": {"configMap": "table"}}})),
    ]
}

/// Waits until what `read` answers is so; tells what the API server has refused meanwhile.
fn until(operator: &OperatorProcess, what: &str, mut is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let waiting = Patience::new(PATIENCE);
    while !is()? {
        ensure!(waiting.lasts(), "not {what} within {PATIENCE:?}; refused: {:#?}", refused(operator));
        pause();
    }
    Ok(())
}

/// What the log tells of rights that are missing, each once.
fn refused(operator: &OperatorProcess) -> BTreeSet<String> {
    let log = operator.log();
    let forbidden = log.lines().filter_map(|line| line.split_once(" is forbidden: ").map(|(_, why)| why));
    forbidden.map(|why| why.chars().take(REFUSAL_CHARS).collect()).collect()
}

/// Has every branch of the operator run that reads or writes the API server.
fn exercise(cluster: &Kubernetes, platform: &Platform, operator: &OperatorProcess) -> anyhow::Result<()> {
    platform.cli(&["device", "create", "by-hand", "-n", "home"])?;
    cluster.apply("home", &objects())?;
    for what in ["device/d", "policy/p", "rule/r", "function/f", "devicefleet/listed"] {
        let ready = cluster.wait_for("home", "condition=Ready", &[what]);
        ready.with_context(|| format!("{what}; refused: {:#?}", refused(operator)))?;
    }
    let events = |reason: &str| -> anyhow::Result<bool> {
        let events = cluster.get("home", &["events"])?;
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(|event| event["reason"] == reason)))
    };
    until(operator, "told that by-hand is another's", || events("NotOurs"))?;
    platform.cli(&["device", "delete", "d", "-n", "home"])?;
    until(operator, "told of a device that was deleted elsewhere", || events("Drift"))?;

    // A Secret that has lost a part is written over; a table that has changed is read again.
    let holds = |name: &str| -> anyhow::Result<String> {
        cluster.kubectl(&["-n", "home", "get", "secret", name, "-o", "jsonpath={.data.token}"])
    };
    let former = holds("t")?;
    cluster.kubectl(&["-n", "home", "patch", "secret", "t", "--type=merge", "-p", r#"{"data": {"token": null}}"#])?;
    cluster.kubectl(&["-n", "home", "annotate", "device", "d", "look=again"])?;
    until(operator, "a Secret with another token", || holds("t").map(|token| !token.is_empty() && token != former))?;
    cluster.apply("home", &[table("name\na\nb\n")])?;
    cluster.wait_for("home", "jsonpath={.status.registered}=2", &["devicefleet/listed"])?;

    cluster.kubectl(&["-n", "home", "delete", "drover", "--all", "--timeout=60s"])?;
    Ok(())
}

/// Stops the operator: it has left its Lease to whoever comes, and was refused nothing.
fn stop(cluster: &Kubernetes, mut operator: OperatorProcess) -> anyhow::Result<()> {
    let held = cluster.get(NAMESPACE, &["lease", "drover-operator"])?;
    ensure!(held["spec"]["holderIdentity"].as_str().is_some_and(|me| me.starts_with("operator-0_")), "{held}");
    let status = operator.stop()?;
    ensure!(status.success(), "the operator ended with {status}");
    let free = cluster.get(NAMESPACE, &["lease", "drover-operator"])?;
    ensure!(free["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty), "the Lease is not left: {free}");
    let refused = refused(&operator);
    ensure!(refused.is_empty(), "the chart gives no right to: {refused:#?}");
    Ok(())
}

#[test]
fn the_rights_of_every_namespace_are_enough_with_the_webhook() -> anyhow::Result<()> {
    let Some(cluster) = cluster("helm/drover/values-ha.yaml", &[])? else { return Ok(()) };
    // As the job before an upgrade: one kind is new, the others are there.
    cluster.kubectl(&["apply", "--server-side", "-f", "deploy/crds/drover.yaml"])?;
    cluster.kubectl(&["delete", "crd", "functions.drover.dev", "--timeout=60s"])?;
    let applied = crd(&cluster.account(NAMESPACE, "drover-crds")?, &["--apply"])?;
    ensure!(applied.len() == 5, "{applied:?}");
    cluster.wait_for("default", "condition=Established", &["crd", "functions.drover.dev", "rules.drover.dev"])?;

    let platform = Platform::start()?;
    let settings = [
        "operator.resync=1s",
        "operator.lease.name=drover-operator",
        &format!("operator.webhook.listen=[\"127.0.0.1:{}\"]", ports::free()?),
        &format!("operator.webhook.host=drover-webhook.{NAMESPACE}.svc"),
        "operator.webhook.secret=drover-webhook",
        "operator.webhook.configuration=drover-drover-operator",
    ];
    let mut operator = OperatorProcess::start(&platform, &cluster.account(NAMESPACE, "drover-operator")?, &settings)?;
    operator.lead()?;
    until(&operator, "a webhook with a certificate", || {
        let told = cluster.get(NAMESPACE, &["validatingwebhookconfiguration", "drover-drover-operator"])?;
        Ok(told["webhooks"][0]["clientConfig"]["caBundle"].is_string())
    })?;
    // Nobody serves the Service here: what is applied is let in without an answer.
    exercise(&cluster, &platform, &operator)?;
    stop(&cluster, operator)?;
    let_go(&cluster, &[])
}

#[test]
fn the_rights_of_one_namespace_are_enough_there_and_end_there() -> anyhow::Result<()> {
    let settings = ["operator.namespaces={home}"];
    let Some(cluster) = cluster("helm/drover/values-standalone.yaml", &settings)? else { return Ok(()) };
    cluster.kubectl(&["apply", "--server-side", "-f", "deploy/crds/drover.yaml"])?;
    cluster.wait_for("default", "condition=Established", &["crd", "devices.devices.drover.dev", "rules.drover.dev"])?;
    let platform = Platform::start()?;
    let kubeconfig = cluster.account(NAMESPACE, "drover-operator")?;
    let settings = ["operator.resync=1s", "operator.lease.name=drover-operator", "operator.namespaces=[\"home\"]"];
    let mut operator = OperatorProcess::start(&platform, &kubeconfig, &settings)?;
    operator.lead()?;
    exercise(&cluster, &platform, &operator)?;
    stop(&cluster, operator)?;
    let_go(&cluster, &["--namespace", "home"])?;

    // Whoever has the pod's token can read no Secret of another namespace, and list none of its own.
    let may = |verb: &str, namespace: &str| -> anyhow::Result<bool> {
        let who = format!("--as=system:serviceaccount:{NAMESPACE}:drover-operator");
        let mut command =
            cluster.tool(cluster.kubectl_program(), &["auth", "can-i", verb, "secrets", "-n", namespace, &who]);
        Ok(command.output()?.status.success())
    };
    ensure!(may("get", "home")? && may("create", "home")?, "its own namespace");
    for (verb, namespace) in [("get", NAMESPACE), ("get", "kube-system"), ("list", "home"), ("delete", "home")] {
        ensure!(!may(verb, namespace)?, "it may {verb} Secrets of {namespace}");
    }
    Ok(())
}
