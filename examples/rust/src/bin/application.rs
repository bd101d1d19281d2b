//! Reads what a rule writes to a topic, as server-sent events: `cargo run -p drover-examples --bin application TOPIC`.

use std::env;
use std::io::{BufRead, BufReader};

use anyhow::Context;
use serde_json::Value;

fn main() -> anyhow::Result<()> {
    let topic = env::args().nth(1).context("usage: application TOPIC")?;
    let server = env::var("DROVER_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let token = env::var("DROVER_TOKEN").context("DROVER_TOKEN is an API token or the admin token")?;
    let count: usize = env::var("COUNT").map_or(Ok(0), |text| text.parse())?;

    let stream = ureq::get(format!("{server}/api/v1/stream"))
        .query("topic", &topic)
        .query("from", "earliest")
        .header("authorization", format!("Bearer {token}"))
        .call()?;
    let mut seen = 0;
    for line in BufReader::new(stream.into_body().into_reader()).lines() {
        // An event is its name, its data and an empty line; only messages have a payload.
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let message: Value = serde_json::from_str(data)?;
        let Some(payload) = message["payload"].as_str() else { continue };
        let row: Value = serde_json::from_str(payload)?;
        println!("{}: {} °C", message["key"].as_str().unwrap_or("-"), row["temperature"]);
        seen += 1;
        if seen == count {
            return Ok(());
        }
    }
    anyhow::bail!("the stream ended")
}
