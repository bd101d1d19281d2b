//! Live messages over server-sent events.

use std::io::{BufRead, BufReader, Read};

use drover_bus::Record;
use drover_gateway::GatewayConfig;
use serde_json::{Value, json};

use crate::running::{Running, TOKEN};

/// A client of a stream that reads event by event.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    /// Of the last event.
    id: String,
}

impl Events {
    fn open(gateway: &Running, query: &str) -> Self {
        Self::open_with(gateway, query, ("authorization", &format!("Bearer {TOKEN}")))
    }

    /// As whoever `header` says.
    pub fn open_with(gateway: &Running, query: &str, header: (&str, &str)) -> Self {
        Self::opened(gateway, query, &[header])
    }

    /// As a client that comes again.
    fn behind(gateway: &Running, query: &str, id: &str) -> Self {
        let bearer = format!("Bearer {TOKEN}");
        Self::opened(gateway, query, &[("authorization", &bearer), ("last-event-id", id)])
    }

    fn opened(gateway: &Running, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = ureq::get(gateway.url(&format!("/api/v1/tenants/home/stream?{query}")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().expect("a stream");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = std::mem::replace(response.body_mut(), ureq::Body::builder().data(""));
        Self { lines: BufReader::new(Box::new(body.into_reader())), id: String::new() }
    }

    /// Name and data of the next event besides `place`; `None` at the end.
    pub fn next(&mut self) -> Option<(String, Value)> {
        loop {
            match self.any()? {
                (name, _) if name == "place" => {}
                event => return Some(event),
            }
        }
    }

    fn any(&mut self) -> Option<(String, Value)> {
        let (mut name, mut data) = (String::new(), Value::Null);
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("a line") == 0 {
                return None;
            }
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim().to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = serde_json::from_str(text).expect("JSON");
            } else if let Some(text) = line.strip_prefix("id: ") {
                self.id = text.trim().to_owned();
            } else if line.trim().is_empty() && !name.is_empty() {
                return Some((name, data));
            }
        }
    }

    /// The id of a stream to which nothing came yet.
    fn place(&mut self) -> String {
        assert_eq!(self.any(), Some(("place".to_owned(), json!({}))));
        self.id.clone()
    }

    fn payload(&mut self) -> String {
        let (name, data) = self.next().expect("an event");
        assert_eq!(name, "message", "{data}");
        data["payload"].as_str().expect("text").to_owned()
    }
}

fn publish(gateway: &Running, tenant: &str, topic: &str, payload: &str, time_ms: i64) {
    publish_by(gateway, "d-1", tenant, topic, payload, time_ms);
}

fn publish_by(gateway: &Running, device: &str, tenant: &str, topic: &str, payload: &str, time_ms: i64) {
    let headers = [("tenant", tenant), ("topic", topic), ("device", device)].into();
    let record = Record {
        key: Some(format!("{tenant}/{device}").into()),
        value: Some(payload.to_owned().into()),
        headers,
        timestamp_ms: time_ms,
    };
    gateway.bus.put("drover.telemetry", record);
}

#[test]
fn a_stream_shows_what_matches_and_comes_after_it_began() {
    let gateway = Running::start();
    publish(&gateway, "home", "a/1", "before", 1);
    let mut events = Events::open(&gateway, "filter=a/%2B");
    publish(&gateway, "away", "a/1", "of another tenant", 2);
    publish(&gateway, "home", "b/1", "of another topic", 2);
    publish(&gateway, "home", "a/1", "{\"n\": 1.10}\r\n", 2_000);
    let (name, message) = events.next().expect("an event");
    assert_eq!(name, "message");
    assert_eq!((&message["payload"], &message["topic"]), (&json!("{\"n\": 1.10}\r\n"), &json!("a/1")));
    assert_eq!((&message["device"], &message["time"]), (&json!("d-1"), &json!("1970-01-01T00:00:02Z")));
}

#[test]
fn a_stream_of_two_filters_shows_what_matches_either_once() {
    let gateway = Running::start();
    for topic in ["a/1", "$aws/rules/r/a", "b", "a/2"] {
        publish(&gateway, "home", topic, topic, 1);
    }
    let mut events = Events::open(&gateway, "filter=a/%2B&or=$aws/rules/%23&from=earliest");
    assert_eq!([events.payload(), events.payload(), events.payload()], ["a/1", "$aws/rules/r/a", "a/2"]);
}

#[test]
fn a_stream_may_begin_in_the_past() {
    let gateway = Running::start();
    for (payload, time_ms) in [("one", 1_000), ("two", 2_000), ("three", 3_000)] {
        publish(&gateway, "home", "a", payload, time_ms);
    }
    let mut all = Events::open(&gateway, "filter=%23&from=earliest");
    assert_eq!([all.payload(), all.payload(), all.payload()], ["one", "two", "three"]);
    let mut since = Events::open(&gateway, "filter=%23&from=1970-01-01T00:00:02Z");
    assert_eq!([since.payload(), since.payload()], ["two", "three"]);
}

