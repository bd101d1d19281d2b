//! The report of a run of `drover-load` in a real Chromium: it reads well wide and on a phone, light and dark.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use drover_tests::{Platform, artefacts, chromium, generator, lines_of, node, script};
use serde_json::{Value, json};

/// Letters of drawings are the smallest, in CSS pixels: on a phone they are two thirds of what they are elsewhere.
const LETTERS_PX_MIN: f64 = 8.5;
/// Connections, messages, both latencies, losses, memory, descriptors, processor, and the distribution.
const DRAWINGS: u64 = 9;

/// A run with a storm, a clean ledger, and a threshold that fails.
const SCENARIO: &str = r#"
title = "report"
shows = "Ten devices send twice a second, lose the network once and come back; one application listens to all of them."
duration = "8s"
settle = "5s"
ledger = true
thresholds = ["acknowledged_share == 1", "ledger_lost == 0", "server_memory_growth < 1B", "ack_p99 < 1us"]

[[fleet]]
name = "application"
devices = 1
device = "application"
clean = false
subscribe = [{ filter = "report/#" }]

[[fleet]]
name = "devices"
devices = 10
device = "report-{i}"
clean = false
reconnect = ["100ms", "500ms"]
arrive = { after = "1s", over = "1s" }

[fleet.publish]
topic = "report/{device}"
every = "500ms"
payload = '{"device":"{device}","n":{n},"sent_us":{sent_us}}'

[[storm]]
at = "4s"
away = "1s"
fleets = ["devices"]
"#;

#[test]
fn a_report_reads_well_wide_and_on_a_phone_and_asks_for_nothing_from_elsewhere() -> anyhow::Result<()> {
    let (Some(node), Some(chromium)) = (node("playwright-core"), chromium()) else { return Ok(()) };
    let platform = Platform::start()?;
    let (file, out) = (platform.file("report.toml"), platform.file("load-report"));
    std::fs::write(&file, SCENARIO)?;
    let mut load = Command::new(generator()?);
    load.arg("run").arg(&file).arg("--quiet").arg("--out").arg(&out);
    load.args(["--target", &format!("127.0.0.1:{}", platform.port(1883))]);
    load.args(["--metrics", &format!("http://127.0.0.1:{}/metrics", platform.port(9464))]);
    let output = load.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1) && said.contains("ledger application: clean"), "{output:?}");

    let folder = artefacts("report")?;
    let mut person = Command::new(node.program);
    person.env("NODE_PATH", node.modules).env("CHROMIUM", chromium);
    person.arg(script("report.cjs")).arg(out.join("report.html")).arg(&folder);
    let printed = lines_of(&mut person, b"")?;
    let seen: Value = serde_json::from_str(printed.last().context("it prints what it saw")?)?;
    println!("seen in Chromium, pictures in {}: {seen}", folder.display());

    for look in ["light", "dark", "phone"] {
        let seen = &seen[look];
        assert_eq!((&seen["errors"], &seen["faults"]), (&json!([]), &json!([])), "{look}");
        assert_eq!(seen["asked"], 1, "{look}: the page alone");
        assert!(seen["too_wide_px"].as_i64().is_some_and(|wide| wide <= 0), "{look}: {seen}");
        assert!(seen["letters_px"].as_f64().is_some_and(|size| size >= LETTERS_PX_MIN), "{look}: {seen}");
        assert_eq!((seen["drawings"].as_u64(), seen["judged"].as_u64()), (Some(DRAWINGS), Some(5)), "{look}");
        assert_eq!(seen["verdict"], "failed", "{look}");
    }
    assert_ne!(seen["light"]["background"], seen["dark"]["background"]);
    Ok(())
}
