//! `drover token`.

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use drover_host::Duration;
use serde_json::json;

use super::connection::Connection;
use super::output::Column;

const COLUMNS: [Column; 5] = [
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("CREATED", "/creationTimestamp"),
    ("EXPIRES", "/expirationTimestamp"),
    ("CREATED-BY", "/createdBy"),
];

/// API tokens: who may use the REST interface, the console and these commands.
#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token for one tenant; it is printed this once
    Create {
        name: String,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// When it ends, from now: 12h or 90d for example; without, it does not
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        expires: Option<u64>,
    },
    /// Shows the tokens of the tenant, without their secrets
    List,
    /// Deletes a token; who holds it is refused from now on
    Delete { name: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Reads
    Viewer,
    /// Reads and changes: devices with their credentials and shadows, policies, rules
    Editor,
    /// All of that, and the tokens and the audit trail of the tenant
    Admin,
}

/// Whole seconds of a duration with its unit.
fn seconds(text: &str) -> Result<u64, String> {
    let duration: Duration = text.parse().map_err(|error: drover_host::InvalidQuantity| error.to_string())?;
    match duration.as_millis() / 1_000 {
        0 => Err(format!("{text} is less than a second")),
        seconds => Ok(seconds),
    }
}

impl Token {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let to = &self.connection;
        match self.command {
            TokenCommand::Create { name, role, expires } => {
                let role = role.to_possible_value().expect("no role is hidden");
                let mut order = json!({"name": name, "role": role.get_name()});
                if let Some(seconds) = expires {
                    order["durationS"] = seconds.into();
                }
                let made = to.open()?.post(&["tokens"], &order)?;
                let token = made["token"].as_str().context("the answer has no token")?.to_owned();
                to.output.object(out, &made, |out| {
                    eprintln!("this token is not shown again; commands take it from DROVER_TOKEN");
                    writeln!(out, "{token}")
                })
            }
            TokenCommand::List => to.output.list(out, &to.open()?.list(&["tokens"], true)?, &COLUMNS),
            TokenCommand::Delete { name } => {
                let deleted = to.open()?.delete(&["tokens", &name])?;
                let told = json!({"name": name, "deleted": true});
                to.output.gone(out, &format!("token {name} is deleted"), told, &deleted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_a_unit_and_is_at_least_a_second_away() {
        assert_eq!((seconds("90d"), seconds("1s")), (Ok(90 * 24 * 3_600), Ok(1)));
        for wrong in ["90", "", "999ms", "0s", "90 days"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
