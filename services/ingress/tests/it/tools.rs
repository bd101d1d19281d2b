//! Clients that others have written.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::stage::Stage;

const MOSQUITTO_PUB: &str = "/usr/bin/mosquitto_pub";

#[tokio::test]
async fn a_thousand_lines_of_mosquitto_pub_are_in_the_log_in_order() {
    if !std::path::Path::new(MOSQUITTO_PUB).exists() {
        println!("NOT RUN: {MOSQUITTO_PUB} is not installed");
        return;
    }
    for version in ["mqttv311", "mqttv5"] {
        let stage = Stage::new().await;
        let port = stage.mqtt.port().to_string();
        let lines: Vec<String> = (0..1_000).map(|n| format!("line {n}")).collect();
        let input = lines.join("\n") + "\n";
        let publish = tokio::task::spawn_blocking(move || {
            let mut publisher = Command::new(MOSQUITTO_PUB)
                .args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-t", "lines", "-q", "1", "-l", "-i", "lines"])
                .stdin(Stdio::piped())
                .spawn()
                .expect("mosquitto_pub starts");
            let mut stdin = publisher.stdin.take().expect("piped");
            stdin.write_all(input.as_bytes()).expect("taken");
            drop(stdin);
            publisher.wait().expect("ended")
        });
        assert!(publish.await.expect("no panic").success());
        assert_eq!(stage.payloads().await, lines);
    }
}
