//! `drover rule replay`: messages through a rule again, part by part, with the progress on standard error.

use std::io::{self, Write};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use drover_host::SystemClock;
use drover_types::Clock;
use serde_json::{Value, json};

use super::connection::Connection;
use super::rule_log;

/// What goes through again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// Dead letters of the rule
    Errors,
    /// Messages of the log
    Log,
}

/// What is to go through which rule.
#[derive(Debug, Args)]
pub struct RuleReplay {
    name: String,
    /// Dead letters of the rule; else the messages of the log
    #[arg(long, value_enum, required_unless_present = "since")]
    from: Option<Source>,
    /// Only what was received since so long ago, 1h for example
    #[arg(long, required_if_eq("from", "log"))]
    since: Option<String>,
}

/// Numbers of an answer that add up.
const COUNTS: [&str; 5] = ["read", "replayed", "emitted", "failed", "skipped"];

impl RuleReplay {
    /// Puts all of it through, and prints what it came to.
    pub fn run(&self, to: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = to.open()?;
        let mut order = json!({"from": if self.from == Some(Source::Errors) { "errors" } else { "log" }});
        if let Some(since) = &self.since {
            order["since"] = rule_log::beginning(since, SystemClock.now_ms())?.into();
        }
        let mut sums = [0_u64; COUNTS.len()];
        loop {
            let part = client.post(&["rules", &self.name, "replay"], &order)?;
            for (sum, name) in sums.iter_mut().zip(COUNTS) {
                *sum += part[name].as_u64().unwrap_or_default();
            }
            let Some(next) = part["next"].as_str() else { break };
            ensure!(order["cursor"] != next, "the replay does not get on at {next}");
            writeln!(io::stderr(), "{} messages replayed, {} records left", sums[1], part["left"])?;
            order["cursor"] = next.into();
        }
        let total: Value = COUNTS.iter().zip(sums).map(|(name, sum)| ((*name).to_owned(), Value::from(sum))).collect();
        to.output.object(out, &total, |out| {
            let [read, replayed, emitted, failed, skipped] = sums;
            writeln!(out, "{replayed} messages through {}: {emitted} outputs, {failed} failed", self.name)?;
            if skipped > 0 {
                writeln!(out, "{skipped} dead letters cannot go through again")?;
            }
            writeln!(out, "{read} records looked at")
        })
    }
}
