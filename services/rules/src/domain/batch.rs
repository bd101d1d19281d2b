//! Records through rules into a batch: outputs, next offsets and counts that are committed as one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{AppendError, Header, Offset, Outgoing, Partition, Position, Record, Stored, TopicPartition, repeats};
use drover_proto::rules::v1::{OutboxEntry, Republish, outbox_entry};
use drover_rule_sql::{
    Due, LookupError, Lookups, Message, Origin, Outcome, PayloadFormat, Properties, Row, UserFunctions,
};
use drover_types::limits::REPUBLISH_HOPS_MAX;
use drover_types::object::FunctionSpec;
use drover_types::repeat::{RepeatWindow, Verdict};
use drover_types::{RecordId, TELEMETRY_TOPIC, Telemetry, TenantId, TopicName, TraceParent, header};
use prost::Message as _;

use super::definition::{CompiledAction, Definition};
use super::letters::{OUTBOX_TOPIC, clip, dead_letter, failure_row, text_header, without_source};
use super::rule_set::RuleSet;
use super::states::States;
use super::status::{LastError, RuleKey, RuleTally};
use super::view::{Lookup, Views};
use super::window;

/// Number of the error action in derived ids; ordinary actions count from 0.
const ERROR_ACTION: u32 = u32::MAX;

/// What is to be committed next.
#[derive(Debug, Default)]
pub struct Batch {
    outputs: Vec<Output>,
    /// States that have changed.
    states: Vec<Outgoing>,
    next: BTreeMap<TopicPartition, Offset>,
    pub tally: Tally,
}

/// What the records of a batch came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub messages: u64,
    pub repeats: u64,
    /// Messages flagged as sent again whose first sending is not known; taken for new.
    pub doubtful: u64,
    /// Messages forgotten before their time because a window was full.
    pub crowded_out: u64,
    pub dead_letters: u64,
    pub outbox: u64,
    pub kafka: u64,
    /// Messages that came after their window had been closed.
    pub late: u64,
    /// States written or removed.
    pub states: u64,
    rules: HashMap<RuleKey, RuleTally>,
}

/// A record to be written, and for whom.
#[derive(Debug)]
struct Output {
    outgoing: Outgoing,
    source: Arc<Stored>,
    /// Absent for a dead letter, which cannot become another one: if it is too large, it loses its source.
    rule: Option<Arc<Definition>>,
}

/// Calls a tenant's function with JSON texts; its result is JSON, or none.
pub type Call<'e> = &'e dyn Fn(&TenantId, &FunctionSpec, &[String]) -> Result<Option<String>, String>;

/// What evaluation needs besides the record.
pub struct Evaluation<'e> {
    pub rules: &'e RuleSet,
    /// Of the record's partition.
    pub window: &'e mut RepeatWindow,
    pub states: &'e mut States,
    pub views: &'e Views,
    pub call: Call<'e>,
    /// Continues a message's trace with a span of the rule.
    pub trace: &'e dyn Fn(&Telemetry, &Definition) -> Option<TraceParent>,
}

