//! `drover tail`: messages as they come, one line each.

use std::io::{self, BufRead, BufReader, Write};

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::connection::Connection;
use super::output::{Format, plain};
use super::sse::{self, SentEvent};

/// Shows messages as they come.
#[derive(Debug, Args)]
pub struct Tail {
    #[command(flatten)]
    connection: Connection,
    /// MQTT filter of the messages to show, 'sensors/+/climate' for example
    #[arg(required_unless_present = "topic")]
    filter: Option<String>,
    /// Kafka topic to show instead: one that a rule of the tenant writes to
    #[arg(long, conflicts_with = "filter")]
    topic: Option<String>,
    /// Where to begin: earliest, now, or an ISO 8601 time
    #[arg(long, default_value = "now", value_name = "PLACE")]
    from: String,
}

impl Tail {
    /// Prints until the stream ends, Ctrl-C, or nobody reads what is printed.
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let done = runtime.block_on(async {
            let printing = tokio::task::spawn_blocking(move || self.print(&mut io::stdout()));
            tokio::select! {
                printed = printing => printed.context("printing panicked")?,
                interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
            }
        });
        // The printing thread may still wait for the network; the process does not wait for it.
        runtime.shutdown_background();
        done
    }

    fn print(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let selection = match (&self.filter, &self.topic) {
            (Some(filter), _) => ("filter", filter.as_str()),
            (None, topic) => ("topic", topic.as_deref().unwrap_or_default()),
        };
        let stream = self.connection.open()?.stream(&[selection, ("from", &self.from)])?;
        print_events(&mut BufReader::new(stream), self.connection.output, out)?;
        anyhow::bail!("the platform ended the stream")
    }
}

fn print_events(events: &mut impl BufRead, format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
    while let Some(SentEvent { name, data }) = sse::next(events).context("the stream broke off")? {
        let data: Value = serde_json::from_str(&data).context("the stream is not JSON; check --server")?;
        match name.as_str() {
            "message" => match format {
                Format::Table => writeln!(out, "{}", line(&data))?,
                Format::Json => writeln!(out, "{data}")?,
                Format::Yaml => write!(out, "---\n{}", serde_yaml_ng::to_string(&data)?)?,
            },
            "dropped" => eprintln!("drover: {} records were left out ({})", data["records"], data["reason"]),
            "error" => anyhow::bail!("the stream ended: {}", data["error"]["message"].as_str().unwrap_or("no reason")),
            // Events of a newer server.
            _ => {}
        }
        out.flush()?;
    }
    Ok(())
}

/// Time, device (or key), topic, payload.
fn line(message: &Value) -> String {
    let text = |name: &str| message[name].as_str();
    let who = text("device").or(text("key")).unwrap_or("-");
    let payload = match text("payloadBase64") {
        Some(base64) => format!("base64:{base64}"),
        None => plain(text("payload").unwrap_or("-")),
    };
    format!("{}  {}  {}  {payload}", text("time").unwrap_or("-"), plain(who), plain(text("topic").unwrap_or("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, events: &str) -> (String, anyhow::Result<()>) {
        let mut out = Vec::new();
        let done = print_events(&mut events.as_bytes(), format, &mut out);
        (String::from_utf8(out).expect("text"), done)
    }

    const MESSAGE: &str =
        "event: message\ndata: {\"time\":\"T\",\"topic\":\"a/b\",\"device\":\"d\",\"payload\":\"{\\n}\"}\n\n";

    #[test]
    fn a_message_is_one_line_whatever_its_payload_holds() {
        assert_eq!(printed(Format::Table, MESSAGE).0, "T  d  a/b  {\\n}\n");
        let binary =
            "event: message\ndata: {\"time\":\"T\",\"topic\":\"t\",\"key\":\"k\",\"payloadBase64\":\"/w==\"}\n\n";
        assert_eq!(printed(Format::Table, binary).0, "T  k  t  base64:/w==\n");
        assert_eq!(printed(Format::Json, MESSAGE).0.lines().count(), 1);
    }

    #[test]
    fn an_error_of_the_stream_ends_it_with_its_message() {
        let events = format!("{MESSAGE}event: error\ndata: {{\"error\":{{\"message\":\"the log is gone\"}}}}\n\n");
        let (text, done) = printed(Format::Table, &events);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(done.expect_err("failed").to_string(), "the stream ended: the log is gone");
    }
}
