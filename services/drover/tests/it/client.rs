//! The client's commands against a platform that runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use drover_mqtt::ReasonCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::device::Device;
use crate::platform::Platform;
use crate::process::{Up, drover, free_offset, refused};

#[test]
fn a_device_is_made_listed_and_deleted() {
    let platform = Platform::start();
    let created = platform.json(&["device", "create", "t-1", "--type", "thermostat", "--label", "room=kitchen"]);
    assert_eq!((&created["device"], &created["metadata"]["labels"]["room"]), (&"t-1".into(), &"kitchen".into()));
    assert!(created["token"].as_str().is_some_and(|token| token.len() >= 20), "{created}");
    assert_eq!(created["endpoints"]["mqtt"], format!("127.0.0.1:{}", 1883 + platform.up.offset));

    let told = platform.says(&["device", "create", "t-2", "-n", "home"]);
    assert!(told.contains("home/t-2") && told.contains("not shown again"), "{told}");
    let words =
        |line: &str| told.lines().find_map(|told| told.trim().strip_prefix(line)).expect(line).trim().to_owned();
    let (command, password) = (words("HTTP"), words("password"));
    let token = password.split(' ').next().expect("a token");
    let http = format!("127.0.0.1:{}", 8080 + platform.up.offset);
    assert_eq!(command, format!("curl -X POST \"http://{http}/update?api_key={token}\" -d field1=21.5"));
    let url = command.split('"').nth(1).expect("quoted");
    let mut answer = ureq::post(url).send_form([("field1", "21.5")]).expect("the line works as it was printed");
    assert!(answer.body_mut().read_to_string().expect("text").parse::<u64>().is_ok_and(|entry| entry > 0));
    assert_eq!(
        platform.says(&["device", "list"]),
        "NAME  TYPE        STATE      LAST-SEEN\nt-1   thermostat  NeverSeen  -\n"
    );
    assert_eq!(platform.json(&["device", "list", "--all", "-n", "home"])["items"][0]["metadata"]["name"], "t-2");
    assert_eq!(platform.refuses(&["device", "create", "t-1"]), "drover: device/default/t-1 exists already");
    assert_eq!(platform.says(&["device", "delete", "t-1"]), "device t-1 is deleted\n");
    let gone = serde_json::json!({"name": "t-2", "deleted": true, "unconfirmedNodes": []});
    assert_eq!(platform.json(&["device", "delete", "t-2", "-n", "home"]), gone);
    assert!(platform.refuses(&["device", "get", "t-1"]).contains("t-1"));
    assert!(platform.refuses(&["device", "create", "a/b"]).starts_with("drover: metadata.name: device contains '/'"));
}

