//! Commands that need no running platform.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::process::{Up, drover, free_offset, run};

fn doctor(data: &std::path::Path, offset: u16) -> (bool, Vec<Value>) {
    doctor_with(data, offset, &[])
}

fn doctor_with(data: &std::path::Path, offset: u16, settings: &[&str]) -> (bool, Vec<Value>) {
    let mut command = drover(&["doctor", "-o", "json", "--port-offset", &offset.to_string(), "--data"]);
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let output = command.arg(data).args(settings).output().expect("runs");
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
    assert!(verdicts(&findings, "cassandra").is_empty(), "nothing is kept there: {findings:?}");
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
fn the_doctor_asks_a_cluster_and_a_database_and_looks_where_the_certificates_are_said_to_be() {
    let (data, pki) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    std::fs::write(pki.path().join("ca.pem"), "damaged").expect("written");
    let offset = free_offset();
    // Over a cluster `up` has no listener of Kafka's protocol, so this is in nobody's way.
    let _held = std::net::TcpListener::bind(("127.0.0.1", 9092 + offset)).expect("was free");
    let away = ["bus.kind=kafka", "bus.kafka.brokers=127.0.0.1:9", "cassandra.hosts=[\"127.0.0.1:9\"]"];
    let elsewhere = format!("security.pki={}", pki.path().display());
    let settings = [&away[..], &["shadow.store.kind=cassandra", elsewhere.as_str()]].concat();
    let (healthy, findings) = doctor_with(data.path(), offset, &settings);
    assert!(!healthy);
    assert_eq!(verdicts(&findings, "ports"), ["ok"], "{findings:?}");
    for check in ["log", "cassandra", "ca.pem"] {
        assert_eq!(verdicts(&findings, check), ["fail"], "{check}: {findings:?}");
    }
    for address in ["Kafka at 127.0.0.1:9: ", "cassandra at 127.0.0.1:9 cannot be reached"] {
        let told = |finding: &Value| finding["message"].as_str().is_some_and(|message| message.contains(address));
        assert!(findings.iter().any(told), "{address}: {findings:?}");
    }
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
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 4);
    for shell in ["bash", "zsh", "fish"] {
        let completions = String::from_utf8(run(&["completions", shell]).stdout).expect("text");
        assert!(completions.contains("drover") && completions.contains("port-offset"), "{shell}");
    }
}

/// What a command answers to lines on its standard input.
fn answers(arguments: &[&str], lines: &str) -> Vec<Value> {
    use std::io::Write;
    let mut command = drover(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn functions_are_called_line_by_line_and_one_that_cannot_be_stopped_is_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let (good, bad) = (directory.path().join("good.js"), directory.path().join("bad.js"));
    std::fs::write(&good, "function decodeUplink(input) { return {data: {n: input.bytes.length}}; }").expect("written");
    // A loop within one built-in function, which never looks at the clock.
    std::fs::write(&bad, "function decodeUplink() { [].reverse.call({length: 2 ** 53 - 1}); }").expect("written");
    let ask = |path: &std::path::Path| json!({"codec_path": path, "routine": "decodeUplink", "input": {"bytes": [1]}});
    let lines = format!("{}\n{}\nnonsense\n{}\n", ask(&good), ask(&bad), ask(&good));
    let answered = answers(&["function", "eval", "--stdin"], &lines);
    assert_eq!(answered[0], json!({"out": {"data": {"n": 1}}}));
    assert!(answered[1]["error"].as_str().is_some_and(|error| error.contains("was ended")), "{}", answered[1]);
    assert!(answered[2]["error"].as_str().is_some_and(|error| error.starts_with("question: ")), "{}", answered[2]);
    assert_eq!((&answered[3], answered.len()), (&answered[0], 4));
}
