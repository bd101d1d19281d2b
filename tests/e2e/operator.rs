//! The operator against a real API server: what is applied there becomes devices, Secrets, rules and fleets, is set back where
//! it was changed elsewhere, and goes when it is deleted.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_load::client::{Client, Options};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_tests::{Kubernetes, Patience, Platform, executable, lines_of, options, pause};
use drover_types::Qos;
use serde_json::{Value, json};

const CRDS: &str = "deploy/crds/drover.yaml";
/// How soon what was changed elsewhere is set back here.
const SOON: &str = "operator.resync=1s";
/// Longest wait for anything; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API server with the CRDs and the namespace `home`, and the platform with its operator, which writes numbers at once.
fn stage() -> anyhow::Result<Option<(Kubernetes, Platform)>> {
    stage_with(&["--set", "operator.status_interval=1s"])
}

fn stage_with(settings: &[&str]) -> anyhow::Result<Option<(Kubernetes, Platform)>> {
    let Some(cluster) = Kubernetes::start()? else { return Ok(None) };
    stage_on(cluster, settings).map(Some)
}

fn stage_on(cluster: Kubernetes, settings: &[&str]) -> anyhow::Result<(Kubernetes, Platform)> {
    apply_crds(&cluster)?;
    cluster.wait_for("default", "condition=Established", &["crd", "devices.devices.drover.dev", "rules.drover.dev"])?;
    cluster.kubectl(&["create", "namespace", "home"])?;
    let arguments = [&["--operator", "--set", SOON][..], settings].concat();
    let platform = Platform::start_in(&arguments, cluster.environment())?;
    Ok((cluster, platform))
}

/// As the chart's job does it before an upgrade.
fn apply_crds(cluster: &Kubernetes) -> anyhow::Result<()> {
    let mut apply = Command::new(executable()?);
    let applied = lines_of(apply.args(["crd", "--apply"]).envs(cluster.environment()), b"")?;
    ensure!(applied.contains(&"rules.drover.dev applied".to_owned()), "{applied:?}");
    Ok(())
}

fn device(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "devices.drover.dev/v1alpha1", "kind": "Device",
        "metadata": {"name": name, "labels": {"room": "kitchen"}}, "spec": spec,
    })
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "drover.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A function whose examples have values of every kind.
fn decoder() -> Value {
    json!({
        "source": "function main(input) { return input === null ? null : {echo: input}; }",
        "examples": [{"input": null, "output": null}, {"input": [1, {"a": "b"}], "output": {"echo": [1, {"a": "b"}]}}],
    })
}

fn secret(cluster: &Kubernetes, name: &str, key: &str) -> anyhow::Result<String> {
    let secret = cluster.get("home", &["secret", name])?;
    let value = secret["data"][key].as_str().with_context(|| format!("{key} of {name}"))?;
    Ok(String::from_utf8(BASE64_STANDARD.decode(value)?)?)
}

/// Waits until what `read` answers is so.
fn until(what: &str, mut is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let waiting = Patience::new(PATIENCE);
    while !is()? {
        ensure!(waiting.lasts(), "not {what} within {PATIENCE:?}");
        pause();
    }
    Ok(())
}

