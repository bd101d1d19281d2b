//! Functions on a whole platform, where they are called in processes of their own.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::platform::Platform;

/// Within one built-in function of the engine, which never looks at its clock.
const STUCK: &str = "[].reverse.call({length: 2 ** 53 - 1});";
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn function(name: &str, source: &str, examples: &Value) -> String {
    json!({"apiVersion": "drover.dev/v1alpha1", "kind": "Function", "metadata": {"name": name},
        "spec": {"source": source, "examples": examples}})
    .to_string()
}

/// Status and body of a device's request.
fn post(platform: &Platform, token: &str, path: &str, body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("http://127.0.0.1:{}{path}", 8080 + platform.up.offset);
    let request = agent.post(url).header("authorization", format!("Bearer {token}"));
    let mut response = request.send(body).expect("an answer");
    (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
}

#[test]
fn rules_and_adapters_go_on_beside_a_function_that_is_stuck() {
    let platform = Platform::start();
    let source = format!(
        "function main(body) {{ if (body === 'stuck') {{ {STUCK} }} return {{topic: 'in', payload: {{k: body}}}}; }}"
    );
    let adapter = platform.file("adapter.json", &function("adapter", &source, &json!([])));
    let source = format!("function main(k) {{ if (k === 'evil') {{ {STUCK} }} return k.length; }}");
    let measure = platform.file("measure.json", &function("measure", &source, &json!([{"input": "ab", "output": 2}])));
    platform.says(&["function", "put", "-f", &adapter]);
    platform.says(&["function", "put", "-f", &measure]);
    let rule = json!({"apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "measured"}, "spec": {
        "sql": "SELECT measure(k) AS n FROM 'in'", "actions": [{"kafka": {"topic": "home.measured"}}]}});
    let rule = platform.file("rule.json", &rule.to_string());
    assert_eq!(platform.says(&["rule", "apply", "-f", &rule]), "rule measured is applied\n");
    let tried = platform.says(&[
        "rule",
        "test",
        "-f",
        &rule,
        "--function",
        &measure,
        "--topic",
        "in",
        "--payload",
        r#"{"k": "abc"}"#,
    ]);
    assert!(tried.starts_with("measured: {\"n\":3}\n"), "{tried}");

    let token = platform.json(&["device", "create", "hook"])["token"].as_str().expect("a token").to_owned();
    let (status, refused) = post(&platform, &token, "/v1/functions/adapter", "stuck");
    assert!(status == 400 && refused.contains("was ended"), "{status} {refused}");
    for body in ["one", "evil", "three"] {
        let (status, answer) = post(&platform, &token, "/v1/functions/adapter", body);
        assert!(status == 200 && answer.starts_with(r#"{"ids":[""#), "{status} {answer}");
    }
    let counts = || {
        let status = platform.json(&["rule", "get", "measured"])["status"].clone();
        (status["matched"].clone(), status["failed"].clone(), status["lastError"]["message"].clone())
    };
    while counts().0 != "2" || counts().1 != "1" {
        std::thread::park_timeout(LOOK_AGAIN);
    }
    let error = counts().2;
    assert!(
        error.as_str().is_some_and(|error| error.starts_with("measure: ") && error.ends_with("was ended")),
        "{error}"
    );

    let unknown = std::fs::read_to_string(&rule).expect("there").replace("measure(k)", "measures(k)");
    let unknown = platform.file("unknown.json", &unknown);
    assert!(
        platform.refuses(&["rule", "apply", "-f", &unknown]).contains("line 1, column 8: unknown function measures")
    );
}

#[test]
fn functions_are_put_tested_and_called_in_a_process_of_their_own() {
    let platform = Platform::start();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/decode-climate.yaml");
    let example = example.display().to_string();
    let right = "decode-climate: example 1 (a reading): ok\ndecode-climate: example 2: ok\n";
    assert_eq!(platform.says(&["function", "test", "-f", &example]), right);
    assert_eq!(platform.says(&["function", "put", "-f", &example]), "function decode-climate is applied\n");
    assert!(platform.says(&["function", "list"]).starts_with("NAME"));
    assert_eq!(platform.says(&["function", "test", "decode-climate"]), right);

    let mut wrong = platform.json(&["function", "get", "decode-climate"]);
    wrong["spec"]["examples"][1]["output"] = Value::Null;
    let wrong = platform.file("wrong.json", &wrong.to_string());
    assert!(platform.refuses(&["function", "put", "-f", &wrong]).contains("spec.examples[1]: answered "));
    assert!(platform.refuses(&["function", "test", "-f", &wrong]).contains("1 not as expected"));
    let stuck = function("stuck", &format!("function main() {{ {STUCK} }}"), &json!([{"input": 1, "output": 1}]));
    let stuck = platform.file("stuck.json", &stuck);
    assert!(platform.refuses(&["function", "put", "-f", &stuck]).contains("was ended"));
    assert_eq!(platform.says(&["function", "put", "-f", &example]), "function decode-climate is applied\n");
    assert_eq!(platform.says(&["function", "delete", "decode-climate"]), "function decode-climate is deleted\n");
}
