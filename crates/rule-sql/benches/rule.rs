//! Cost of one message: filter and project on 256 bytes of JSON, beside what a program by hand with serde_json takes;
//! and a typical rule over a typical payload, with and without a match.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drover_rule_sql::{Message, Outcome, Rule};
use serde_json::{Value, json};

const PAYLOAD: &[u8] = br#"{"temperature":31.25,"humidity":48,"battery":{"volts":3.71,"percent":88},"firmware":"1.4.2","seq":184467,"tags":["a","b"]}"#;

/// A message of 256 bytes.
const PAYLOAD_256: &[u8; 256] = br#"{"device":"thermostat-000417","site":"plant-7","temperature":31.25,"humidity":48.5,"pressure":1013.25,"battery":{"volts":3.71,"percent":88},"firmware":"1.4.2-rc1","seq":184467,"uptime":86400123,"tags":["roof","north"],"position":{"lat":47.61569,"lon":8.5}}"#;
const FILTER_AND_PROJECT: &str = "SELECT temperature, battery.volts AS volts, topic(2) AS device, timestamp() AS at \
     FROM 'sensors/+/climate' WHERE temperature > 30";

const TOPIC: &str = "sensors/kitchen/climate";
const TIME_MS: u64 = 1_700_000_000_000;

/// The same by hand: the whole payload into a tree, a tree back into text.
fn naive(payload: &[u8]) -> Option<Vec<u8>> {
    let message: Value = serde_json::from_slice(payload).ok()?;
    if message.get("temperature")?.as_f64()? <= 30.0 {
        return None;
    }
    let row = json!({
        "temperature": message["temperature"],
        "volts": message["battery"]["volts"],
        "device": TOPIC.split('/').nth(1)?,
        "at": TIME_MS,
    });
    serde_json::to_vec(&row).ok()
}

fn filter_and_project(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter and project on 256-byte JSON");
    group.throughput(Throughput::Elements(1));
    let rule = Rule::compile(FILTER_AND_PROJECT).expect("valid");
    group.bench_function("rule", |b| {
        b.iter(|| {
            let message = Message::new(TOPIC, Some("c"), TIME_MS, black_box(PAYLOAD_256));
            match rule.evaluate(&message) {
                Outcome::Row(row) => row.to_bytes(),
                Outcome::NoMatch | Outcome::Error(_) => Vec::new(),
            }
        })
    });
    group.bench_function("naive serde_json", |b| b.iter(|| naive(black_box(PAYLOAD_256))));
    group.finish();
}

fn evaluate(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluate");
    group.throughput(Throughput::Elements(1));
    for (name, sql) in [
        (
            "match",
            "SELECT temperature, topic(2) AS device, timestamp() AS at FROM 'sensors/+/climate' WHERE temperature > 30",
        ),
        ("no match", "SELECT temperature FROM 'sensors/+/climate' WHERE temperature > 40 AND battery.volts < 3.5"),
        ("topic only", "SELECT * FROM 'sensors/+/climate' WHERE topic(2) = 'kitchen'"),
    ] {
        let rule = Rule::compile(sql).expect("valid");
        group.bench_function(name, |b| {
            b.iter(|| {
                let message = Message::new(TOPIC, Some("c"), TIME_MS, black_box(PAYLOAD));
                match rule.evaluate(&message) {
                    Outcome::Row(row) => row.to_bytes().len(),
                    Outcome::NoMatch | Outcome::Error(_) => 0,
                }
            })
        });
    }
    group.finish();
}

criterion_group!(benches, filter_and_project, evaluate);
criterion_main!(benches);
