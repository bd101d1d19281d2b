//! `drover-load chaos` against a real `drover up`, where the workspace has been built.

use std::path::{Path, PathBuf};
use std::process::Command;

use drover_load::report::Report;

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

#[test]
fn what_drover_up_has_acknowledged_comes_to_its_subscriber_whatever_is_done_to_it() {
    let Some(drover) = drover() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scenario.toml");
    std::fs::write(&file, SCENARIO).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
    command.arg("chaos").arg(&file).args(["--seed", "5", "--quiet", "--drover"]).arg(drover);
    let output = command.arg("--out").arg(folder.path().join("out")).output().expect("it starts");
    let log = std::fs::read_to_string(folder.path().join("out/drover.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", said(&output));
    let report = Report::read(&folder.path().join("out/report.json")).expect("a report");
    assert!(!report.faults.is_empty(), "faults are told");
    assert!(report.metrics["connections_lost"] > 0.0 || report.faults.iter().all(|fault| fault.contains("SIGSTOP")));
    assert!(said(&output).contains("ledger ear: clean"), "{}", said(&output));
}
