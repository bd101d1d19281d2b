//! Records through rules into a batch: outputs, next offsets and counts that are committed as one.

mod failure;
mod replay;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{AppendError, Offset, Outgoing, Partition, Position, Stored, Topic, TopicPartition, repeats};
use drover_rule_sql::{Due, Outcome, Row};
use drover_types::repeat::{RepeatWindow, Verdict};
use drover_types::{RecordId, TELEMETRY_TOPIC, Telemetry, TraceParent};

pub use failure::{came_ms, source_of};

use super::definition::Definition;
use super::fault::fault;
use super::letters::{OUTBOX_TOPIC, dead_letter, failure_row, without_source};
use super::message::{Call, Functions, message};
use super::output::{ERROR_ACTION, Emitted, Inbound, output};
use super::rule_set::RuleSet;
use super::states::States;
use super::status::{LastError, RuleKey, RuleTally};
use super::view::{Lookup, Views};
use super::window;

/// What is to be committed next.
#[derive(Debug, Default)]
pub struct Batch {
    outputs: Vec<Outgoing>,
    /// Whence each of the outputs comes.
    origins: Vec<Origin>,
    /// States that have changed.
    states: Vec<Outgoing>,
    /// Outputs, then states, as they are being written.
    sealed: Option<Arc<[Outgoing]>>,
    /// The next offset of each partition of the telemetry topic.
    next: BTreeMap<Partition, Offset>,
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

/// Whence a record comes that is to be written, and for whom.
#[derive(Debug)]
struct Origin {
    source: Arc<Stored>,
    /// With the action's number; absent for a dead letter, which cannot become another one: if it is too large, it loses
    /// its source.
    rule: Option<(Arc<Definition>, u32)>,
}

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

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Records to be written.
    pub fn outputs(&self) -> usize {
        self.origins.len()
    }

    /// The records to write, in order; the same again for another try, after which nothing is added. Entries of the outbox are
    /// as old as they are there, however old their messages are: retention and the age at which they are given up go by that.
    pub fn records(&mut self, now_ms: u64) -> Arc<[Outgoing]> {
        let sealed = self.sealed.get_or_insert_with(|| self.outputs.drain(..).chain(self.states.drain(..)).collect());
        if self.tally.outbox > 0 {
            for entry in Arc::make_mut(sealed).iter_mut().filter(|record| &*record.topic == OUTBOX_TOPIC) {
                entry.record.timestamp_ms = now_ms as i64;
            }
        }
        sealed.clone()
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
        self.next.insert(partition, next);
    }

    /// The offsets to commit.
    pub fn offsets(&self) -> Vec<Position> {
        let topic: Topic = TELEMETRY_TOPIC.into();
        let at = |partition: &Partition| TopicPartition { topic: topic.clone(), partition: *partition };
        self.next.iter().map(|(partition, offset)| Position { at: at(partition), offset: *offset }).collect()
    }

    /// What each rule did, for the board.
    pub fn by_rule(&self) -> impl Iterator<Item = (&RuleKey, &RuleTally)> {
        self.tally.rules.iter()
    }

