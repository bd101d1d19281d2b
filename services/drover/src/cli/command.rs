//! `drover command`: sends commands to devices and shows what became of them.

use std::io::{self, Read as _, Write};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use drover_types::command::CommandKey;
use serde_json::Value;

use super::connection::Connection;
use super::output::{Column, table};

const COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("NAME", "/name"),
    ("STATUS", "/status"),
    ("CODE", "/statusCode"),
    ("RESPONSE", "/response"),
    ("CREATED", "/createdAt"),
];
/// Longest payload that is read, in bytes; the service's own limit is below.
const PAYLOAD_BYTES_MAX: u64 = 1024 * 1024;
/// What stands for standard input.
const STDIN: &str = "-";

/// Commands to devices.
#[derive(Debug, Args)]
pub struct Command {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sends a command to a device; with --wait shows its answer
    Send(Order),
    /// Shows the commands of a device, the newest first
    List { device: String },
    /// Shows one command
    Get { device: String, id: String },
}

#[derive(Debug, Args)]
struct Order {
    device: String,
    /// What the device is to do
    name: String,
    /// What it needs for that, JSON; `-` is standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    payload: Option<String>,
    /// How long the device has: 30s, 12h or 7d for example; without, 60s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<drover_host::Duration>,
    /// Waits for the answer, so long at most: 10s for example, up to 60s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<drover_host::Duration>,
    /// A name of your own for the command: sent again under it, as after no answer, it is the same command, sent once
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<CommandKey>,
}

/// Why a command that was waited for has not succeeded. Each has its own exit code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    #[error("the device has rejected the command: {0}")]
    Rejected(u64),
    #[error("the device has failed at the command: {0}")]
    Failed(u64),
    #[error("the command has timed out")]
    TimedOut,
    #[error("the command is not finished yet")]
    Open,
}

impl NotDone {
    /// The exit code; 1 and 2 are those of all commands.
    pub fn code(&self) -> u8 {
        match self {
            Self::Rejected(_) => 3,
            Self::Failed(_) => 4,
            Self::TimedOut => 5,
            Self::Open => 6,
        }
    }

    /// What a command as REST shows it has come to.
    fn of(command: &Value) -> Option<Self> {
        let code = command["statusCode"].as_u64().unwrap_or_default();
        match command["status"].as_str() {
            Some("succeeded") => None,
            Some("rejected") => Some(Self::Rejected(code)),
            Some("failed") => Some(Self::Failed(code)),
            Some("timed_out") => Some(Self::TimedOut),
            Some(_) | None => Some(Self::Open),
        }
    }
}

fn key(text: &str) -> Result<CommandKey, String> {
    CommandKey::new(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<drover_host::Duration, String> {
    text.parse().map_err(|error: drover_host::InvalidQuantity| error.to_string())
}

impl Command {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let to = &self.connection;
        match self.command {
            What::Send(order) => order.send(to, out),
            What::List { device } => {
                let commands = to.open()?.list(&["devices", &device, "commands"], true)?;
                to.output.list(out, &commands, &COLUMNS)
            }
            What::Get { device, id } => {
                let command = to.open()?.get(&["devices", &device, "commands", &id])?;
                to.output.list(out, &command, &COLUMNS)
            }
        }
    }
}

impl Order {
    /// Sends it, shows what has come of it, and is an error where that was waited for and is no success.
    fn send(&self, to: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
        let json = self.json(&mut io::stdin())?;
        let path = ["devices", &self.device, "commands"];
        let wait = self.wait.map(|wait| wait.to_string());
        let query: Vec<_> = wait.iter().map(|wait| ("wait", wait.as_str())).collect();
        let key = self.idempotency_key.as_ref().map(CommandKey::as_str);
        let patience = self.wait.map_or(Duration::ZERO, drover_host::Duration::as_std);
        let sent = to.open()?.post_waiting(&path, &query, json, key, patience)?;
        to.output.object(out, &sent, |out| out.write_all(table(std::slice::from_ref(&sent), &COLUMNS).as_bytes()))?;
        let not_done = self.wait.and_then(|_| NotDone::of(&sent));
        not_done.map_or(Ok(()), |not_done| Err(not_done.into()))
    }

    /// The order as the server takes it; the payload stands in it as it was written.
    fn json(&self, stdin: &mut dyn io::Read) -> anyhow::Result<String> {
        let mut members = vec![format!(r#""name":{}"#, Value::from(self.name.as_str()))];
        let read;
        let payload = match self.payload.as_deref() {
            Some(STDIN) => {
                read = text(stdin)?;
                Some(read.as_str())
            }
            given => given,
        };
        if let Some(payload) = payload {
            serde_json::from_str::<serde::de::IgnoredAny>(payload).context("--payload: is not JSON")?;
            members.push(format!(r#""payload":{payload}"#));
        }
        members.extend(self.timeout.map(|timeout| format!(r#""timeout":"{timeout}""#)));
        Ok(format!("{{{}}}", members.join(",")))
    }
}

/// All of standard input.
fn text(stdin: &mut dyn io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    stdin.take(PAYLOAD_BYTES_MAX + 1).read_to_string(&mut text).context("standard input")?;
    anyhow::ensure!(text.len() as u64 <= PAYLOAD_BYTES_MAX, "standard input is longer than {PAYLOAD_BYTES_MAX} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    fn send(arguments: &[&str]) -> Result<Order, clap::Error> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            order: Order,
        }
        let line = ["drover", "lamp", "fan"].iter().chain(arguments);
        Line::try_parse_from(line).map(|line| line.order)
    }

    #[test]
    fn an_order_has_what_was_given_as_it_was_written() {
        let order = |arguments: &[&str], stdin: &str| {
            send(arguments).expect("right").json(&mut stdin.as_bytes()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(order(&[], "").as_deref(), Ok(r#"{"name":"fan"}"#));
        let given = order(&["--payload", r#"{"t": 21.50}"#, "--timeout", "30s"], "");
        assert_eq!(given.as_deref(), Ok(r#"{"name":"fan","payload":{"t": 21.50},"timeout":"30s"}"#));
        assert_eq!(order(&["--payload", "-"], "[1]\n").as_deref(), Ok("{\"name\":\"fan\",\"payload\":[1]\n}"));
        let refused = order(&["--payload", "{"], "").expect_err("refused");
        assert!(refused.starts_with("--payload: is not JSON: "), "{refused}");
    }

    #[test]
    fn a_time_without_its_unit_is_wrong_usage() {
        assert!(send(&["--timeout", "30"]).is_err() && send(&["--wait", "soon"]).is_err());
        assert!(send(&["--wait", "10s"]).is_ok());
        assert!(send(&["--idempotency-key", "a b"]).is_err() && send(&["--idempotency-key", "order-7"]).is_ok());
    }

    #[test]
    fn what_a_command_came_to_has_a_code_of_its_own() {
        let code = |status: &str| NotDone::of(&json!({"status": status, "statusCode": 404})).map_or(0, |is| is.code());
        let statuses = ["succeeded", "rejected", "failed", "timed_out", "queued", "sent", "in_progress"];
        assert_eq!(statuses.map(code), [0, 3, 4, 5, 6, 6, 6]);
        let rejected = NotDone::of(&json!({"status": "rejected", "statusCode": 404})).expect("no success");
        assert_eq!(rejected.to_string(), "the device has rejected the command: 404");
    }
}
