//! `drover query` over what devices have sent and what the registry knows.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::platform::Platform;

/// How long storage may be behind what was acknowledged.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two devices with labels, and one that is registered no more; each has sent one message.
fn with_three_devices() -> Platform {
    let platform = Platform::start();
    let url = format!("http://127.0.0.1:{}/v1/topics/sensors", 8080 + platform.up.offset);
    let devices: [(&[&str], u8); 3] = [
        (&["t-1", "--type", "thermo", "--label", "room=kitchen"], 21),
        (&["t-2", "--label", "room=hall", "--label", "type=old"], 19),
        (&["gone"], 30),
    ];
    for (device, temperature) in devices {
        let made = platform.json(&[&["device", "create"], device].concat());
        let token = made["token"].as_str().expect("a token");
        let message = json!({"temperature": temperature}).to_string();
        let sent = ureq::post(&url).header("authorization", format!("Bearer {token}")).send(message);
        assert_eq!(sent.expect("answered").status(), 200);
    }
    platform.says(&["device", "delete", "gone"]);
    let began = Instant::now();
    while platform.json(&["query", "SELECT count(*) AS n FROM points"])["rows"] != json!([{"n": 3}]) {
        // A process of its own each time: pause enough.
        assert!(began.elapsed() < PATIENCE, "three points are expected");
    }
    platform
}

#[test]
fn points_are_grouped_by_the_labels_of_their_devices() {
    let platform = with_three_devices();
    let sql = "SELECT room, type, \"label:type\" AS old, avg(double) AS mean FROM points JOIN devices USING (device) \
        WHERE field = 'temperature' GROUP BY 1, 2, 3 ORDER BY room";
    let found = platform.json(&["query", sql]);
    let expected = [
        json!({"room": "hall", "type": null, "old": "old", "mean": 19.0}),
        json!({"room": "kitchen", "type": "thermo", "old": null, "mean": 21.0}),
    ];
    assert_eq!(found["rows"], Value::from(expected.to_vec()));
    let names: Vec<&str> =
        found["columns"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["room", "type", "old", "mean"]);
    assert_eq!(found["truncated"], false);
}

#[test]
fn people_get_a_table_and_a_mistake_is_one_line() {
    let platform = with_three_devices();
    let table = platform.says(&["query", "SELECT device, double AS t, text FROM points ORDER BY t DESC"]);
    assert_eq!(table, "device  t     text\ngone    30.0  -\nt-1     21.0  -\nt-2     19.0  -\n");
    let line = platform.refuses(&["query", "SELECT temperature FROM points"]);
    assert!(line.starts_with("drover: sql") && line.contains("temperature"), "{line}");
    let line = platform.refuses(&["query", "DELETE FROM points"]);
    assert!(line.starts_with("drover: sql"), "{line}");
    let other = platform.json(&["query", "-n", "home", "SELECT * FROM points"]);
    assert_eq!(other["rows"], json!([]));
}