#[test]
fn objects_of_the_cluster_become_those_of_the_platform() -> anyhow::Result<()> {
    let Some((cluster, platform)) = stage()? else { return Ok(()) };
    let statement =
        json!({"effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#", "${device}"]});
    let credentials = json!([{"token": {"secretName": "t"}}, {"certificate": {"secretName": "c", "duration": "48h"}}]);
    let thermo = json!({
        "credentials": credentials, "policies": ["default", "all"], "attributes": {"serial": "A-17"},
        "desired": {"targetTemperature": 21},
    });
    let sql = "SELECT temperature FROM 'sensors/+/climate'";
    let rule = json!({"sql": sql, "actions": [{"kafka": {"topic": "home.all"}}]});
    let fleet = json!({"source": {"count": {"devices": 1_234, "prefix": "s-", "digits": 4}}});
    cluster.apply(
        "home",
        &[
            device("thermo-1", thermo),
            object("Policy", "all", json!({"statements": [statement]})),
            object("Rule", "hot-rooms", rule),
            object("DeviceFleet", "sensors", fleet),
            object("Function", "echo", decoder()),
        ],
    )?;
    for what in ["device/thermo-1", "policy/all", "rule/hot-rooms", "devicefleet/sensors", "function/echo"] {
        cluster.wait_for("home", "condition=Ready", &[what])?;
    }
    let fleet = cluster.get("home", &["fleet", "sensors"])?;
    assert_eq!((&fleet["status"]["registered"], &fleet["status"]["failed"]), (&json!(1_234), &json!(0)));

    // The device proves itself with what is in its Secrets, and its phase is told.
    let (user, token) = (secret(&cluster, "t", "username")?, secret(&cluster, "t", "token")?);
    assert_eq!(user, "home/thermo-1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut options = options(platform.port(1883), Version::V5, "thermo-1")?;
    (options.mqtt.user_name, options.mqtt.password) = (Some(user), Some(token.into_bytes()));
    let connected = runtime.block_on(Client::connect(options))?;
    cluster.wait_for("home", "jsonpath={.status.phase}=Connected", &["device/thermo-1"])?;
    cluster.wait_for("home", "condition=Connected", &["device/thermo-1"])?;
    runtime.block_on(connected.disconnect());
    with_certificate(&cluster, &platform, &runtime)?;
    let shadow = platform.cli(&["shadow", "get", "thermo-1", "-n", "home"])?;
    assert!(shadow.contains("targetTemperature") && shadow.contains("21"), "{shadow}");

    // A function answers as its examples say, among them one without a value.
    let functions = platform.cli(&["function", "list", "-n", "home"])?;
    assert!(functions.contains("echo"), "{functions}");

    // What people see.
    let table = cluster.kubectl(&["-n", "home", "get", "drover"])?;
    for part in ["thermo-1", "hot-rooms", "sensors", "AS-OF"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let explained = cluster.kubectl(&["explain", "device.spec.credentials.certificate.duration"])?;
    assert!(explained.contains("renewed when a third"), "{explained}");

    // A namespace goes with all that is in it, on both sides.
    cluster.kubectl(&["delete", "namespace", "home", "--timeout=120s"])?;
    let left = platform.cli(&["device", "list", "--all", "-o", "json", "-n", "home"])?;
    let left: Value = serde_json::from_str(&left)?;
    assert_eq!(left["items"], json!([]));
    assert!(!platform.cli(&["rule", "list", "-n", "home"])?.contains("hot-rooms"));
    Ok(())
}

/// Connects over TLS with the certificate, the key and the authority of the Secret, and no password.
fn with_certificate(
    cluster: &Kubernetes,
    platform: &Platform,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let file = |key: &str| -> anyhow::Result<_> {
        let path = platform.file(key);
        std::fs::write(&path, secret(cluster, "c", key)?)?;
        Ok(path)
    };
    let files = TlsFiles { authority: Some(file("ca.crt")?), identity: Some((file("tls.crt")?, file("tls.key")?)) };
    let target = Target::new(&format!("mqtts://127.0.0.1:{}", platform.port(8883)), &files)?;
    let options = Options::new(target, ClientOptions::new(Version::V5, "thermo-1"));
    runtime.block_on(async {
        let device = Client::connect(options).await?;
        device.publish("sensors/kitchen/climate", br#"{"temperature": 31.5}"#, Qos::AtLeastOnce).await?;
        device.disconnect().await;
        Ok(())
    })
}

#[test]
fn what_is_changed_elsewhere_is_set_back_and_what_is_anothers_is_left_alone() -> anyhow::Result<()> {
    let Some((cluster, platform)) = stage()? else { return Ok(()) };
    platform.cli(&["device", "create", "by-hand", "-n", "home"])?;
    let foreign =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}, "stringData": {"a": "b"}});
    cluster.apply(
        "home",
        &[
            foreign,
            device("d", json!({"attributes": {"serial": "1"}})),
            device("by-hand", json!({})),
            device("greedy", json!({"credentials": [{"token": {"secretName": "taken"}}]})),
            device("frozen", json!({"credentials": [{"token": {"secretName": "frozen"}}]})),
            object("Rule", "bad", json!({"sql": "SELECT FROM 'a'", "actions": [{"kafka": {"topic": "home.t"}}]})),
        ],
    )?;
    cluster.wait_for("home", "condition=Ready", &["device/d"])?;
    for (what, condition, reason, told) in [
        ("device/by-hand", "Accepted", "NotOurs", "drover.dev/adopt"),
        ("device/greedy", "Ready", "SecretNotOurs", "Secret taken exists"),
        ("rule/bad", "Accepted", "Invalid", "spec.sql: line 1, column "),
    ] {
        cluster.wait_for("home", &format!("condition={condition}=False"), &[what])?;
        let found = cluster.get("home", &[what])?;
        let conditions = found["status"]["conditions"].as_array().context("conditions")?;
        let found = conditions.iter().find(|found| found["type"] == condition).context("the condition")?;
        assert_eq!(found["reason"], reason, "{what}: {found}");
        assert!(found["message"].as_str().is_some_and(|message| message.contains(told)), "{what}: {found}");
    }
    assert_eq!(secret(&cluster, "taken", "a")?, "b");

    // A Secret that the API server does not let anybody change is told, once its credential is gone.
    cluster.wait_for("home", "condition=Ready", &["device/frozen"])?;
    cluster.kubectl(&["-n", "home", "patch", "secret", "frozen", "--type=merge", "-p", r#"{"immutable": true}"#])?;
    let issued: Value =
        serde_json::from_str(&platform.cli(&["credential", "list", "frozen", "-o", "json", "-n", "home"])?)?;
    let id = issued["items"][0]["id"].as_str().context("a credential")?;
    platform.cli(&["credential", "revoke", "frozen", id, "-n", "home"])?;
    cluster.kubectl(&["-n", "home", "annotate", "device", "frozen", "look=again"])?;
    cluster.wait_for("home", "condition=Ready=False", &["device/frozen"])?;
    let conditions =
        cluster.kubectl(&["-n", "home", "get", "device", "frozen", "-o", "jsonpath={.status.conditions}"])?;
    ensure!(conditions.contains("SecretRefused") && conditions.contains("immutable"), "{conditions}");

    let declared = platform.cli(&["device", "get", "d", "-o", "json", "-n", "home"])?;
    platform.cli(&["device", "delete", "d", "-n", "home"])?;
    until("made anew", || Ok(platform.cli(&["device", "get", "d", "-n", "home"]).is_ok()))?;
    let anew: Value = serde_json::from_str(&platform.cli(&["device", "get", "d", "-o", "json", "-n", "home"])?)?;
    assert_eq!(anew["spec"], serde_json::from_str::<Value>(&declared)?["spec"]);
    until("told", || {
        let events = cluster.get("home", &["events"])?;
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(|event| event["reason"] == "Drift")))
    })?;

    cluster.kubectl(&["-n", "home", "annotate", "device", "by-hand", "drover.dev/adopt=true"])?;
    cluster.wait_for("home", "condition=Ready", &["device/by-hand"])?;
    cluster.kubectl(&["-n", "home", "delete", "devices", "--all", "--timeout=120s"])?;
    let left: Value = serde_json::from_str(&platform.cli(&["device", "list", "--all", "-o", "json", "-n", "home"])?)?;
    assert_eq!(left["items"], json!([]), "an adopted device goes, too");
    assert_eq!(secret(&cluster, "taken", "a")?, "b");
    Ok(())
}

