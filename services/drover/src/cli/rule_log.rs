//! `drover rule test --since`: what rules of a file would have made of messages that the platform has in its log.
//!
//! Messages come by the stream that `drover tail` reads, and are evaluated here: nothing is written, nothing sent. Rules
//! that group messages begin with no state, one partition by itself as in the engine; what they make a row of by now is
//! told, what is still open is not.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_host::SystemClock;
use drover_rule_sql::{Due, Groups, Message, Origin, Room};
use drover_types::Clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::connection::Connection;
use super::rule_test::Tested;
use super::sse::{self, SentEvent};

/// How long nothing has to come for the log to be at its end.
const QUIET: Duration = Duration::from_secs(2);
/// Messages that wait to be looked at.
const WAITING_MAX: usize = 64;
/// Messages that their topics name a rule for, whatever its filters are.
const BASIC_INGEST: &str = "$aws/rules/#";
/// What rules that group may keep here.
const ROOM: Room = Room { groups: 100_000, bytes: 1 << 28, groups_max: 100_000, bytes_max: 1 << 28 };

/// A message of the log.
struct Logged {
    time_ms: u64,
    topic: String,
    device: String,
    partition: u64,
    offset: u64,
    payload: Vec<u8>,
}

/// Verdicts of all rules on at most `limit` messages that any of them listens to, `since` so long ago.
pub fn verdicts(
    connection: &Connection,
    rules: &[Tested<'_>],
    since: &str,
    limit: usize,
) -> anyhow::Result<Vec<Value>> {
    let now_ms = SystemClock.now_ms();
    let from = beginning(since, now_ms)?;
    let stream = connection.open()?.stream(&[("filter", filter(rules)), ("or", BASIC_INGEST), ("from", &from)])?;
    let messages = read_aside(stream);
    let mut streams: Vec<Stream> = rules.iter().map(Stream::of).collect();
    let (mut verdicts, mut looked_at) = (Vec::new(), 0);
    while looked_at < limit {
        match messages.recv_timeout(QUIET) {
            Ok(logged) => {
                let logged = logged?;
                let mut heard = false;
                streams.iter_mut().for_each(|stream| heard |= stream.take(&logged, &mut verdicts));
                looked_at += usize::from(heard);
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the platform ended the stream"),
        }
    }
    streams.iter_mut().for_each(|stream| stream.tick(now_ms, &mut verdicts));
    Ok(verdicts)
}

/// `1h` before now, as the stream wants it.
pub fn beginning(since: &str, now_ms: u64) -> anyhow::Result<String> {
    let span = since
        .parse::<SignedDuration>()
        .map_err(|error| anyhow::anyhow!("--since {since:?} is no span of time as 30m or 1h: {error}"))?;
    let now = Timestamp::from_millisecond(i64::try_from(now_ms)?)?;
    Ok(now.checked_sub(span).with_context(|| format!("--since {since}"))?.to_string())
}

/// The one filter of all rules, or all messages.
fn filter<'r>(rules: &'r [Tested<'_>]) -> &'r str {
    let mut filters = rules.iter().flat_map(|tested| tested.rule.filters());
    match (filters.next(), filters.next()) {
        (Some(only), None) => only.as_str(),
        (Some(_), Some(_)) | (None, _) => "#",
    }
}

/// Reads the stream in a thread of its own, which ends with it or when nobody listens any more.
fn read_aside(stream: Box<dyn Read + Send>) -> Receiver<anyhow::Result<Logged>> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    std::thread::spawn(move || {
        let mut events = BufReader::new(stream);
        while let Some(next) = next(&mut events).transpose() {
            let failed = next.is_err();
            if sender.send(next).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The next message; `None` at the end of the stream.
fn next(events: &mut BufReader<Box<dyn Read + Send>>) -> anyhow::Result<Option<Logged>> {
    while let Some(SentEvent { name, data }) = sse::next(events).context("the stream broke off")? {
        let data: Value = serde_json::from_str(&data).context("the stream is not JSON; check --server")?;
        match name.as_str() {
            "message" => return Logged::read(&data).map(Some),
            "dropped" => eprintln!("drover: {} records were left out ({})", data["records"], data["reason"]),
            "error" => anyhow::bail!("the stream ended: {}", data["error"]["message"].as_str().unwrap_or("no reason")),
            // Events of a newer server.
            _ => {}
        }
    }
    Ok(None)
}

impl Logged {
    fn read(event: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let time: Timestamp = text("time").parse().context("a message of the stream has no time")?;
        let payload = match event["payloadBase64"].as_str() {
            Some(base64) => STANDARD.decode(base64).context("a payload of the stream")?,
            None => text("payload").as_bytes().to_vec(),
        };
        Ok(Self {
            time_ms: u64::try_from(time.as_millisecond()).unwrap_or_default(),
            topic: text("topic").to_owned(),
            device: text("device").to_owned(),
            partition: event["partition"].as_u64().unwrap_or_default(),
            offset: event["offset"].as_u64().unwrap_or_default(),
            payload,
        })
    }
}

/// A rule and what it knows of the messages so far.
struct Stream<'r> {
    tested: &'r Tested<'r>,
    groups: HashMap<u64, Groups>,
}

impl<'r> Stream<'r> {
    fn of(tested: &'r Tested<'r>) -> Self {
        Self { tested, groups: HashMap::new() }
    }

    /// Adds the verdicts on a message; whether the rule listens to it.
    fn take(&mut self, logged: &Logged, verdicts: &mut Vec<Value>) -> bool {
        let Logged { time_ms, topic, device, partition, offset, payload } = logged;
        // Streams do not tell client ids: a device's own is its name.
        let mut message = Message::new(topic, Some(device), *time_ms, payload);
        let id = u128::from(*offset).to_be_bytes();
        message.origin =
            Origin { id, device: Some(device), functions: Some(self.tested.functions), ..Origin::default() };
        if !self.tested.listens_to(&message) {
            return false;
        }
        let about = |mut verdict: Value| {
            verdict["message"] = json!({"time_ms": time_ms, "topic": topic, "device": device});
            verdict
        };
        if self.tested.rule.plan().is_none() {
            verdicts.push(about(self.tested.verdict(&message, device)));
            return true;
        }
        let groups = self.groups.entry(*partition).or_default();
        let taken = groups.take(&self.tested.rule, &message, *offset, 0, ROOM);
        if let Some(error) = taken.error {
            verdicts.push(about(self.tested.failed(&error.to_string())));
        } else if taken.turned {
            verdicts.push(about(self.tested.told(self.tested.rule.grouped_row(&message), &message, device)));
        } else if !taken.matched {
            verdicts.push(about(self.tested.unmet(&message)));
        } else if taken.dropped {
            verdicts.push(about(self.tested.failed("the message came after its window had been closed")));
        }
        taken.due.iter().for_each(|due| verdicts.push(self.tested.closed(due)));
        self.close(*partition, verdicts);
        true
    }

    /// Time has come to `now_ms` everywhere.
    fn tick(&mut self, now_ms: u64, verdicts: &mut Vec<Value>) {
        let mut partitions: Vec<u64> = self.groups.keys().copied().collect();
        partitions.sort_unstable();
        for partition in partitions {
            if let Some(groups) = self.groups.get_mut(&partition) {
                groups.tick(&self.tested.rule, now_ms);
            }
            self.close(partition, verdicts);
        }
    }

    fn close(&mut self, partition: u64, verdicts: &mut Vec<Value>) {
        let Some(groups) = self.groups.get_mut(&partition) else { return };
        while let Some(closed) = groups.close_next(&self.tested.rule) {
            match closed {
                Ok(due) => due.iter().for_each(|due| verdicts.push(self.tested.closed(due))),
                Err(error) => verdicts.push(self.tested.failed(&error.to_string())),
            }
        }
    }
}

impl Tested<'_> {
    /// The row of a closed window.
    fn closed(&self, due: &Due) -> Value {
        let Some(plan) = self.rule.plan() else { return self.failed("the rule does not group messages") };
        match (plan.payload(&due.group, &due.closed), plan.device_of(&due.group)) {
            (Ok(payload), Ok(device)) => {
                let mut message = Message::new("", None, due.closed.end_ms, payload.as_bytes());
                message.origin = Origin { functions: Some(self.functions), ..Origin::default() };
                self.told(self.rule.grouped_row(&message), &message, &device)
            }
            (Err(error), _) | (_, Err(error)) => self.failed(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::function::LocalFunctions;
    use super::*;
    use drover_gateway::declared::Declared;
    use drover_types::object::RuleSpec;

    fn declared(sql: &str) -> Declared<RuleSpec> {
        let declared = json!({"apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "r"},
            "spec": {"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]}});
        Declared::read(declared).expect("a rule")
    }

    fn logged(at_s: u64, payload: &str) -> Logged {
        let event = json!({"time": format!("2026-01-01T00:{:02}:{:02}Z", at_s / 60, at_s % 60), "topic": "a/b",
            "device": "d", "payload": payload, "partition": 1, "offset": at_s});
        Logged::read(&event).expect("a message")
    }

    fn rows(sql: &str, messages: &[(u64, &str)]) -> Vec<String> {
        let functions = LocalFunctions::read(&[]).expect("none to read");
        let tested = Tested::compile(&declared(sql), &functions).expect("compiles");
        let (mut stream, mut verdicts) = (Stream::of(&tested), Vec::new());
        for (at_s, payload) in messages {
            stream.take(&logged(*at_s, payload), &mut verdicts);
        }
        stream.tick(logged(3_599, "").time_ms, &mut verdicts);
        let told = |verdict: &Value| verdict["row"].as_str().or(verdict["outcome"].as_str()).unwrap_or("?").to_owned();
        verdicts.iter().map(told).collect()
    }

    #[test]
    fn each_message_of_the_log_gets_its_verdict() {
        let messages = [(0, r#"{"t":31}"#), (1, r#"{"t":3}"#), (2, "damaged")];
        assert_eq!(rows("SELECT t FROM 'a/+' WHERE t > 30", &messages), [r#"{"t":31}"#, "no match", "error"]);
        assert_eq!(rows("SELECT t FROM 'b/+'", &messages), [""; 0]);
    }

    #[test]
    fn windows_that_are_over_by_now_make_their_rows() {
        let sql = "SELECT device().name AS d, count(*) AS n FROM 'a/+' WHERE t > 0 GROUP BY device(), TUMBLING(1m)";
        let messages = [(0, r#"{"t":1}"#), (59, r#"{"t":2}"#), (60, r#"{"t":0}"#), (90, r#"{"t":3}"#)];
        let one = r#"{"d":"d","n":1}"#;
        assert_eq!(rows(sql, &messages), ["no match", r#"{"d":"d","n":2}"#, one]);
        let changed = "SELECT t FROM 'a/+' GROUP BY device(), CHANGED(t)";
        assert_eq!(
            rows(changed, &[(0, r#"{"t":1}"#), (1, r#"{"t":1}"#), (2, r#"{"t":2}"#)]),
            [r#"{"t":1}"#, r#"{"t":2}"#]
        );
    }

    #[test]
    fn a_span_that_is_none_is_refused() {
        assert_eq!(beginning("1h", 1_700_003_600_000).expect("a span"), "2023-11-14T22:13:20Z");
        let refused = beginning("yesterday", 0).expect_err("no span").to_string();
        assert!(refused.starts_with("--since \"yesterday\" is no span of time as 30m or 1h: "), "{refused}");
    }
}
