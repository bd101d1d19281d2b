//! `drover up` from start to stop, and once more.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::platform::Platform;
use crate::process::{Up, drover, free_offset, run};

/// How long commands may take, as `timeout` takes it.
const PATIENCE_SECONDS: &str = "120";
/// What `timeout` and a shell say where there is no such program.
const NOT_FOUND: i32 = 127;

/// Programs of others among the commands.
const TOOLS: [&str; 3] = ["mosquitto_pub", "kcat", "curl"];

/// The program of others that a command is of, if any.
fn tool(command: &str) -> Option<&'static str> {
    TOOLS.into_iter().find(|tool| command.trim().starts_with(*tool))
}

/// What a shell in this directory says to a script, and with which code it ends.
fn entered(directory: &Path, script: &str) -> (String, Option<i32>) {
    let mut shell = Command::new("timeout");
    let told = shell.args([PATIENCE_SECONDS, "sh", "-ec", script]).current_dir(directory).output();
    let told = told.expect("timeout is installed");
    let said = [told.stdout, told.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
    (said, told.status.code())
}

#[test]
fn it_says_where_things_are_and_ends_well_on_sigterm() {
    let data = tempfile::tempdir().expect("a directory");
    let data = data.path().join("data");
    let up = Up::on(&data);
    let token = data.join("admin.token");
    let secret = std::fs::read_to_string(&token).expect("made at the first start");
    assert!(up.printed.contains(&token.display().to_string()), "{}", up.printed);
    assert!(!up.printed.contains(secret.trim()), "the token itself is never printed");
    for port in [1883, 8883, 7071, 7072, 7073, 7074, 7075, 8080, 8443, 9092, 9464] {
        assert!(up.printed.contains(&format!("127.0.0.1:{}", port + up.offset)), "{port} in {}", up.printed);
    }
    for port in [5683, 5684] {
        assert!(up.printed.contains(&format!("127.0.0.1:{}", port + up.offset)), "CoAP in {}", up.printed);
    }
    let steps = ["rule apply", "mosquitto_pub", "-t home.hot-rooms", "-t drover.telemetry", " tail "];
    let places = steps.map(|step| up.printed.find(step).unwrap_or_else(|| panic!("{step:?} in {}", up.printed)));
    assert!(places.is_sorted(), "{}", up.printed);
    let master_key = data.join("master-keys/current");
    assert_eq!(std::fs::metadata(&master_key).expect("made").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&data).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(up.admin("/readyz"), (200, r#"{"ready":true}"#.to_owned()));
    assert_eq!(up.admin("/healthz").0, 200);
    let (_, metrics) = up.admin("/metrics");
    assert!(metrics.contains("process_resident_memory_bytes") && metrics.contains("drover_registry"), "{metrics}");
    assert_eq!(up.stop().code(), Some(0));
}

#[test]
fn its_commands_work_as_they_are_printed() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("my data");
    let up = Up::on(&data);
    let (_, commands) = up.printed.split_once("to try in a second terminal\n").expect("it says what to try");
    // It does not end by itself.
    let (tail, commands): (Vec<&str>, Vec<&str>) = commands.lines().partition(|line| line.contains(" tail "));
    assert!(tail[0].trim().ends_with("tail 'sensors/#'"), "{tail:?}");
    let (theirs, ours): (Vec<&str>, Vec<&str>) = commands.into_iter().partition(|line| tool(line).is_some());
    let script = ours.join("\n");
    let (said, code) = entered(parent.path(), &script);
    assert_eq!(code, Some(0), "{script}\n{said}");
    assert!(said.contains("device thermo-1 of tenant default") && said.contains("rule hot-rooms is applied"), "{said}");
    let mut published = false;
    for line in theirs {
        let tool = tool(line).expect("that is how it was chosen");
        // The rule works after the acknowledgement.
        let script = match tool == "kcat" && published {
            true => format!("command -v kcat || exit {NOT_FOUND}\nuntil {line} | grep 31.5; do sleep 0.1; done"),
            false => line.to_owned(),
        };
        match entered(parent.path(), &script) {
            (_, Some(NOT_FOUND)) => println!("NOT RUN: {tool} is missing"),
            (said, code) => {
                assert_eq!(code, Some(0), "{script}\n{said}");
                published |= tool == "mosquitto_pub";
            }
        }
    }
    assert!(up.stop().success());
}

#[test]
fn its_log_is_one_json_object_a_line_where_that_is_asked_for() {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = drover(&["up", "--set", "log.format=json", "--data"]);
    let platform = Platform { up: Up::start_at(free_offset(), command.arg(data.path())), data };
    // What it says of a rule has words of its own besides the message.
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/hot-rooms.yaml");
    platform.says(&["rule", "apply", "-f", rule.to_str().expect("text")]);
    let (status, log) = platform.up.stop_with_log();
    assert!(status.success(), "{log}");
    let mut messages = Vec::new();
    for line in log.lines() {
        let said: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |key: &str| said[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
        assert!(["ERROR", "WARN", "INFO"].contains(&text("level").as_str()), "{line}");
        assert!(text("timestamp").parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(!text("target").is_empty(), "{line}");
        assert_eq!(line.matches(r#""message":"#).count(), 1, "{line}");
        messages.push(text("message"));
    }
    for message in ["ready", "rule observed", "stopping; once more ends the process at once"] {
        assert!(messages.iter().any(|said| said == message), "{message:?} in {log}");
    }
}

#[test]
fn after_a_kill_it_resumes_with_the_same_token_and_authority() {
    let data = tempfile::tempdir().expect("a directory");
    let read = |name: &str| std::fs::read_to_string(data.path().join(name)).expect("there");
    let up = Up::on(data.path());
    let before = ["admin.token", "pki/ca.pem", "pki/server.pem", "master-keys/current"].map(read);
    up.kill();
    let again = Up::on(data.path());
    assert_eq!(["admin.token", "pki/ca.pem", "pki/server.pem", "master-keys/current"].map(read), before);
    assert!(again.stop().success());
}

#[test]
fn ephemeral_data_is_gone_at_the_end() {
    let parent = tempfile::tempdir().expect("a directory");
    let offset = free_offset();
    let up = Up::start_at(offset, drover(&["up", "--ephemeral"]).env("TMPDIR", parent.path()));
    assert_eq!(std::fs::read_dir(parent.path()).expect("there").count(), 1);
    assert!(up.stop().success());
    assert_eq!(std::fs::read_dir(parent.path()).expect("there").count(), 0);
}

#[test]
fn parts_can_be_left_out() {
    let up = Up::start(&["--ephemeral", "--disable", "kafka,gateway,coap"]);
    let left_out = ["kafka", "gateway", "coap"].map(|part| up.printed.contains(part));
    assert_eq!(left_out, [false; 3], "{}", up.printed);
    assert!(up.stop().success());
    let output = run(&["up", "--check-config", "--disable", "sql,kafka,coap"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && said.lines().count() == 1 && said.contains("no SQL listener"), "{said}");
    let up = Up::start(&["--ephemeral", "--only", "registry"]);
    assert!(up.printed.contains("registry") && !up.printed.contains("kafka"), "{}", up.printed);
    assert!(up.stop().success());
}
