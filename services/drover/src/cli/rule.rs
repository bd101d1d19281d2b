//! `drover rule`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use drover_types::object::RuleSpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::output::Column;
use super::rule_eval;
use super::rule_replay::RuleReplay;
use super::rule_test::RuleTest;

const COLUMNS: [Column; 7] = [
    ("NAME", "/metadata/name"),
    ("MATCHED", "/status/matched"),
    ("FAILED", "/status/failed"),
    ("LAG", "/status/lag"),
    ("CONDITION", "/status/conditions/0/reason"),
    ("MESSAGE", "/status/conditions/0/message"),
    ("LAST ERROR", "/status/lastError/message"),
];

/// Rules: SQL over messages and what happens with its rows.
#[derive(Debug, Args)]
pub struct Rule {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: RuleCommand,
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    #[command(flatten)]
    Object(ObjectCommand),
    /// Shows what rules of a file would do with one message, and why they would not; or with those of the log
    Test(RuleTest),
    /// Puts messages through a rule again: its dead letters, or those of the log. Outputs keep their ids
    Replay(RuleReplay),
    /// Evaluates SQL over messages without a platform: a JSON line in, a JSON line out
    Eval {
        /// Reads lines `{"sql", "topic", "payload" | "raw_b64", "ctx": {"clientId", "timestamp", "shadows", "mqtt5", "userProperties"}}`
        #[arg(long, required = true)]
        stdin: bool,
    },
}

impl Rule {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.command {
            RuleCommand::Object(command) => command.run::<RuleSpec>(&self.connection, &COLUMNS, out),
            RuleCommand::Test(test) => test.run(&self.connection, out),
            RuleCommand::Replay(replay) => replay.run(&self.connection, out),
            RuleCommand::Eval { stdin: _ } => rule_eval::lines(&mut io::stdin().lock(), out),
        }
    }
}
