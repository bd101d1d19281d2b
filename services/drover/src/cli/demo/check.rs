//! `drover demo --check`: one message on its whole way, through ingress, log and rules, and back by MQTT.
//!
//! Its rule writes to no topic of Kafka, so that it can be in force where those are made by others.

use std::io::Write;

use anyhow::bail;
use serde_json::{Value, json};

use super::{device, fleet, name};
use crate::cli::client::Client;
use crate::cli::output::Format;

/// Publishes for `seconds` at most; the error tells the status of the rule.
pub fn run(client: &Client, format: Format, seconds: u64, out: &mut dyn Write) -> anyhow::Result<()> {
    let rule = rule();
    let rule_name = name(&rule);
    client.put(&["rules", rule_name], &rule)?;
    let access = device(client, 1)?;
    let device = access.device.clone();
    if !fleet::comes_back(access, &format!("demo/back/{device}"), seconds)? {
        let status = client.get(&["rules", rule_name])?["status"].take();
        bail!("no message of {device} has come back through rule {rule_name} within {seconds} s; its status: {status}");
    }
    let report = json!({"device": device, "rule": rule_name});
    format.object(out, &report, |out| writeln!(out, "a message of {device} has come back through rule {rule_name}"))
}

/// It answers every reading.
fn rule() -> Value {
    json!({
        "metadata": {"name": "demo-check"},
        "spec": {
            "sql": "SELECT temperature, topic(2) AS device FROM 'demo/+/climate'",
            "actions": [{"republish": {"topic": "demo/back/${device}", "qos": 1}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_gateway::declared::Declared;
    use drover_rule_sql::Rule;
    use drover_types::object::RuleSpec;

    #[test]
    fn the_rule_compiles() {
        let rule = Declared::<RuleSpec>::read(rule()).expect("a rule");
        rule.spec.check().expect("sound");
        Rule::compile(&rule.spec.sql).expect("compiles");
    }
}