    /// Takes one record: whatever becomes of it, its partition moves on.
    pub fn take(&mut self, stored: Stored, evaluation: &mut Evaluation<'_>) {
        let (partition, next) = (stored.position.at.partition, stored.position.offset + 1);
        self.pass(partition, next);
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
                    Err(cause) => {
                        tracing::error!(rule = rule.name, cause, "a group's state is lost");
                        self.failed(&rule.key, None, LastError::of_none(&cause));
                    }
                }
                let (records, bytes) = states.changed();
                if is_enough(self.outputs() + records, bytes) {
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
            self.guarded(&inbound, definition, |batch| batch.meet(&inbound, definition, evaluation, &functions));
        }
    }

    /// A fault of ours in one rule would meet the same message after every start, and stop all others for good: it becomes
    /// a dead letter. What a rule knows of many messages is changed last, when nothing is left to go wrong.
    fn guarded(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, work: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            let cause = fault(&*panic);
            tracing::error!(rule = rule.name, cause, "a message becomes a dead letter");
            self.fail(inbound, rule, None, &cause);
        }
    }

    fn meet(
        &mut self,
        inbound: &Inbound<'_>,
        definition: &Arc<Definition>,
        evaluation: &mut Evaluation<'_>,
        functions: &Functions<'_>,
    ) {
        if definition.rule.plan().is_some() {
            return self.group(inbound, definition, evaluation, functions);
        }
        match definition.rule.evaluate(&inbound.message) {
            Outcome::NoMatch => {}
            Outcome::Error(error) => self.fail(inbound, definition, None, &error.to_string()),
            Outcome::Row(row) => {
                let trace = (evaluation.trace)(inbound.telemetry, definition);
                self.rule_tally(&definition.key).matched += 1;
                self.act(inbound, definition, &row, trace.as_ref());
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
        let tally = self.rule_tally(&rule.key);
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
                tracing::error!(rule = rule.name, why = message, "a window has no row");
                return self.failed(&rule.key, None, LastError::of_none(&message));
            }
        };
        let source = Arc::new(window::stored(&telemetry, place));
        let inbound = Inbound { source, telemetry: &telemetry, message: message(&telemetry, functions, None) };
        self.guarded(&inbound, rule, |batch| batch.act_on(&inbound, rule, None));
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

    /// A dead letter, and the rule's error action if it has one. `action`: the one at fault; `None`: the row.
    fn fail(&mut self, inbound: &Inbound<'_>, rule: &Arc<Definition>, action: Option<u32>, cause: &str) {
        let telemetry = inbound.telemetry;
        self.failed(&rule.key, action, LastError::of(&inbound.source, telemetry, cause));
        self.bury(inbound.source.clone(), Some(&rule.name), action, cause);
        // An error action that fails is not followed by itself.
        let Some(then) = rule.error_action.as_ref().filter(|_| action != Some(ERROR_ACTION)) else { return };
        let (topic, client) = (telemetry.topic.as_str(), inbound.message.client());
        let value = Bytes::from(failure_row(&rule.name, topic, client, &telemetry.payload, cause));
        let (row, trace) = (Row::default(), telemetry.traceparent.as_ref());
        let emitted = Emitted { row: &row, value: &value, trace };
        // It may meet the same fault again, and whoever is here has to come through.
        let made = catch_unwind(AssertUnwindSafe(|| output(inbound, rule, ERROR_ACTION, then, &emitted)));
        match made.unwrap_or_else(|panic| Err(fault(&*panic))) {
            Ok(outgoing) => self.put(inbound.source.clone(), rule, ERROR_ACTION, outgoing),
            Err(cause) => {
                let cause = format!("error action: {cause}");
                self.bury(inbound.source.clone(), Some(&rule.name), Some(ERROR_ACTION), &cause);
            }
        }
    }

    fn failed(&mut self, key: &RuleKey, action: Option<u32>, error: LastError) {
        let tally = self.rule_tally(key);
        tally.failed += 1;
        tally.last_error = Some(error);
        if let Some(action) = action {
            tally.action(action).failed += 1;
        }
    }

    fn put(&mut self, source: Arc<Stored>, rule: &Arc<Definition>, action: u32, mut outgoing: Outgoing) {
        // Retention goes by when a message came, which may be long after the time it names.
        outgoing.record.timestamp_ms = source.record.timestamp_ms;
        if &*outgoing.topic == OUTBOX_TOPIC {
            self.tally.outbox += 1;
        } else {
            self.tally.kafka += 1;
        }
        let tally = self.rule_tally(&rule.key);
        tally.emitted += 1;
        tally.action(action).emitted += 1;
        self.write(outgoing, Origin { source, rule: Some((rule.clone(), action)) });
    }

    /// A dead letter; `rule` and `action`: those to blame, if any is.
    pub fn bury(&mut self, source: Arc<Stored>, rule: Option<&str>, action: Option<u32>, cause: &str) {
        self.tally.dead_letters += 1;
        let outgoing = dead_letter(&source, rule, action, cause);
        self.write(outgoing, Origin { source, rule: None });
    }

    fn write(&mut self, outgoing: Outgoing, origin: Origin) {
        debug_assert!(self.sealed.is_none(), "nothing is added to what is being written");
        self.outputs.push(outgoing);
        self.origins.push(origin);
    }

    /// The log refused the batch: the outputs at fault become dead letters, and dead letters that are too large lose their
    /// source. False if none is at fault.
    pub fn divert(&mut self, refusal: &AppendError) -> bool {
        let at_fault = |output: &Outgoing| match refusal {
            AppendError::UnknownTopic { topic } | AppendError::Refused { topic, .. } => *output.topic == **topic,
            AppendError::UnknownPartition { topic, partition } => {
                *output.topic == **topic && output.partition.is_some_and(|named| named >= *partition)
            }
            AppendError::TooLarge { bytes, limit } => output.record.bytes() >= (*bytes).min(*limit),
            AppendError::Unavailable { .. } => false,
        };
        let (mut diverted, Some(mut sealed)) = (false, self.sealed.take()) else { return false };
        // States are nobody's fault: they come behind the outputs.
        for (i, output) in Arc::make_mut(&mut sealed)[..self.origins.len()].iter_mut().enumerate() {
            if !at_fault(output) {
                continue;
            }
            let Origin { source, rule } = &mut self.origins[i];
            let Some((rule, action)) = rule.take() else {
                let too_large = matches!(refusal, AppendError::TooLarge { .. });
                if let Some(small) = without_source(output).filter(|_| too_large) {
                    *output = small;
                    diverted = true;
                }
                continue;
            };
            diverted = true;
            let cause = refusal.to_string();
            *output = dead_letter(source, Some(&rule.name), Some(action), &cause);
            let error = LastError::of_record(source, &cause);
            self.tally.dead_letters += 1;
            self.failed(&rule.key, Some(action), error);
            let tally = self.rule_tally(&rule.key);
            tally.emitted = tally.emitted.saturating_sub(1);
            let emitted = &mut tally.action(action).emitted;
            *emitted = emitted.saturating_sub(1);
        }
        self.sealed = Some(sealed);
        diverted
    }

    fn rule_tally(&mut self, key: &RuleKey) -> &mut RuleTally {
        // A key is made for the first row only: this is done for every one.
        if !self.tally.rules.contains_key(key) {
            self.tally.rules.insert(key.clone(), RuleTally::default());
        }
        self.tally.rules.get_mut(key).expect("it was put there")
    }
}

#[cfg(test)]
mod tests;