#[test]
fn a_snippet_carries_a_new_token() {
    let platform = Platform::start();
    platform.says(&["device", "create", "t-1"]);
    for language in ["python", "arduino", "mosquitto", "curl", "node"] {
        let program = platform.says(&["device", "snippet", "t-1", "--lang", language]);
        let port = if language == "curl" { 8080 } else { 1883 };
        assert!(program.contains(&(port + platform.up.offset).to_string()), "{program}");
    }
    let listed = platform.json(&["credential", "list", "t-1"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(6), "{listed}");
    let told = platform.json(&["device", "snippet", "t-1", "--lang", "python"]);
    assert!(told["program"].as_str().is_some_and(|program| program.contains("paho.mqtt")), "{told}");
    let listed = platform.json(&["credential", "list", "t-1"]);
    assert_eq!((&told["device"], &told["credential"]), (&"t-1".into(), &listed["items"][6]["id"]), "{listed}");
    assert!(platform.refuses(&["device", "snippet", "none", "--lang", "python"]).contains("none"));
}

#[test]
fn a_certificate_is_saved_once_and_revoked() {
    let platform = Platform::start();
    platform.says(&["device", "create", "t-1"]);
    let keys = platform.data.path().join("keys");
    let issue = ["credential", "issue", "t-1", "--certificate", "--out", keys.to_str().expect("text")];
    platform.says(&issue);
    let read = |name: &str| std::fs::read_to_string(keys.join(name)).expect("saved");
    assert!(read("device.cert.pem").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(read("ca.pem").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(read("device.private.key").contains("PRIVATE KEY"));
    let mode = std::fs::metadata(keys.join("device.private.key")).expect("saved").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert!(platform.refuses(&issue).ends_with("device.cert.pem exists; --force overwrites it"));
    let listed = platform.json(&["credential", "list", "t-1"]);
    let certificates: Vec<&Value> =
        listed["items"].as_array().expect("items").iter().filter(|item| item["kind"] == "certificate").collect();
    assert_eq!(certificates.len(), 1, "a refused issue leaves nothing: {listed}");
    let id = certificates[0]["id"].as_str().expect("an id");
    assert_eq!(platform.json(&["credential", "revoke", "t-1", id])["revoked"], true);
    assert!(platform.refuses(&["credential", "revoke", "t-1", id]).contains(id));
    refused(&mut platform.command(&["credential", "issue", "t-1"]), 2);
    refused(&mut platform.command(&["credential", "issue", "t-1", "--certificate"]), 2);
}

#[test]
fn a_pre_shared_key_is_printed_once_with_its_identity() {
    let platform = Platform::start();
    platform.says(&["device", "create", "t-1"]);
    let printed = platform.says(&["credential", "issue", "t-1", "--psk"]);
    assert!(printed.starts_with("identity  default/t-1\nkey       "), "{printed}");
    let issued = platform.json(&["credential", "issue", "t-1", "--psk"]);
    let key = issued["preSharedKey"].as_str().expect("a key");
    assert!(key.len() == 32 && !printed.contains(key), "{issued}");
    let listed = platform.json(&["credential", "list", "t-1"]);
    let keys = listed["items"].as_array().expect("items").iter().filter(|item| item["kind"] == "preSharedKey");
    assert!(keys.count() == 2 && !listed.to_string().contains(key), "{listed}");
    refused(&mut platform.command(&["credential", "issue", "t-1", "--psk", "--token"]), 2);
}

#[test]
fn rules_and_policies_are_applied_from_files() {
    let platform = Platform::start();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let example = |name: &str| examples.join(name).display().to_string();
    assert_eq!(platform.says(&["rule", "apply", "-f", &example("hot-rooms.yaml")]), "rule hot-rooms is applied\n");
    assert!(platform.says(&["policy", "apply", "-f", &example("sensor-policy.yaml")]).ends_with("is applied\n"));
    assert!(platform.says(&["rule", "list"]).starts_with("NAME"));
    let rule = platform.json(&["rule", "get", "hot-rooms"]);
    assert_eq!(rule["spec"]["actions"][0]["kafka"]["topic"], "home.hot-rooms");
    let again = platform.file("again.json", &rule.to_string());
    assert_eq!(platform.says(&["rule", "apply", "-f", &again]), "rule hot-rooms is applied\n");
    assert_eq!(platform.says(&["rule", "delete", "hot-rooms"]), "rule hot-rooms is deleted\n");
    let gone = platform.json(&["policy", "delete", "sensor"]);
    assert_eq!(gone, serde_json::json!({"name": "sensor", "deleted": true}));
}

#[test]
fn a_device_with_an_issued_token_publishes_what_its_policy_from_a_file_does_not_deny() {
    let platform = Platform::start();
    let head = |kind: &str, name: &str| {
        format!("apiVersion: drover.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
    };
    let deny = "  statements: [{effect: deny, actions: [publish], resources: [a]}]\n";
    let policy = platform.file("policy.yaml", &(head("Policy", "not-a") + deny));
    assert_eq!(platform.says(&["policy", "apply", "-f", &policy]), "policy not-a is applied\n");
    assert_eq!(platform.says(&["policy", "get", "not-a"]), "NAME   GENERATION\nnot-a  1\n");
    assert_eq!(platform.says(&["policy", "list"]), "NAME     GENERATION\ndefault  1\nnot-a    1\n");
    let denied = serde_json::json!([{"effect": "deny", "actions": ["publish"], "resources": ["a"]}]);
    assert_eq!(platform.json(&["policy", "get", "not-a"])["spec"]["statements"], denied);
    let write = "  sql: SELECT n, topic() AS place FROM '+'\n  actions: [{kafka: {topic: readings}}]\n";
    let rule = platform.file("rule.yaml", &(head("Rule", "all") + write));
    assert_eq!(platform.says(&["rule", "apply", "-f", &rule]), "rule all is applied\n");

    platform.says(&["device", "create", "t-1", "--policy", "default", "--policy", "not-a"]);
    let printed = platform.says(&["credential", "issue", "t-1", "--token"]);
    let token = printed.trim_end();
    assert!(printed.lines().count() == 1 && token.len() >= 20, "{printed}");
    let listed = platform.json(&["credential", "list", "t-1"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "the first came with the device: {listed}");
    assert!(!listed.to_string().contains(token), "a token is printed once: {listed}");
    let mut device = Device::connect(&platform, "t-1", token);
    assert_eq!(device.publish("a", r#"{"n":1}"#), ReasonCode::NotAuthorized);
    assert_eq!(device.publish("b", r#"{"n":2}"#), ReasonCode::Success);

    let mut tail = platform.command(&["tail", "--topic", "readings", "--from", "earliest"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().expect("the executable runs");
    let mut line = String::new();
    BufReader::new(tail.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert!(line.ends_with("  readings  {\"n\":2,\"place\":\"b\"}\n"), "{line}");
    assert!(ends_well_on_an_interrupt(tail));
}

#[test]
fn a_mistake_in_a_file_is_told_by_its_place_and_changes_nothing() {
    let platform = Platform::start();
    let head = "apiVersion: drover.dev/v1alpha1\nkind: Rule\n";
    let body = "spec:\n  sql: SELECT * FROM 'a'\n  actions: [{kafka: {topic: t}}]\n";
    let good = format!("{head}metadata: {{name: good}}\n{body}");
    let unknown = format!("{good}---\n{head}metadata: {{name: bad}}\n{}", body.replace("kafka", "kafak"));
    let unknown = platform.file("unknown.yaml", &unknown);
    assert_eq!(
        platform.refuses(&["rule", "apply", "-f", &unknown]),
        format!(
            "drover: {unknown}: document 2: spec.actions[0].kafak: unknown field `kafak`, expected one of `kafka`, \
             `republish`, `webhook`, `shadow`, `store`, `function`, `notify`, `command`"
        )
    );
    assert_eq!(platform.json(&["rule", "list"]), serde_json::json!({"items": []}));

    let syntax = platform.file("syntax.yaml", "kind: Rule\nmetadata: {name: [x\n");
    assert!(platform.refuses(&["rule", "apply", "-f", &syntax]).starts_with(&format!("drover: {syntax}:3:1: ")));
    let sql = platform.file("sql.yaml", &good.replace("SELECT * FROM 'a'", "SELECT FROM 'a'"));
    let said = platform.refuses(&["rule", "apply", "-f", &sql]);
    assert!(said.starts_with(&format!("drover: {sql}: rule good: spec.sql: line 1, column ")), "{said}");
    assert!(said.contains("expected"), "{said}");
    let said = platform.refuses(&["rule", "apply", "-f", "/nowhere.yaml"]);
    assert!(said.starts_with("drover: /nowhere.yaml: No such file"), "{said}");
    let said = platform.refuses(&["policy", "apply", "-f", &sql]);
    assert!(said.contains(r#"kind: is "Rule", expected "Policy""#), "{said}");
    refused(&mut platform.command(&["rule", "apply"]), 2);
}

#[test]
fn a_platform_that_cannot_be_asked_is_one_line_that_says_what_to_do() {
    let platform = Platform::start();
    let nobody = refused(&mut platform.command(&["device", "list", "--server", "http://127.0.0.1:9"]), 1);
    assert!(nobody.starts_with("drover: no platform answers at http://127.0.0.1:9: "), "{nobody}");
    let wrong = refused(platform.command(&["device", "list"]).env("DROVER_TOKEN", "wrong"), 1);
    assert!(wrong.contains("refuses the token"), "{wrong}");
    let missing = refused(&mut drover(&["device", "list", "--token-file", "/nowhere/admin.token"]), 1);
    assert!(missing.starts_with("drover: cannot read the admin token /nowhere/admin.token: No such file"), "{missing}");
    let tenant = platform.refuses(&["device", "list", "-n", "A B"]);
    assert!(tenant.starts_with("drover: --tenant: tenant contains 'A'"), "{tenant}");
}

#[test]
fn tail_refuses_nonsense_and_ends_well_on_an_interrupt() {
    let platform = Platform::start();
    refused(&mut platform.command(&["tail"]), 2);
    assert!(platform.refuses(&["tail", "a/#/b"]).starts_with("drover: filter: "));
    assert!(platform.refuses(&["tail", "--topic", "drover.telemetry"]).starts_with("drover: topic: "));
    assert!(platform.refuses(&["tail", "--topic", "none"]).contains("no rule of tenant default"));

    let tail = platform.command(&["tail", "#"]).spawn().expect("the executable runs");
    while !platform.up.admin("/metrics").1.contains("drover_gateway_streams 1") {
        std::thread::yield_now();
    }
    assert!(ends_well_on_an_interrupt(tail));
}

fn ends_well_on_an_interrupt(mut child: Child) -> bool {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("not zero");
    kill_process(pid, Signal::INT).expect("our own child");
    child.wait().expect("our own child").success()
}

#[test]
fn rules_are_tried_on_messages_of_the_log() {
    let platform = Platform::start();
    let rule = |sql: &str| {
        let head = "apiVersion: drover.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\n";
        platform.file("r.yaml", &format!("{head}spec:\n  sql: \"{sql}\"\n  actions: [{{kafka: {{topic: t}}}}]\n"))
    };
    let told = platform.json(&["demo", "--devices", "2", "--seconds", "1"]);
    assert_eq!((&told["acknowledged"], &told["rules"][0]["name"]), (&told["published"], &"demo-hot".into()));
    let all = rule("SELECT temperature FROM 'demo/+/climate'");
    let tried = platform.json(&["rule", "test", "-f", &all, "--since", "1h", "--limit", "2"]);
    let tried = tried["items"].as_array().expect("items");
    assert_eq!(tried.len(), 2);
    assert!(
        tried.iter().all(|verdict| verdict["outcome"] == "row" && verdict["message"]["device"].is_string()),
        "{tried:?}"
    );
    let first = rule("SELECT temperature FROM 'demo/+/climate' GROUP BY device(), RISING(temperature > -100)");
    let tried = platform.json(&["rule", "test", "-f", &first, "--since", "1h"]);
    assert_eq!(tried["items"].as_array().expect("items").len(), 2, "one row a device: {tried}");

    // By Basic Ingest: the rule is named by the topic, whatever its FROM.
    let policy = "apiVersion: drover.dev/v1alpha1\nkind: Policy\nmetadata: {name: to-r}\nspec:\n  statements:\n";
    let statement = "    - {effect: allow, actions: [publish], resources: [\"$aws/rules/r/#\"]}\n";
    platform.says(&["policy", "apply", "-f", &platform.file("to-r.yaml", &format!("{policy}{statement}"))]);
    let made = platform.json(&["device", "create", "direct", "--policy", "to-r"]);
    let url = format!("http://127.0.0.1:{}/v1/topics/$aws/rules/r/a/b", 8080 + platform.up.offset);
    let token = made["token"].as_str().expect("a token");
    let sent = ureq::post(url).header("authorization", format!("Bearer {token}")).send("{\"temperature\":1}");
    assert_eq!(sent.expect("an answer").status(), 200);
    let direct = rule("SELECT temperature, topic() AS t FROM 'none'");
    let tried = platform.json(&["rule", "test", "-f", &direct, "--since", "1h"]);
    let rows: Vec<&Value> = tried["items"].as_array().expect("items").iter().map(|verdict| &verdict["row"]).collect();
    assert_eq!(rows, [r#"{"temperature":1,"t":"a/b"}"#]);

    assert!(
        platform
            .refuses(&["rule", "test", "-f", &all, "--since", "soon"])
            .starts_with("drover: --since \"soon\" is no span")
    );
    refused(&mut platform.command(&["rule", "test", "-f", &all]), 2);
    refused(&mut platform.command(&["rule", "test", "-f", &all, "--since", "1h", "--topic", "a"]), 2);
}

#[test]
fn what_a_rule_failed_at_goes_through_it_again_once_it_is_mended() {
    let platform = Platform::start();
    let apply = |key: &str| {
        let head = "apiVersion: drover.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\n";
        let spec = "spec:\n  sql: SELECT temperature FROM 'demo/+/climate'\n";
        let action = format!("  actions: [{{kafka: {{topic: t, key: \"${{{key}}}\"}}}}]\n");
        platform.says(&["rule", "apply", "-f", &platform.file("r.yaml", &format!("{head}{spec}{action}"))])
    };
    apply("nothing");
    platform.says(&["demo", "--devices", "2", "--seconds", "1"]);
    let file = platform.data.path().join("r.yaml").display().to_string();
    let met = platform.json(&["rule", "test", "-f", &file, "--since", "1h", "--limit", "10000"]);
    let failed = met["items"].as_array().expect("items").len() as u64;
    assert!(failed > 0, "{met}");
    let all = failed.to_string();
    while platform.json(&["rule", "get", "r"])["status"]["failed"].as_str() != Some(all.as_str()) {
        std::thread::yield_now();
    }
    apply("temperature");
    let came = platform.json(&["rule", "replay", "r", "--from", "errors"]);
    let count = |name: &str| came[name].as_u64().expect("a count");
    assert_eq!((count("replayed"), count("emitted"), count("failed"), count("skipped")), (failed, failed, 0, 0));
    let told = platform.says(&["rule", "replay", "r", "--since", "1h"]);
    assert!(told.starts_with(&format!("{failed} messages through r: {failed} outputs, 0 failed\n")), "{told}");
    assert_eq!(platform.refuses(&["rule", "replay", "none", "--from", "errors"]), "drover: rule none is not in force");
    refused(&mut platform.command(&["rule", "replay", "r"]), 2);
    refused(&mut platform.command(&["rule", "replay", "r", "--from", "log"]), 2);
}

#[test]
fn rules_are_evaluated_without_a_platform() {
    let mut child = drover(&["rule", "eval", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the executable runs");
    let questions = "{\"sql\": \"SELECT t FROM 'a/+' WHERE t > 1\", \"topic\": \"a/b\", \"payload\": {\"t\": 2}}\nx\n";
    child.stdin.take().expect("piped").write_all(questions.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, r#"{"out":{"t":2}}"#));
    assert!(lines[1].starts_with(r#"{"error":"#) && output.status.success(), "{text}");
}

#[test]
fn a_demo_that_checks_is_done_when_a_message_has_come_back_through_a_rule() {
    let told = Platform::start().json(&["demo", "--check", "--seconds", "60", "-n", "checked"]);
    assert_eq!((&told["device"], &told["rule"]), (&"demo-thermostat-1".into(), &"demo-check".into()));
}

#[test]
fn a_demo_that_checks_fails_where_no_rule_is_carried_out() {
    let data = tempfile::tempdir().expect("a directory");
    let up = Up::start_at(free_offset(), drover(&["up", "--disable", "rules", "--data"]).arg(data.path()));
    let said = Platform { up, data }.refuses(&["demo", "--check", "--seconds", "2"]);
    let expected = "no message of demo-thermostat-1 has come back through rule demo-check within 2 s; its status: {";
    assert!(said.contains(expected), "{said}");
}
