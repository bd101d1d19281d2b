//! `drover-load chaos` against a real `drover up`, where the workspace has been built.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use drover_load::report::Report;

use crate::faults::CANNOT;
use crate::runs::said;

/// The executable named, or the one beside the generator's; `None` after saying so.
pub fn drover() -> Option<PathBuf> {
    let named = std::env::var_os("DROVER_BIN").map(PathBuf::from);
    let drover = named.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_drover-load")).with_file_name("drover"));
    if drover.is_file() {
        return Some(drover);
    }
    println!("NOT RUN: {} is missing", drover.display());
    None
}

const SCENARIO: &str = r#"
    title = "small chaos"
    duration = "15s"
    settle = "8s"
    ledger = true
    thresholds = ["ledger_lost == 0", "ledger_unexpected == 0", "unsent == 0", "acknowledged > 300"]
    [[fleet]]
    name = "subscriber"
    devices = 1
    device = "ear"
    clean = false
    keep_alive = "5s"
    reconnect = ["100ms", "500ms"]
    subscribe = [{ filter = "small/+" }]
    [[fleet]]
    name = "tcp"
    devices = 5
    device = "tcp-{i}"
    clean = false
    keep_alive = "5s"
    reconnect = ["100ms", "500ms"]
    arrive = { after = "1s" }
    publish = { topic = "small/{device}", every = "200ms", payload = '{"device":"{device}","n":{n},"sent_us":{sent_us}}' }
    [[fleet]]
    name = "websocket"
    devices = 5
    device = "ws-{i}"
    protocol = "ws"
    v5 = true
    clean = false
    keep_alive = "5s"
    reconnect = ["100ms", "500ms"]
    arrive = { after = "1s" }
    publish = { topic = "small/{device}", every = "200ms", payload = '{"device":"{device}","n":{n},"sent_us":{sent_us}}' }
    [chaos]
    every = "3s"
    longest = "1s"
"#;

/// Runs a scenario against `drover up`; `None`, after saying so, where it cannot be done here.
fn chaos(folder: &Path, text: &str, seed: &str) -> Option<(Output, Report)> {
    let drover = drover()?;
    let file = folder.join("scenario.toml");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
    command.arg("chaos").arg(&file).args(["--seed", seed, "--quiet", "--drover"]).arg(drover);
    let output = command.arg("--out").arg(folder.join("out")).output().expect("it starts");
    if let Some(why) = said(&output).lines().find(|line| line.starts_with(CANNOT)) {
        println!("NOT RUN: {why}");
        return None;
    }
    let log = std::fs::read_to_string(folder.join("out/drover.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", said(&output));
    let report = Report::read(&folder.join("out/report.json")).expect("a report");
    Some((output, report))
}

#[test]
fn what_drover_up_has_acknowledged_comes_to_its_subscriber_whatever_is_done_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((output, report)) = chaos(folder.path(), SCENARIO, "5") else { return };
    assert!(!report.faults.is_empty(), "faults are told");
    assert!(report.metrics["connections_lost"] > 0.0 || report.faults.iter().all(|fault| fault.contains("SIGSTOP")));
    assert!(said(&output).contains("ledger ear: clean"), "{}", said(&output));
}

#[test]
fn what_drover_up_has_acknowledged_comes_to_its_subscriber_whatever_its_network_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = "    faults = [\"cut\", \"partition\", \"reset\", \"loss\"]\n";
    let text = SCENARIO.replace("settle = \"8s\"", "settle = \"20s\"") + network;
    let Some((output, report)) = chaos(folder.path(), &text, "5") else { return };
    assert!(!report.faults.is_empty(), "faults are told");
    assert!(said(&output).contains("ledger ear: clean"), "{}", said(&output));
}
