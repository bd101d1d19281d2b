//! Records through rules into a batch: outputs, next offsets and counts that are committed as one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{AppendError, Offset, Outgoing, Partition, Position, Stored, TopicPartition, repeats};
use drover_rule_sql::{Due, LookupError, Message, Origin, Outcome, Properties, Row, UserFunctions};
use drover_types::object::FunctionSpec;
use drover_types::repeat::{RepeatWindow, Verdict};
use drover_types::{RecordId, TELEMETRY_TOPIC, Telemetry, TenantId, TraceParent};

use super::definition::Definition;
use super::letters::{Letter, OUTBOX_TOPIC, dead_letter, failure_row};
use super::output::{ERROR_ACTION, Emitted, Inbound, output};
use super::rule_set::RuleSet;
use super::states::States;
use super::status::{LastError, RuleKey, RuleTally};
use super::window;

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
    /// With the action's number; absent for a dead letter, which cannot become another one.
    rule: Option<(Arc<Definition>, u32)>,
}

/// Calls a tenant's function with JSON texts; its result is JSON, or none.
pub type Call<'e> = &'e dyn Fn(&TenantId, &FunctionSpec, &[String]) -> Result<Option<String>, String>;

/// What evaluation needs besides the record.
pub struct Evaluation<'e> {
    pub rules: &'e RuleSet,
    /// Of the record's partition.
    pub window: &'e mut RepeatWindow,
    pub states: &'e mut States,
    pub call: Call<'e>,
    /// Continues a message's trace with a span of the rule.
    pub trace: &'e dyn Fn(&Telemetry, &Definition) -> Option<TraceParent>,
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
            Err(unreadable) => self.bury(Arc::new(stored), None, None, &unreadable.to_string()),
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
                        self.failed(rule, None, LastError { message: error.to_string(), ..LastError::default() });
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
        let (rules, call) = (evaluation.rules, evaluation.call);
        let functions = Functions { tenant: &telemetry.tenant, rules, call };
        let message = message(telemetry, &functions);
        let inbound = Inbound { source, telemetry, message };
        for definition in rules.matching(&telemetry.tenant, telemetry.topic.as_str()) {
            if definition.rule.plan().is_some() {
                self.group(&inbound, definition, evaluation, &functions);
                continue;
            }
            match definition.rule.evaluate(&inbound.message) {
                Outcome::NoMatch => {}
                Outcome::Error(error) => self.fail(&inbound, definition, None, &error.to_string()),
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
            self.fail(inbound, rule, None, &error.to_string());
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
                return self.failed(rule, None, LastError { message, ..LastError::default() });
            }
        };
        let source = Arc::new(window::stored(&telemetry, place));
        let inbound = Inbound { source, telemetry: &telemetry, message: message(&telemetry, functions) };
        self.act_on(&inbound, rule, None);
    }

    /// The row of a pattern's message or of a closed window.
    fn act_on(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, trace: Option<&TraceParent>) {
        match rule.rule.grouped_row(&inbound.message) {
            Outcome::Row(row) => self.act(inbound, rule, &row, trace),
            // The condition was true when the message was taken.
            Outcome::NoMatch => {}
            Outcome::Error(error) => self.fail(inbound, rule, None, &error.to_string()),
        }
    }

    fn act(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, row: &Row<'_>, trace: Option<&TraceParent>) {
        let value = Bytes::from(row.to_bytes());
        let emitted = Emitted { row, value: &value, trace };
        for number in (0..).take(rule.actions.len()) {
            self.act_one(inbound, rule, number, &emitted);
        }
    }

    /// One action of the rule, which has it.
    fn act_one(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, number: u32, emitted: &Emitted<'_>) {
        match output(inbound, rule, number, &rule.actions[number as usize], emitted) {
            Ok(outgoing) => self.put(inbound.source.clone(), rule, number, outgoing),
            Err(cause) => self.fail(inbound, rule, Some(number), &format!("action {number}: {cause}")),
        }
    }

    /// Puts a message through a rule again, or through the one action that failed. False: that cannot be, since the
    /// message has gone into a window, the rule does not listen to it, or the action is not there any more.
    pub fn replay(&mut self, letter: Letter, rule: &Arc<Definition>, rules: &RuleSet, call: Call<'_>) -> bool {
        let Ok(telemetry) = repeats::telemetry(&letter.source) else { return false };
        let (grouped, of_window) = (rule.rule.plan().is_some(), telemetry.topic.as_str() == window::TOPIC);
        let is_there = letter.action.is_none_or(|action| (action as usize) < rule.actions.len());
        if !is_there || grouped && !of_window && letter.action.is_none() || !grouped && of_window {
            return false;
        }
        let functions = Functions { tenant: &telemetry.tenant, rules, call };
        let message = message(&telemetry, &functions);
        let inbound = Inbound { source: Arc::new(letter.source), telemetry: &telemetry, message };
        let outcome =
            if grouped { rule.rule.grouped_row(&inbound.message) } else { rule.rule.evaluate(&inbound.message) };
        match outcome {
            Outcome::NoMatch => {}
            Outcome::Error(error) => self.fail(&inbound, rule, None, &error.to_string()),
            Outcome::Row(row) => {
                self.rule_tally(rule).matched += 1;
                let (value, trace) = (Bytes::from(row.to_bytes()), telemetry.traceparent.as_ref());
                let emitted = Emitted { row: &row, value: &value, trace };
                match letter.action {
                    Some(action) => self.act_one(&inbound, rule, action, &emitted),
                    None => self.act(&inbound, rule, &row, trace),
                }
            }
        }
        true
    }

    /// A dead letter, and the rule's error action if it has one. `action`: the one at fault; `None`: the row.
    fn fail(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, action: Option<u32>, cause: &str) {
        let telemetry = inbound.telemetry;
        self.failed(rule, action, LastError::of(&inbound.source, telemetry, cause));
        self.bury(inbound.source.clone(), Some(&rule.name), action, cause);
        let Some(then) = &rule.error_action else { return };
        let (topic, client) = (telemetry.topic.as_str(), telemetry.client.as_str());
        let value = Bytes::from(failure_row(&rule.name, topic, client, &telemetry.payload, cause));
        let (row, trace) = (Row::default(), telemetry.traceparent.as_ref());
        match output(inbound, rule, ERROR_ACTION, then, &Emitted { row: &row, value: &value, trace }) {
            Ok(outgoing) => self.put(inbound.source.clone(), rule, ERROR_ACTION, outgoing),
            Err(cause) => {
                let cause = format!("error action: {cause}");
                self.bury(inbound.source.clone(), Some(&rule.name), Some(ERROR_ACTION), &cause);
            }
        }
    }

    fn failed(&mut self, rule: &Definition, action: Option<u32>, error: LastError) {
        let tally = self.rule_tally(rule);
        tally.failed += 1;
        tally.last_error = Some(error);
        if let Some(action) = action {
            tally.action(action).failed += 1;
        }
    }

    fn put(&mut self, source: Arc<Stored>, rule: &Arc<Definition>, action: u32, outgoing: Outgoing) {
        if &*outgoing.topic == OUTBOX_TOPIC {
            self.tally.outbox += 1;
        } else {
            self.tally.kafka += 1;
        }
        let tally = self.rule_tally(rule);
        tally.emitted += 1;
        tally.action(action).emitted += 1;
        self.outputs.push(Output { outgoing, source, rule: Some((rule.clone(), action)) });
    }

    fn bury(&mut self, source: Arc<Stored>, rule: Option<&str>, action: Option<u32>, cause: &str) {
        self.tally.dead_letters += 1;
        let outgoing = dead_letter(&source, rule, action, cause);
        self.outputs.push(Output { outgoing, source, rule: None });
    }

    /// The log refused the batch: the outputs at fault become dead letters. False if none is at fault.
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
            let Some((rule, action)) = output.rule.clone().filter(|_| at_fault(output)) else { continue };
            diverted = true;
            let source = output.source.clone();
            let cause = refusal.to_string();
            let outgoing = dead_letter(&source, Some(&rule.name), Some(action), &cause);
            let error = LastError::of_record(&source, &cause);
            self.outputs[i] = Output { outgoing, source, rule: None };
            self.tally.dead_letters += 1;
            self.failed(&rule, Some(action), error);
            let tally = self.rule_tally(&rule);
            tally.emitted = tally.emitted.saturating_sub(1);
            let emitted = &mut tally.action(action).emitted;
            *emitted = emitted.saturating_sub(1);
        }
        diverted
    }

    fn rule_tally(&mut self, rule: &Definition) -> &mut RuleTally {
        self.tally.rules.entry((rule.tenant.clone(), rule.name.clone())).or_default()
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

/// A record as rules see it.
pub(super) fn message<'m>(telemetry: &'m Telemetry, functions: &'m dyn UserFunctions) -> Message<'m> {
    let (topic, client) = (telemetry.topic.as_str(), telemetry.client.as_str());
    let mut message = Message::new(topic, Some(client), telemetry.time_ms, &telemetry.payload);
    let content_type = telemetry.content_type.as_deref();
    let properties = Properties { content_type, user: &telemetry.properties, ..Properties::default() };
    let account = Some(telemetry.tenant.as_str());
    let device = Some(telemetry.device.as_str());
    let (id, functions) = (telemetry.id.0, Some(functions));
    message.origin = Origin { id, device, account, properties, functions, ..Origin::default() };
    message
}
