//! Live messages of separate processes: by `drover tail`, and as server-sent events of the gateway.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::{Held, Processes, executable};
use serde_json::Value;

/// How long the events asked for may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers of what a device sent, from `{"device": …, "n": …}` in messages, in their order.
fn numbers(messages: &[Value], device: &str) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for message in messages {
        let row: Value = serde_json::from_str(message["payload"].as_str().context("a payload")?)?;
        if row["device"] == device {
            numbers.push(row["n"].as_u64().context("a number")?);
        }
    }
    Ok(numbers)
}

/// Numbers of a device in what `drover tail` prints with these arguments, once there are `count`.
pub fn tailed(processes: &mut Processes, arguments: &[&str], device: &str, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut command = Command::new(executable()?);
    command.arg("tail").args(arguments).args(["-o", "json"]);
    command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", processes.port(8080)));
    command.env("DROVER_TOKEN_FILE", processes.file("admin.token"));
    let mut tail = Held::start(&command, processes.file("tail.out"))?;
    let mut seen = Vec::new();
    processes.until("shown by drover tail", |_| {
        let said = tail.said();
        let ended = tail.ended()?;
        ensure!(ended.is_none(), "drover tail ended with {ended:?}: {said}");
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let messages = whole.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
        seen = numbers(&messages.with_context(|| said.clone())?, device)?;
        Ok(seen.len() >= count)
    })?;
    Ok(seen)
}

/// Numbers of a device in the first `count` messages of a stream of the gateway.
pub fn streamed(processes: &Processes, query: &str, device: &str, count: usize) -> anyhow::Result<Vec<u64>> {
    let token = std::fs::read_to_string(processes.file("admin.token"))?;
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let request = agent.get(format!("http://127.0.0.1:{}/api/v1/stream?{query}", processes.port(8080)));
    let answer = request.header("authorization", format!("Bearer {}", token.trim())).call()?;
    let mut messages = Vec::new();
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        let line = line?;
        // Places and what was left out are events as well, without a payload.
        let event = line.strip_prefix("data:").map(serde_json::from_str::<Value>).transpose()?;
        messages.extend(event.filter(|event| !event["payload"].is_null()));
        if messages.len() >= count {
            return numbers(&messages, device);
        }
    }
    anyhow::bail!("the stream ended after {} messages", messages.len())
}
