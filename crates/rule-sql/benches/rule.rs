//! Cost of one message: a typical rule over a typical payload, with and without a match.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drover_rule_sql::{Message, Outcome, Rule};

const PAYLOAD: &[u8] = br#"{"temperature":31.25,"humidity":48,"battery":{"volts":3.71,"percent":88},"firmware":"1.4.2","seq":184467,"tags":["a","b"]}"#;

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
                let message = Message::new("sensors/kitchen/climate", Some("c"), 1_700_000_000_000, black_box(PAYLOAD));
                match rule.evaluate(&message) {
                    Outcome::Row(row) => row.to_bytes().len(),
                    Outcome::NoMatch | Outcome::Error(_) => 0,
                }
            })
        });
    }
    group.finish();
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