#[test]
fn a_fleet_follows_its_table_at_once() -> anyhow::Result<()> {
    let Some((cluster, platform)) = stage_with(&[])? else { return Ok(()) };
    let fleet = object("DeviceFleet", "listed", json!({"source": {"csv": {"configMap": "table"}}}));
    let table = |rows: &str| {
        let data = json!({"devices.csv": format!("name,labels\n{rows}")});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": data})
    };
    cluster.apply("home", &[fleet])?;
    cluster.wait_for("home", "condition=Accepted=False", &["devicefleet/listed"])?;
    for (rows, declared) in [("a,room=kitchen\n", 1), ("a,room=kitchen\nb,\nc,\n", 3), ("c,\n", 1)] {
        cluster.apply("home", &[table(rows)])?;
        cluster.wait_for("home", &format!("jsonpath={{.status.registered}}={declared}"), &["devicefleet/listed"])?;
    }
    let left: Value = serde_json::from_str(&platform.cli(&["device", "list", "--all", "-o", "json", "-n", "home"])?)?;
    assert_eq!(left["items"][0]["metadata"]["name"], "c", "{left}");
    Ok(())
}

#[test]
fn a_rule_that_does_not_compile_is_refused_when_it_is_applied() -> anyhow::Result<()> {
    let settings = ["listen=[\"127.0.0.1:9443\"]", "host=localhost", "secret=hook", "configuration=rules"];
    let settings = settings.map(|part| format!("operator.webhook.{part}"));
    let settings: Vec<&str> = settings.iter().flat_map(|part| ["--set", part.as_str()]).collect();
    let Some(cluster) = Kubernetes::start_own()? else { return Ok(()) };
    let (cluster, platform) = stage_on(cluster, &settings)?;
    // Both are the chart's to make. Here the API server and the operator are on one machine.
    let clauses = json!({
        "apiGroups": ["drover.dev"], "apiVersions": ["v1alpha1"], "resources": ["rules"], "operations": ["CREATE", "UPDATE"],
    });
    let asked = json!({
        "name": "rules.drover.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "clientConfig": {"url": format!("https://localhost:{}/rules", platform.port(9443))}, "rules": [clauses],
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "rules"}, "webhooks": [asked],
    });
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}});
    cluster.apply("default", &[secret, configuration])?;
    until("told the certificate", || {
        let told = cluster.get("default", &["validatingwebhookconfiguration", "rules"])?;
        Ok(told["webhooks"][0]["clientConfig"]["caBundle"].is_string())
    })?;
    let rule = |sql: &str| object("Rule", "r", json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]}));
    // The API server takes a moment to know whom it asks; until then it lets in what the status refuses. Of what is there already
    // it asks only when it changes.
    let mut tries = 0;
    until("refused", || {
        tries += 1;
        let refused = cluster.apply("home", &[rule(&format!("SELECT FROM 'a/{tries}'"))]).err();
        Ok(refused.is_some_and(|refused| format!("{refused:#}").contains("spec.sql: line 1, column ")))
    })?;
    cluster.apply("home", &[rule("SELECT * FROM 'a'")])?;
    cluster.wait_for("home", "condition=Ready", &["rule/r"])?;
    Ok(())
}