#[test]
fn an_output_topic_is_shown_to_the_tenant_whose_rule_writes_to_it() {
    let gateway = Running::start();
    let rule = json!({"spec": {"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": "home.hot"}}]}});
    assert_eq!(gateway.ask("PUT", "/api/v1/tenants/home/rules/r", Some(rule)).0, 200);
    gateway.bus.put("home.hot", Record { key: Some("k".into()), value: Some("{}".into()), ..Record::default() });

    let mut events = Events::open(&gateway, "topic=home.hot&from=earliest");
    let (_, message) = events.next().expect("an event");
    assert_eq!(
        (&message["topic"], &message["key"], &message["payload"]),
        (&json!("home.hot"), &json!("k"), &json!("{}"))
    );

    for (tenant, topic) in [("away", "home.hot"), ("home", "away.hot"), ("home", "none")] {
        let path = format!("/api/v1/tenants/{tenant}/stream?topic={topic}");
        assert_eq!(gateway.ask("GET", &path, None).0, 404, "{path}");
    }
}

#[test]
fn queries_that_make_no_sense_are_refused() {
    let gateway = Running::start();
    for (query, field) in [
        ("", "filter"),
        ("filter=a&topic=b", "filter"),
        ("filter=a%23", "filter"),
        ("filter=$share/g/a", "filter"),
        ("filter=a&or=b%23", "or"),
        ("topic=home.hot&or=a", "or"),
        ("topic=drover.telemetry", "topic"),
        ("filter=a&from=tomorrow", "from"),
        ("filter=a&form=now", "query"),
    ] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/stream?{query}"), None);
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{query}: {refused}");
    }
}

#[test]
fn streams_are_bounded_and_their_places_are_given_back() {
    let config = GatewayConfig { streams_max: 1, ..GatewayConfig::default() };
    let gateway = Running::with(config, &["registry", "rules"]);
    let mut first = Events::open(&gateway, "filter=a");
    let (status, refused) = gateway.ask("GET", "/api/v1/tenants/home/stream?filter=a", None);
    assert_eq!((status, &refused["error"]["limit"]), (429, &json!("1")), "{refused}");
    publish(&gateway, "home", "a", "x", 1);
    assert_eq!(first.payload(), "x");
    drop(first);
    while gateway.metrics.encode().contains("drover_gateway_streams 1") {
        publish(&gateway, "home", "a", "makes the server notice that nobody reads", 1);
        std::thread::yield_now();
    }
    Events::open(&gateway, "filter=a");
}

#[test]
fn a_slow_client_is_told_how_much_was_left_out() {
    let limits = GatewayConfig { stream_queue_messages: 1, stream_lag_records_max: 10, ..GatewayConfig::default() };
    let gateway = Running::with(limits, &["registry", "rules"]);
    let mut events = Events::open(&gateway, "filter=%23");
    // Far more than sockets and queues hold, so that the reader has to wait for the client.
    let payload = "x".repeat(64 * 1024);
    let sent = 1_000;
    for _ in 0..sent {
        publish(&gateway, "home", "a", &payload, 1);
    }
    publish(&gateway, "home", "a", "first after the burst", 1);
    let (mut shown, mut dropped) = (0, 0);
    while shown + dropped < sent + 1 {
        match events.next().expect("an event") {
            (name, data) if name == "dropped" => {
                assert_eq!(data["reason"], "slow");
                dropped += data["records"].as_u64().expect("a count");
            }
            (_, _) => shown += 1,
        }
    }
    assert!(dropped > 0, "everything fitted in between");
    let counted = format!("drover_gateway_stream_dropped_records_total{{reason=\"slow\"}} {dropped}");
    assert!(gateway.metrics.encode().contains(&counted), "{}", gateway.metrics.encode());
    publish(&gateway, "home", "a", "live again", 1);
    assert_eq!(events.payload(), "live again");
}

#[test]
fn a_replay_is_never_shortened_however_slow_its_client_is() {
    let limits = GatewayConfig { stream_queue_messages: 1, stream_lag_records_max: 1, ..GatewayConfig::default() };
    let gateway = Running::with(limits, &["registry", "rules"]);
    for i in 0..100 {
        publish(&gateway, "home", "a", &i.to_string(), i);
    }
    let mut events = Events::open(&gateway, "filter=a&from=earliest");
    for i in 0..100 {
        assert_eq!(events.payload(), i.to_string());
    }
}

