//! What becomes of a message in which one rule goes wrong.

use bytes::Bytes;
use drover_bus::Record;
use drover_rule_sql::{LookupError, Lookups, Value};
use drover_types::object::{FunctionSpec, RuleSpec};
use drover_types::{ClientId, DeviceId, Qos, TenantId, TopicName, fingerprint};
use serde_json::json;

use super::super::letters::ERRORS_TOPIC;
use super::*;

fn telemetry() -> Telemetry {
    let (topic, payload) = ("sensors/d", Bytes::from_static(b"{\"n\":7}"));
    Telemetry {
        id: RecordId::at(1_700_000_000_000, [1; 10]),
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new("d").expect("valid"),
        client: ClientId::new("d").expect("valid"),
        fingerprint: fingerprint("d", 1, Qos::AtLeastOnce, topic, &payload),
        topic: TopicName::new(topic).expect("valid"),
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        epoch: 1,
        time_ms: 1_700_000_000_000,
        content_type: None,
        properties: vec![],
        mqtt5: None,
        traceparent: None,
        hops: 0,
    }
}

fn stored(telemetry: &Telemetry) -> Stored {
    let headers = telemetry.headers();
    let record = Record {
        key: Some(telemetry.key().to_string().into()),
        value: Some(telemetry.payload.clone()),
        headers,
        timestamp_ms: telemetry.time_ms as i64,
    };
    Stored { position: Position { at: TopicPartition::new(TELEMETRY_TOPIC, 0), offset: 4 }, record }
}

#[test]
fn a_fault_in_one_rule_is_a_dead_letter_and_the_others_have_their_rows() {
    let tenant = TenantId::new("home").expect("valid");
    let mut rules = RuleSet::default();
    for (name, sql) in [("faulty", "SELECT faulty(n) AS n FROM '#'"), ("sound", "SELECT n FROM '#'")] {
        let spec = json!({"sql": sql, "actions": [{"kafka": {"topic": "home.out"}}]});
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        rules.put(Definition::compile(tenant.clone(), name, &spec).expect("compiles"));
    }
    let function = FunctionSpec { source: String::new(), routine: "main".into(), examples: Vec::new() };
    rules.put_function(&tenant, "faulty", function);
    let (mut batch, mut window, mut states) = (Batch::default(), RepeatWindow::default(), States::default());
    let call =
        |_: &TenantId, _: &FunctionSpec, _: &[String]| -> Result<Option<String>, String> { panic!("one too many") };
    let views = Views::default();
    let trace = |_: &Telemetry, _: &Definition| -> Option<TraceParent> { None };
    let (window, states) = (&mut window, &mut states);
    let mut evaluation = Evaluation { rules: &rules, window, states, views: &views, call: &call, trace: &trace };
    batch.take(stored(&telemetry()), &mut evaluation);

    let records = batch.records(0);
    let outputs: Vec<(&str, &[u8])> =
        records.iter().map(|record| (&*record.topic, record.record.value.as_deref().unwrap_or_default())).collect();
    assert_eq!(outputs, [(ERRORS_TOPIC, &b"{\"n\":7}"[..]), ("home.out", &b"{\"n\":7}"[..])]);
    assert_eq!(records[0].record.header("error"), Some(&b"fault of the platform: one too many"[..]));
    assert_eq!(records[0].record.header("rule"), Some(&b"faulty"[..]));
    assert_eq!(batch.offsets()[0].offset, 5, "the partition moves on");
}

/// Look-ups with a fault of ours.
struct Faulty;

impl Lookups for Faulty {
    fn shadow(&self, _: &str, _: Option<&str>) -> Result<Option<Value<'static>>, LookupError> {
        panic!("a second one")
    }

    fn device(&self) -> Result<Option<Value<'static>>, LookupError> {
        panic!("a second one")
    }
}

#[test]
fn an_error_action_that_meets_a_fault_is_a_dead_letter_beside_the_first() {
    let tenant = TenantId::new("home").expect("valid");
    let spec = json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": "home.out"}}],
        "errorAction": {"republish": {"topic": "errors/${device().labels.hall}"}}});
    let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
    let mut rules = RuleSet::default();
    rules.put(Definition::compile(tenant.clone(), "r", &spec).expect("compiles"));
    let telemetry = telemetry();
    let call = |_: &TenantId, _: &FunctionSpec, _: &[String]| -> Result<Option<String>, String> { Ok(None) };
    let functions = Functions { tenant: &tenant, rules: &rules, call: &call };
    let message = message(&telemetry, &functions, Some(&Faulty));
    let inbound = Inbound { source: Arc::new(stored(&telemetry)), telemetry: &telemetry, message };
    let mut batch = Batch::default();
    // As the outbox does, which nothing else guards.
    let rule = rules.get(&(tenant.clone(), "r".to_owned())).expect("there");
    batch.fail(&inbound, rule, Some(0), "action 0: refused");

    let records = batch.records(0);
    let errors: Vec<(&str, Option<&[u8]>)> =
        records.iter().map(|record| (&*record.topic, record.record.header("error"))).collect();
    let second = &b"error action: fault of the platform: a second one"[..];
    assert_eq!(errors, [(ERRORS_TOPIC, Some(&b"action 0: refused"[..])), (ERRORS_TOPIC, Some(second))]);
}