#[test]
fn what_the_schemas_refuse_is_refused_by_the_api_server() -> anyhow::Result<()> {
    let Some(cluster) = Kubernetes::start()? else { return Ok(()) };
    cluster.kubectl(&["apply", "--server-side", "-f", CRDS])?;
    // Over what another has applied, and once more.
    apply_crds(&cluster)?;
    apply_crds(&cluster)?;
    let crds = ["devices.devices", "rules", "policies", "devicefleets", "functions"]
        .map(|plural| format!("crd/{plural}.drover.dev"));
    cluster.wait_for("default", "condition=Established", &crds.each_ref().map(String::as_str))?;
    let both = json!({"token": {"secretName": "a"}, "certificate": {"secretName": "b"}});
    let action = json!({"kafka": {"topic": "t"}, "republish": {"topic": "t"}});
    let source = json!({"names": ["a"], "count": {"devices": 1, "prefix": "s"}});
    for (object, told) in [
        (device("d", json!({"credentials": [both]})), "exactly one of token, certificate"),
        (device(&"d".repeat(129), json!({})), "at most 128 characters"),
        (device("d", json!({"credentials": [{"certificate": {"secretName": "c", "duration": "soon"}}]})), "duration"),
        (device("d", json!({"type": ""})), "spec.type"),
        (device("d", json!({"credentials": [{"token": {"secretName": "../../lab/secrets/t"}}]})), "secretName"),
        (object("Rule", "r", json!({"sql": "", "actions": []})), "spec.sql"),
        (
            object("Rule", "r", json!({"sql": "SELECT * FROM 'a'", "actions": [action]})),
            "exactly one of kafka, republish",
        ),
        (object("Policy", "default", json!({"statements": []})), "built in"),
        (object("Function", "a.b", decoder()), "has no dots"),
        (object("Function", "f", json!({"source": "x", "routine": "a.b"})), "spec.routine"),
        (object("DeviceFleet", "f", json!({"source": source})), "exactly one of count, names, csv"),
    ] {
        let refused = cluster.apply("default", &[object]).err().with_context(|| format!("accepted although {told}"))?;
        ensure!(format!("{refused:#}").contains(told), "{refused:#}");
    }
    let fleet =
        |prefix: &str| object("DeviceFleet", "f", json!({"source": {"count": {"devices": 1, "prefix": prefix}}}));
    cluster.apply("default", &[fleet("s-")])?;
    let refused = cluster.apply("default", &[fleet("t-")]).err().context("other devices")?;
    ensure!(format!("{refused:#}").contains("the prefix cannot change"), "{refused:#}");
    let renumbered = json!({"source": {"count": {"devices": 1, "prefix": "s-", "digits": 3}}});
    let refused = cluster.apply("default", &[object("DeviceFleet", "f", renumbered)]).err().context("other devices")?;
    ensure!(format!("{refused:#}").contains("the digits cannot change"), "{refused:#}");
    let kept = cluster.get("default", &["devicefleet", "f"])?;
    assert_eq!(kept["spec"]["template"], json!({"enabled": true, "policies": ["default"]}), "defaults are filled in");
    Ok(())
}
