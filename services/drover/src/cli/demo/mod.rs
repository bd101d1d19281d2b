//! `drover demo`: a small simulated fleet and two rules, to see the platform work.
//!
//! Made again on each run: devices that are there get a new token in place of their old ones, rules are replaced.

mod check;
mod fleet;
mod thermostat;

use std::io::Write;

use clap::{Args, value_parser};
use drover_types::ErrorCode;
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Connection;
use super::output::Format;
use super::snippet::{Access, access};
use fleet::Fleet;

/// Most devices of a demo: each has a connection of its own.
const DEVICES_MAX: u64 = 1_000;

/// Runs a small simulated fleet with two rules.
#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    connection: Connection,
    /// How many thermostats
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=DEVICES_MAX))]
    devices: u64,
    /// For how long they publish, one message a second each
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only check that a message goes its whole way: one thermostat publishes until what a rule makes of it comes back to it; fails if
    /// nothing does within --seconds
    #[arg(long, conflicts_with = "devices")]
    check: bool,
}

impl Demo {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let (client, format) = (self.connection.open()?, self.connection.output);
        if self.check {
            return check::run(&client, format, self.seconds, out);
        }
        let rules = rules(client.tenant.as_str());
        for rule in &rules {
            client.put(&["rules", name(rule)], rule)?;
        }
        let fleet: Vec<Access> = (1..=self.devices).map(|n| device(&client, n)).collect::<anyhow::Result<_>>()?;
        if format == Format::Table {
            self.introduce(&rules, out)?;
        }
        let told = Fleet { devices: fleet, seconds: self.seconds }.run()?;
        let mut shown = Vec::new();
        for rule in &rules {
            let matched = client.get(&["rules", name(rule)])?["status"]["matched"].take();
            shown.push(json!({"name": name(rule), "matched": matched}));
        }
        let report = json!({"published": told.published, "acknowledged": told.acknowledged, "rules": &shown});
        format.object(out, &report, |out| {
            writeln!(out, "published {}, acknowledged {}", told.published, told.acknowledged)?;
            shown.iter().try_for_each(|rule| {
                let matched = rule["matched"].as_str().unwrap_or("not known yet");
                writeln!(
                    out,
                    "rule {} matched: {matched} since the platform started",
                    rule["name"].as_str().unwrap_or_default()
                )
            })
        })
    }

    /// What is going to happen, and how to watch it.
    fn introduce(&self, rules: &[Value], out: &mut dyn Write) -> anyhow::Result<()> {
        for rule in rules {
            writeln!(out, "rule {}: {}", name(rule), rule["spec"]["sql"].as_str().unwrap_or_default())?;
        }
        writeln!(out, "{} thermostats publish to demo/NAME/climate for {} s, at QoS 1", self.devices, self.seconds)?;
        writeln!(out, "watch them in another terminal:")?;
        writeln!(out, "  drover tail 'demo/#'")?;
        for topic in rules.iter().filter_map(|rule| rule["spec"]["actions"][0]["kafka"]["topic"].as_str()) {
            writeln!(out, "  drover tail --topic {topic}")?;
        }
        Ok(out.flush()?)
    }
}

fn name(rule: &Value) -> &str {
    rule["metadata"]["name"].as_str().unwrap_or_default()
}

/// Two rules: one filters and answers, one looks into nested fields.
fn rules(tenant: &str) -> [Value; 2] {
    let topic = |name: &str| format!("{tenant}.demo.{name}");
    let hot = json!({
        "metadata": {"name": "demo-hot"},
        "spec": {
            "sql": "SELECT temperature, topic(2) AS device, timestamp() AS at FROM 'demo/+/climate' WHERE temperature > 24",
            "actions": [
                {"kafka": {"topic": topic("hot"), "key": "${device}"}},
                {"republish": {"topic": "demo/alerts/${device}", "qos": 1}},
            ],
        },
    });
    let low_battery = json!({
        "metadata": {"name": "demo-low-battery"},
        "spec": {
            "sql": "SELECT battery.percent AS percent, topic(2) AS device FROM 'demo/+/climate' WHERE battery.percent < 20",
            "actions": [{"kafka": {"topic": topic("low-battery"), "key": "${device}"}}],
        },
    });
    [hot, low_battery]
}

/// Thermostat number `n` with a token: a new device, or the one that is there with its credentials replaced.
fn device(client: &Client, n: u64) -> anyhow::Result<Access> {
    let name = format!("demo-thermostat-{n}");
    let body = json!({"metadata": {"name": name, "labels": {"demo": "true"}}, "spec": {"type": "thermostat"}});
    match client.post(&["devices"], &body) {
        Ok(created) => access(&created),
        Err(error) if error.is(ErrorCode::AlreadyExists) => {
            let former = client.get(&["devices", &name, "credentials"])?;
            for id in former["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()) {
                client.delete(&["devices", &name, "credentials", id])?;
            }
            access(&client.post(&["devices", &name, "credentials"], &json!({"kind": "token"}))?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_gateway::declared::Declared;
    use drover_rule_sql::Rule;
    use drover_types::object::RuleSpec;

    #[test]
    fn the_rules_compile_and_write_to_the_tenants_topics() {
        for tenant in [drover_types::DEFAULT_TENANT, "home"] {
            for rule in rules(tenant) {
                let rule = Declared::<RuleSpec>::read(rule).expect("a rule");
                rule.spec.check().expect("sound");
                Rule::compile(&rule.spec.sql).expect("compiles");
                let kafka = rule.spec.actions[0].kafka.as_ref().expect("writes to Kafka");
                assert!(kafka.topic.starts_with(&format!("{tenant}.demo.")), "{}", kafka.topic);
            }
        }
    }
}
