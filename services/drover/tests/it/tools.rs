//! Commands that need no running platform.

use serde_json::Value;

use crate::process::{Up, drover, free_offset, run};

fn doctor(data: &std::path::Path, offset: u16) -> (bool, Vec<Value>) {
    let mut command = drover(&["doctor", "-o", "json", "--port-offset", &offset.to_string(), "--data"]);
    let output = command.arg(data).output().expect("runs");
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.success(), answer["items"].as_array_mut().expect("items").drain(..).collect())
}

fn verdicts(findings: &[Value], check: &str) -> Vec<String> {
    let of_check = findings.iter().filter(|finding| finding["check"] == check);
    of_check.map(|finding| finding["verdict"].as_str().expect("a verdict").to_owned()).collect()
}

#[test]
fn the_doctor_finds_nothing_to_fail_on_an_empty_machine_and_on_a_running_platform() {
    let data = tempfile::tempdir().expect("a directory");
    let (healthy, findings) = doctor(data.path(), free_offset());
    assert!(healthy, "{findings:?}");
    assert_eq!(verdicts(&findings, "server"), ["warn"], "nothing runs yet");
    let up = Up::on(data.path());
    let (healthy, findings) = doctor(data.path(), up.offset);
    assert!(healthy, "{findings:?}");
    for check in ["server", "ports", "log", "ca.pem", "server.pem"] {
        assert_eq!(verdicts(&findings, check), ["ok"], "{check}: {findings:?}");
    }
    assert!(up.stop().success());
}

#[test]
fn the_doctor_fails_on_taken_ports_and_damage_and_says_what_to_do() {
    let data = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(data.path().join("pki")).expect("made");
    std::fs::create_dir_all(data.path().join("bus")).expect("made");
    std::fs::write(data.path().join("pki/ca.pem"), "damaged").expect("written");
    std::fs::write(data.path().join("bus/FORMAT"), "999\n").expect("written");
    let offset = free_offset();
    let _held = std::net::TcpListener::bind(("127.0.0.1", 9092 + offset)).expect("was free");
    let (healthy, findings) = doctor(data.path(), offset);
    assert!(!healthy);
    for check in ["ports", "log", "ca.pem"] {
        assert_eq!(verdicts(&findings, check), ["fail"], "{check}: {findings:?}");
    }
    let unhealthy = findings.iter().filter(|finding| finding["verdict"] != "ok");
    assert!(unhealthy.clone().all(|finding| finding["advice"].is_string()), "{findings:?}");
}

#[test]
fn the_doctor_notices_a_log_that_up_would_refuse() {
    let data = tempfile::tempdir().expect("a directory");
    let up = Up::on(data.path());
    let (healthy, findings) = doctor(data.path(), free_offset());
    let told = findings.iter().find(|finding| finding["check"] == "log").expect("looked at").to_string();
    assert!(!healthy && told.contains("in use by another process"), "{told}");
    assert!(up.stop().success());
    let bus = std::fs::read_dir(data.path().join("bus")).expect("lists").flatten().map(|entry| entry.path());
    let journal = bus.into_iter().find(|path| path.extension().is_some_and(|e| e == "journal")).expect("a journal");
    let mut bytes = std::fs::read(&journal).expect("there");
    bytes[30] ^= 1;
    std::fs::write(&journal, bytes).expect("written");
    let (healthy, findings) = doctor(data.path(), free_offset());
    let told = findings.iter().find(|finding| finding["check"] == "log").expect("looked at").to_string();
    assert!(!healthy && told.contains("is damaged at byte") && told.contains("--data DIR"), "{told}");
}

#[test]
fn crds_and_completions_are_printed() {
    let crds = String::from_utf8(run(&["crd"]).stdout).expect("text");
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 2);
    for shell in ["bash", "zsh", "fish"] {
        let completions = String::from_utf8(run(&["completions", shell]).stdout).expect("text");
        assert!(completions.contains("drover") && completions.contains("port-offset"), "{shell}");
    }
}

/// A word of PromQL that looks like the name of one of our metrics, without the suffix that a query adds.
fn metric(word: &str) -> Option<&str> {
    let ours = word.starts_with("drover_") || word.starts_with("process_");
    let suffix = ["_bucket", "_count", "_sum", "_total"].into_iter().find(|suffix| word.ends_with(suffix));
    ours.then(|| word.trim_end_matches(suffix.unwrap_or_default()))
}

/// Whether a service registers a metric of this name: one with labels is not exposed before it has counted something,
/// and those of Kafka's client are not there with an embedded log.
fn is_registered(name: &str) -> bool {
    let Some((service, rest)) = name.strip_prefix("drover_").and_then(|name| name.split_once('_')) else {
        return false;
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = match service {
        "bus" => root.join("../crates/host/src/bus_metrics.rs"),
        service => root.join(service).join("src/telemetry.rs"),
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    [rest, name].iter().any(|name| text.contains(&format!("\"{name}\"")))
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/dashboards/drover.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).expect("there")).expect("JSON");
    let up = Up::start(&["--ephemeral"]);
    let (_, text) = up.admin("/metrics");
    let known: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let panels = dashboard["panels"].as_array().expect("panels");
    let expressions = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut named = 0;
    for expression in expressions.map(|target| target["expr"].as_str().expect("an expression")) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter_map(metric) {
            assert!(
                known.contains(&name) || is_registered(name),
                "{name} in {expression} is neither among {known:?} nor registered"
            );
            named += 1;
        }
    }
    assert!(named >= 30, "{named} names found: the panels are not read as they are written");
    assert!(up.stop().success());
}
