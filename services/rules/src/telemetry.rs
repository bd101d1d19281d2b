//! Metrics of the rules service, and the spans that continue a message's trace.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use drover_host::trace;
use drover_types::{Telemetry as Message, TraceParent};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::{Definition, Held, Tally, Views};
use crate::lag::Lag;

/// What `/metrics` shows of this service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    messages: Counter,
    repeats: Counter,
    repeats_doubtful: Counter,
    window_crowded_out: Counter,
    dead_letters: Counter,
    kafka_outputs: Counter,
    outbox_entries: Counter,
    late_messages: Counter,
    state_records: Counter,
    states_restored: Counter,
    states_unreadable: Counter,
    commit_seconds: Histogram,
    view_bytes: Gauge,
    view_crowded_out: Gauge,
    lag: Gauge,
    lag_seconds: Gauge<f64, AtomicU64>,
    pub restarts: Counter,
    /// What calls of functions took, and how many were not made because too much had been taken.
    pub function_seconds: Counter<f64, AtomicU64>,
    pub function_calls_refused: Counter,
    pub republished: Counter,
    pub republish_retries: Counter,
    pub republish_refused: Counter,
    pub actions_delivered: Counter,
    pub actions_retries: Counter,
    pub actions_failed: Counter,
    pub actions_lost: Counter,
    pub actions_stalled: Counter,
    actions_held: Gauge,
    actions_suspended: Gauge,
}

impl Telemetry {
    /// Registers the metrics; counters get their `_total` on output.
    pub fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(format!("drover_rules_{name}"), help, counter.clone());
            counter
        };
        let telemetry = Self {
            messages: counter("messages", "Telemetry records evaluated and committed"),
            repeats: counter("repeats", "Records recognised as sent again and not evaluated"),
            repeats_doubtful: counter(
                "repeats_doubtful",
                "Records with the DUP flag taken for new: no first sending known",
            ),
            window_crowded_out: counter("window_crowded_out", "Messages a full repeat window forgot before their time"),
            dead_letters: counter("dead_letters", "Records written to the dead-letter topic by the engine"),
            kafka_outputs: counter("kafka_outputs", "Records written to output topics"),
            outbox_entries: counter("outbox_entries", "Actions handed to the outbox"),
            late_messages: counter("late_messages", "Messages that came after their window had been closed"),
            state_records: counter("state_records", "States of groups written or removed"),
            states_restored: counter("states_restored", "States of groups read back with their partition"),
            states_unreadable: counter(
                "states_unreadable",
                "States of groups that could not be read back and are left out",
            ),
            restarts: counter("restarts", "Sessions begun again from the committed offsets"),
            function_seconds: Counter::default(),
            function_calls_refused: counter(
                "function_calls_refused",
                "Calls of functions that were not made: theirs had taken too much time",
            ),
            republished: counter("republished", "Republish actions that the ingress confirmed"),
            republish_retries: counter("republish_retries", "Republish actions that have to be tried again"),
            republish_refused: counter("republish_refused", "Republish actions refused for good, now dead letters"),
            actions_delivered: counter("actions_delivered", "Entries of the outbox that were carried out"),
            actions_retries: counter("actions_retries", "Entries of the outbox that have to be tried again"),
            actions_failed: counter("actions_failed", "Entries of the outbox that failed for good, now dead letters"),
            actions_lost: counter("actions_lost", "Times that an action found what it had to read gone from the log"),
            actions_stalled: counter("actions_stalled", "Times that an action found what it had to read damaged"),
            actions_held: Gauge::default(),
            actions_suspended: Gauge::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            view_bytes: Gauge::default(),
            view_crowded_out: Gauge::default(),
            lag: Gauge::default(),
            lag_seconds: Gauge::default(),
        };
        let help = "Time a transaction of outputs and offsets took";
        registry.register("drover_rules_commit_seconds", help, telemetry.commit_seconds.clone());
        let help = "Time that the engine waited for functions of tenants";
        registry.register("drover_rules_function_seconds", help, telemetry.function_seconds.clone());
        let help = "Size of the devices and shadows that rules look up, kept in memory";
        registry.register("drover_rules_view_bytes", help, telemetry.view_bytes.clone());
        let help = "Devices and shadows that rules look up and there is no room for";
        registry.register("drover_rules_view_crowded_out", help, telemetry.view_crowded_out.clone());
        let help = "Telemetry records behind the committed offsets of all members";
        registry.register("drover_rules_lag_records", help, telemetry.lag.clone());
        let help = "Age of the oldest telemetry record that no member has committed";
        registry.register("drover_rules_lag_seconds", help, telemetry.lag_seconds.clone());
        let help = "Entries of the outbox in memory";
        registry.register("drover_rules_actions_held", help, telemetry.actions_held.clone());
        let help = "Actions whose target does not answer, by partition of the outbox";
        registry.register("drover_rules_actions_suspended", help, telemetry.actions_suspended.clone());
        telemetry
    }

    /// Entries in memory, and lanes that are suspended.
    pub fn actions_held(&self, entries: usize, suspended: usize) {
        self.actions_held.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.actions_suspended.set(i64::try_from(suspended).unwrap_or(i64::MAX));
    }

    /// So much waits for the rules.
    pub fn lag(&self, lag: Lag) {
        self.lag.set(i64::try_from(lag.records).unwrap_or(i64::MAX));
        self.lag_seconds.set(Duration::from_millis(lag.age_ms).as_secs_f64());
    }

    /// So much is kept for rules to look up.
    pub fn looked_up(&self, views: &Views) {
        let (devices, shadows) = (views.devices.size(), views.shadows.size());
        self.view_bytes.set(i64::try_from(devices.0 + shadows.0).unwrap_or(i64::MAX));
        self.view_crowded_out.set(i64::try_from(devices.1 + shadows.1).unwrap_or(i64::MAX));
    }

    /// A partition's states are back.
    pub fn restored(&self, held: &Held) {
        self.states_restored.inc_by(held.groups() as u64);
        self.states_unreadable.inc_by(held.unreadable);
    }

    /// A batch is durable.
    pub fn committed(&self, tally: &Tally, took: Duration) {
        self.messages.inc_by(tally.messages);
        self.repeats.inc_by(tally.repeats);
        self.repeats_doubtful.inc_by(tally.doubtful);
        self.window_crowded_out.inc_by(tally.crowded_out);
        self.dead_letters.inc_by(tally.dead_letters);
        self.kafka_outputs.inc_by(tally.kafka);
        self.outbox_entries.inc_by(tally.outbox);
        self.late_messages.inc_by(tally.late);
        self.state_records.inc_by(tally.states);
        self.commit_seconds.observe(took.as_secs_f64());
        tracing::debug!(?tally, ?took, "batch committed");
    }
}

/// A span of `rule` below the message's; its place in the trace, or the message's own where nobody records traces. A message
/// without one has the trace of its id, so that all that comes of it can be found together.
pub fn continue_trace(message: &Message, rule: &Definition) -> Option<TraceParent> {
    // Enabled only where a collector takes traces: a span for each row of each rule costs more than the row.
    let span = tracing::debug_span!("rule", tenant = %message.tenant, device = %message.device, rule = rule.name);
    if span.is_disabled() {
        return message.traceparent.clone().or_else(|| Some(TraceParent::of_id(message.id)));
    }
    if let Some(parent) = &message.traceparent {
        trace::continue_from(&span, parent.as_str());
    }
    trace::traceparent_of(&span).or_else(|| message.traceparent.clone())
}