/// One readable message on its way.
struct Inbound<'i> {
    source: Arc<Stored>,
    telemetry: &'i Telemetry,
    message: Message<'i>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Records to be written.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The records to write, in order.
    pub fn records(&self) -> Vec<Outgoing> {
        self.outputs.iter().map(|output| &output.outgoing).chain(&self.states).cloned().collect()
    }

    /// Takes what has changed in the states, to be written with the rest. Offsets go with it, so that a member that has
    /// lost a partition cannot write there.
    pub fn keep(&mut self, states: &mut States) {
        for (partition, next, records) in states.changes() {
            self.tally.states += records.len() as u64;
            self.states.extend(records);
            self.pass(partition, next);
        }
    }

    /// The next offset of a partition.
    fn pass(&mut self, partition: Partition, next: Offset) {
        self.next.insert(TopicPartition::new(TELEMETRY_TOPIC, partition), next);
    }

    /// The offsets to commit.
    pub fn offsets(&self) -> Vec<Position> {
        self.next.iter().map(|(at, offset)| Position { at: at.clone(), offset: *offset }).collect()
    }

    /// What each rule did, for the board.
    pub fn by_rule(&self) -> impl Iterator<Item = (&RuleKey, &RuleTally)> {
        self.tally.rules.iter()
    }

    /// Takes one record: whatever becomes of it, its partition moves on.
    pub fn take(&mut self, stored: Stored, evaluation: &mut Evaluation<'_>) {
        let (partition, next) = (stored.position.at.partition, stored.position.offset + 1);
        self.next.insert(stored.position.at.clone(), next);
        self.tally.messages += 1;
        let telemetry = repeats::telemetry(&stored);
        let received_ms = telemetry.as_ref().ok().map(|telemetry| telemetry.time_ms);
        match telemetry {
            Err(unreadable) => self.bury(Arc::new(stored), None, &unreadable.to_string()),
            Ok(telemetry) => match self.look(evaluation.window, &telemetry) {
                Verdict::Repeat => self.tally.repeats += 1,
                Verdict::New => self.meet_rules(Arc::new(stored), &telemetry, evaluation),
            },
        }
        evaluation.states.pass(partition, next, received_ms);
    }

    /// Closes windows that are over until none is, or it is enough: `is_enough` is told the records to write and the bytes
    /// of states among them, about. Whether none is left.
    pub fn close_windows(
        &mut self,
        rules: &RuleSet,
        call: Call<'_>,
        states: &mut States,
        is_enough: impl Fn(usize, usize) -> bool,
    ) -> bool {
        for (partition, rule) in states.due(rules) {
            let functions = Functions { tenant: &rule.tenant, rules, call };
            while let Some((next, closed)) = states.close_next(partition, rule) {
                self.pass(partition, next);
                match closed {
                    Ok(due) => due.iter().for_each(|due| self.emit(rule, due, (partition, next), None, &functions)),
                    Err(error) => {
                        tracing::error!(rule = rule.name, %error, "a group's state is lost");
                        self.failed(rule, LastError { message: error.to_string(), ..LastError::default() });
                    }
                }
                let (records, bytes) = states.changed();
                if is_enough(self.outputs.len() + records, bytes) {
                    return false;
                }
            }
        }
        true
    }

    fn look(&mut self, window: &mut RepeatWindow, telemetry: &Telemetry) -> Verdict {
        let before = window.counts();
        let verdict = window.observe(telemetry);
        self.tally.doubtful += window.counts().doubtful - before.doubtful;
        self.tally.crowded_out += window.counts().crowded_out - before.crowded_out;
        verdict
    }

    fn meet_rules(&mut self, source: Arc<Stored>, telemetry: &Telemetry, evaluation: &mut Evaluation<'_>) {
        let (rules, call, views) = (evaluation.rules, evaluation.call, evaluation.views);
        let functions = Functions { tenant: &telemetry.tenant, rules, call };
        let lookup = Lookup { views, tenant: &telemetry.tenant, device: telemetry.device.as_str() };
        let message = message(telemetry, &functions, Some(&lookup));
        let inbound = Inbound { source, telemetry, message };
        for definition in rules.matching(&telemetry.tenant, telemetry.topic.as_str()) {
            if definition.rule.plan().is_some() {
                self.group(&inbound, definition, evaluation, &functions);
                continue;
            }
            match definition.rule.evaluate(&inbound.message) {
                Outcome::NoMatch => {}
                Outcome::Error(error) => self.fail(&inbound, definition, &error.to_string()),
                Outcome::Row(row) => {
                    let trace = (evaluation.trace)(telemetry, definition);
                    self.rule_tally(definition).matched += 1;
                    self.act(&inbound, definition, &row, trace.as_ref());
                }
            }
        }
    }

    /// A message for a rule that groups: rows come of it now, or when its windows close.
    fn group(
        &mut self,
        inbound: &Inbound<'_>,
        rule: &Arc<Definition>,
        evaluation: &mut Evaluation<'_>,
        functions: &Functions<'_>,
    ) {
        let (position, telemetry) = (&inbound.source.position, inbound.telemetry);
        let place = (position.at.partition, position.offset);
        let taken = evaluation.states.take(rule, place, &inbound.message, telemetry.hops);
        let tally = self.rule_tally(rule);
        tally.matched += u64::from(taken.matched);
        tally.dropped += u64::from(taken.dropped);
        self.tally.late += u64::from(taken.late);
        for due in &taken.due {
            self.emit(rule, due, place, Some(telemetry.id), functions);
        }
        if taken.turned {
            let trace = (evaluation.trace)(telemetry, rule);
            self.act_on(inbound, rule, trace.as_ref());
        }
        if let Some(error) = taken.error {
            self.fail(inbound, rule, &error.to_string());
        }
    }

    /// The row of a closed window, through the rule's actions.
    fn emit(
        &mut self,
        rule: &Arc<Definition>,
        due: &Due,
        place: (Partition, Offset),
        late_of: Option<RecordId>,
        functions: &Functions<'_>,
    ) {
        let telemetry = match window::message(rule, due, late_of) {
            Ok(telemetry) => telemetry,
            Err(message) => {
                tracing::error!(rule = rule.name, message, "a window has no row");
                return self.failed(rule, LastError { message, ..LastError::default() });
            }
        };
        let source = Arc::new(window::stored(&telemetry, place));
        let inbound = Inbound { source, telemetry: &telemetry, message: message(&telemetry, functions, None) };
        self.act_on(&inbound, rule, None);
    }

    /// The row of a pattern's message or of a closed window.
    fn act_on(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, trace: Option<&TraceParent>) {
        match rule.rule.grouped_row(&inbound.message) {
            Outcome::Row(row) => self.act(inbound, rule, &row, trace),
            // The condition was true when the message was taken.
            Outcome::NoMatch => {}
            Outcome::Error(error) => self.fail(inbound, rule, &error.to_string()),
        }
    }

    fn act(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, row: &Row<'_>, trace: Option<&TraceParent>) {
        let value = Bytes::from(row.to_bytes());
        for (number, action) in (0..).zip(&rule.actions) {
            match output(inbound, rule, number, action, row, &value, trace) {
                Ok(outgoing) => self.put(inbound.source.clone(), rule, outgoing),
                Err(cause) => self.fail(inbound, rule, &format!("action {number}: {cause}")),
            }
        }
    }

    /// A dead letter, and the rule's error action if it has one.
    fn fail(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, cause: &str) {
        let telemetry = inbound.telemetry;
        self.failed(rule, LastError::of(&inbound.source, telemetry, cause));
        self.bury(inbound.source.clone(), Some(&rule.name), cause);
        let Some(action) = &rule.error_action else { return };
        let (topic, client) = (telemetry.topic.as_str(), telemetry.client.as_str());
        let value = Bytes::from(failure_row(&rule.name, topic, client, &telemetry.payload, cause));
        let trace = telemetry.traceparent.as_ref();
        match output(inbound, rule, ERROR_ACTION, action, &Row::default(), &value, trace) {
            Ok(outgoing) => self.put(inbound.source.clone(), rule, outgoing),
            Err(cause) => self.bury(inbound.source.clone(), Some(&rule.name), &format!("error action: {cause}")),
        }
    }

    fn failed(&mut self, rule: &Definition, error: LastError) {
        let tally = self.rule_tally(rule);
        tally.failed += 1;
        tally.last_error = Some(LastError { message: clip(&error.message).into_owned(), ..error });
    }

    fn put(&mut self, source: Arc<Stored>, rule: &Arc<Definition>, mut outgoing: Outgoing) {
        // Retention goes by when a message came, which may be long after the time it names.
        outgoing.record.timestamp_ms = source.record.timestamp_ms;
        if &*outgoing.topic == OUTBOX_TOPIC {
            self.tally.outbox += 1;
        } else {
            self.tally.kafka += 1;
        }
        self.rule_tally(rule).emitted += 1;
        self.outputs.push(Output { outgoing, source, rule: Some(rule.clone()) });
    }

    fn bury(&mut self, source: Arc<Stored>, rule: Option<&str>, cause: &str) {
        self.tally.dead_letters += 1;
        let outgoing = dead_letter(&source, rule, cause);
        self.outputs.push(Output { outgoing, source, rule: None });
    }

    /// The log refused the batch: the outputs at fault become dead letters, and dead letters that are too large lose their
    /// source. False if none is at fault.
    pub fn divert(&mut self, refusal: &AppendError) -> bool {
        let at_fault = |output: &Output| match refusal {
            AppendError::UnknownTopic { topic }
            | AppendError::UnknownPartition { topic, .. }
            | AppendError::Refused { topic, .. } => *output.outgoing.topic == **topic,
            AppendError::TooLarge { bytes, limit } => output.outgoing.record.bytes() >= (*bytes).min(*limit),
            AppendError::Unavailable { .. } => false,
        };
        let mut diverted = false;
        for i in 0..self.outputs.len() {
            let output = &self.outputs[i];
            if !at_fault(output) {
                continue;
            }
            let Some(rule) = output.rule.clone() else {
                let too_large = matches!(refusal, AppendError::TooLarge { .. });
                if let Some(small) = without_source(&output.outgoing).filter(|_| too_large) {
                    self.outputs[i].outgoing = small;
                    diverted = true;
                }
                continue;
            };
            diverted = true;
            let source = output.source.clone();
            let cause = refusal.to_string();
            let outgoing = dead_letter(&source, Some(&rule.name), &cause);
            let error = LastError::of_record(&source, &cause);
            self.outputs[i] = Output { outgoing, source, rule: None };
            self.tally.dead_letters += 1;
            self.failed(&rule, error);
            let tally = self.rule_tally(&rule);
            tally.emitted = tally.emitted.saturating_sub(1);
        }
        diverted
    }

    fn rule_tally(&mut self, rule: &Definition) -> &mut RuleTally {
        // A key is made for the first row only: this is done for every one.
        if !self.tally.rules.contains_key(&rule.key) {
            self.tally.rules.insert(rule.key.clone(), RuleTally::default());
        }
        self.tally.rules.get_mut(&rule.key).expect("it was put there")
    }
}