#[test]
fn a_client_is_told_what_retention_deleted_before_it_was_read() {
    let gateway = Running::start();
    // Far more than sockets and queues hold, so that the reader is still at the front when the front goes.
    let (payload, sent) = ("x".repeat(64 * 1024), 2_000);
    for _ in 0..sent {
        publish(&gateway, "home", "a", &payload, 1);
    }
    let mut events = Events::open(&gateway, "filter=a&from=earliest");
    let (mut shown, mut dropped) = (0, 0);
    *gateway.bus.earliest.lock().unwrap() = sent - 1;
    while shown + dropped < sent {
        match events.next().expect("an event") {
            (name, data) if name == "dropped" => {
                assert_eq!(data["reason"], "retention");
                dropped += data["records"].as_u64().expect("a count");
            }
            (_, _) => shown += 1,
        }
    }
    assert!(dropped > 0, "everything was read before it was deleted");
}

#[test]
fn a_stream_that_was_cut_goes_on_behind_its_last_event_with_nothing_lost_or_doubled() {
    const DEVICES: u32 = 8; // of both partitions
    const ROUNDS: u32 = 10;
    let gateway = Running::start();
    let (mut seen, mut id) = (Vec::new(), Events::open(&gateway, "filter=a").place());
    let read = |events: &mut Events| events.payload().parse::<u32>().expect("a number");
    for round in 0..ROUNDS {
        for n in round * 20..(round + 1) * 20 {
            let device = format!("d-{}", n % DEVICES);
            publish_by(&gateway, &device, "home", "a", &n.to_string(), 1);
            publish_by(&gateway, &device, "home", "b", "not selected", 1);
        }
        let mut events = match round % 2 {
            0 => Events::behind(&gateway, "filter=a&from=earliest", &id),
            _ => Events::open(&gateway, &format!("filter=a&from={id}")),
        };
        // Cut while more is on its way.
        seen.extend((0..13).map(|_| read(&mut events)));
        id = events.id;
    }
    let mut events = Events::behind(&gateway, "filter=a", &id);
    while seen.len() < 20 * ROUNDS as usize {
        seen.push(read(&mut events));
    }
    for device in 0..DEVICES {
        assert!(seen.iter().filter(|n| *n % DEVICES == device).is_sorted(), "{device}: {seen:?}");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20 * ROUNDS).collect::<Vec<u32>>());
    publish(&gateway, "home", "a", "and no more", 1);
    assert_eq!(events.payload(), "and no more");
}

#[test]
fn ids_that_are_none_of_the_stream_are_refused() {
    let gateway = Running::start();
    let rule = json!({"spec": {"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": "home.hot"}}]}});
    assert_eq!(gateway.ask("PUT", "/api/v1/tenants/home/rules/r", Some(rule)).0, 200);
    let id = Events::open(&gateway, "filter=a").place();
    let (cut, long, bearer) = (&id[..id.len() - 1], "p".repeat(20_000), format!("Bearer {TOKEN}"));
    for (query, shown, field, limit) in [
        ("filter=a", "7", "Last-Event-ID", json!(null)),
        ("filter=a", cut, "Last-Event-ID", json!(null)),
        ("filter=a", long.as_str(), "Last-Event-ID", json!("12299")),
        ("topic=home.hot", id.as_str(), "Last-Event-ID", json!(null)),
        ("filter=a&from=p1.x", "", "from", json!(null)),
    ] {
        let headers = [("authorization", bearer.as_str()), ("last-event-id", shown)];
        let (status, refused) = gateway.send("GET", &format!("/api/v1/tenants/home/stream?{query}"), &headers, "");
        let error = &refused["error"];
        assert_eq!((status, &error["field"], &error["limit"]), (400, &json!(field), &limit), "{query}: {refused}");
    }
}

#[test]
fn what_the_log_does_not_keep_until_a_client_comes_again_is_told() {
    let dropped =
        |records: u64, reason: &str| Some(("dropped".to_owned(), json!({"records": records, "reason": reason})));
    let gateway = Running::start();
    for n in 0..10 {
        publish(&gateway, "home", "a", &n.to_string(), 1);
    }
    let mut events = Events::open(&gateway, "filter=a&from=earliest");
    assert_eq!([events.payload(), events.payload()], ["0", "1"]);
    *gateway.bus.earliest.lock().unwrap() = 6;
    let mut events = Events::behind(&gateway, "filter=a", &events.id);
    assert_eq!(events.next(), dropped(4, "retention"));
    let again = events.id.clone();
    assert_eq!(events.payload(), "6");
    assert_eq!(Events::behind(&gateway, "filter=a", &again).payload(), "6", "it is told once");

    // A log that has lost its end, or that begins anew.
    let gateway = Running::start();
    publish(&gateway, "home", "a", "of another log", 1);
    let mut events = Events::behind(&gateway, "filter=a", &again);
    assert_eq!(events.next(), dropped(5, "reset"));
    publish(&gateway, "home", "a", "new", 1);
    assert_eq!(events.payload(), "new");
}

#[test]
fn open_streams_end_when_the_gateway_stops() {
    let gateway = Running::start();
    let mut events = Events::open(&gateway, "filter=a");
    gateway.stop().expect("a clean end");
    assert_eq!(events.next(), None);
}