/// The functions that rules of a tenant may call.
struct Functions<'e> {
    tenant: &'e TenantId,
    rules: &'e RuleSet,
    call: Call<'e>,
}

impl UserFunctions for Functions<'_> {
    fn call(&self, function: &str, arguments: &[String]) -> Result<Option<String>, LookupError> {
        let Some(function) = self.rules.function(self.tenant, function) else {
            return Err(LookupError { reason: "there is no such function any more".to_owned() });
        };
        (self.call)(self.tenant, function, arguments).map_err(|reason| LookupError { reason })
    }
}

/// A record as rules see it. The row of a window looks nothing up.
fn message<'m>(
    telemetry: &'m Telemetry,
    functions: &'m dyn UserFunctions,
    lookups: Option<&'m dyn Lookups>,
) -> Message<'m> {
    let (topic, client) = (telemetry.topic.as_str(), telemetry.client.as_str());
    let mut message = Message::new(topic, Some(client), telemetry.time_ms, &telemetry.payload);
    let content_type = telemetry.content_type.as_deref();
    let mqtt5 = telemetry.mqtt5.as_deref();
    let format = |utf8| if utf8 { PayloadFormat::Utf8 } else { PayloadFormat::Unspecified };
    let properties = Properties {
        content_type,
        payload_format: mqtt5.and_then(|mqtt5| mqtt5.utf8).map(format),
        response_topic: mqtt5.and_then(|mqtt5| mqtt5.response_topic.as_deref()),
        correlation_data: mqtt5.and_then(|mqtt5| mqtt5.correlation_data.as_deref()),
        user: &telemetry.properties,
    };
    let account = Some(telemetry.tenant.as_str());
    let device = Some(telemetry.device.as_str());
    let (id, functions) = (telemetry.id.0, Some(functions));
    message.origin = Origin { id, device, account, properties, lookups, functions, ..Origin::default() };
    message
}

/// The record that an action makes of a row, or why there is none.
fn output(
    inbound: &Inbound<'_>,
    rule: &Definition,
    number: u32,
    action: &CompiledAction,
    row: &Row<'_>,
    value: &Bytes,
    trace: Option<&TraceParent>,
) -> Result<Outgoing, String> {
    let telemetry = inbound.telemetry;
    let id = telemetry.id.derived(&rule.name, number);
    match action {
        CompiledAction::Kafka { topic, key, .. } => {
            let key = match key {
                Some(key) => key.render(&inbound.message, row).map_err(|error| error.to_string())?,
                None => telemetry.device.to_string(),
            };
            let headers = output_headers(id, rule, telemetry, trace);
            let timestamp_ms = telemetry.time_ms as i64;
            let record = Record { key: Some(key.into()), value: Some(value.clone()), headers, timestamp_ms };
            Ok(Outgoing::keyed(topic.clone(), record))
        }
        CompiledAction::Republish { topic, qos } => {
            let topic = topic.render(&inbound.message, row).map_err(|error| error.to_string())?;
            TopicName::check(&topic).map_err(|error| format!("topic {topic:?}: {error}"))?;
            let hops = telemetry.hops + 1;
            if hops > REPUBLISH_HOPS_MAX {
                return Err(format!("message was republished {} times, limit is {REPUBLISH_HOPS_MAX}", hops - 1));
            }
            let work = Republish { topic, qos: u32::from(u8::from(*qos)), payload: value.to_vec(), hops };
            Ok(outbox_record(id, rule, number, telemetry, trace, outbox_entry::Work::Republish(work)))
        }
    }
}

fn output_headers(id: RecordId, rule: &Definition, telemetry: &Telemetry, trace: Option<&TraceParent>) -> Vec<Header> {
    let mut headers = vec![
        Header { name: header::ID.into(), value: Bytes::copy_from_slice(&id.0) },
        text_header(header::RULE, &rule.name),
        Header { name: header::TIME.into(), value: telemetry.time_ms.to_string().into() },
    ];
    headers.extend(trace.map(|trace| text_header(header::TRACEPARENT, trace.as_str())));
    headers
}

fn outbox_record(
    id: RecordId,
    rule: &Definition,
    action: u32,
    telemetry: &Telemetry,
    trace: Option<&TraceParent>,
    work: outbox_entry::Work,
) -> Outgoing {
    let entry = OutboxEntry {
        id: id.0.to_vec(),
        tenant: telemetry.tenant.to_string(),
        device: telemetry.device.to_string(),
        rule: rule.name.clone(),
        action,
        time_ms: telemetry.time_ms,
        traceparent: trace.map(|trace| trace.as_str().to_owned()).unwrap_or_default(),
        work: Some(work),
    };
    let record = Record {
        key: Some(telemetry.key().to_string().into()),
        value: Some(entry.encode_to_vec().into()),
        headers: output_headers(id, rule, telemetry, trace),
        timestamp_ms: telemetry.time_ms as i64,
    };
    Outgoing::keyed(OUTBOX_TOPIC, record)
}
