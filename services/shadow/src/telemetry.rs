//! What the shadow service tells of itself.

use std::fmt::Display;
use std::time::Duration;

use drover_bus::Position;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::Tally;
use crate::domain::command::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    operation: &'static str,
    /// 0: accepted; else the code of the rejection.
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandRecord {
    outcome: &'static str,
}

/// Metrics `drover_shadow_*`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    answers: Family<Answer, Counter>,
    repeats: Counter,
    repeats_unanswered: Counter,
    /// Accepted changes that were answered before the store showed them.
    pub answers_unseen: Counter,
    malformed: Counter,
    commit_seconds: Histogram,
    /// Documents brought into the store from the log.
    pub restored: Counter,
    pub restarts: Counter,
    pub deletions: Counter,
    pub delivered: Counter,
    pub delivery_retries: Counter,
    pub deliveries_refused: Counter,
    pub deliveries_missed: Counter,
    command_records: Family<CommandRecord, Counter>,
    pub commands_sent: Counter,
    pub command_retries: Counter,
    pub commands_unsent: Counter,
    pub commands_expired: Counter,
}

impl Telemetry {
    /// Registers the metrics; counters get their `_total` on output.
    pub fn register(registry: &mut Registry) -> Self {
        let answers = Family::default();
        registry.register("drover_shadow_answers", "Requests answered, by operation and code", answers.clone());
        let command_records = Family::default();
        let help = "Records of commands and of answers to them, by what they came to";
        registry.register("drover_shadow_command_records", help, command_records.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(format!("drover_shadow_{name}"), help, counter.clone());
            counter
        };
        let telemetry = Self {
            answers,
            repeats: counter("repeats", "Requests recognised as sent again and not carried out"),
            repeats_unanswered: counter("repeats_unanswered", "Repeats whose first answer was not known any more"),
            answers_unseen: counter("answers_unseen", "Changes accepted by gRPC that the store did not show in time"),
            malformed: counter("records_malformed", "Records skipped as unreadable"),
            commit_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            restored: counter("documents_restored", "Documents brought into the store from the log"),
            restarts: counter("restarts", "Sessions begun again from the committed offsets"),
            deletions: counter("devices_deleted", "Deletions of devices that became requests to forget their shadows"),
            delivered: counter("deliveries", "Answers and notices that every ingress node has confirmed"),
            delivery_retries: counter("delivery_retries", "Deliveries that have to be tried again"),
            deliveries_refused: counter("deliveries_refused", "Deliveries that an ingress node refused for good"),
            deliveries_missed: counter("deliveries_missed", "Deliveries that did not wait for a node that is away"),
            command_records,
            commands_sent: counter("commands_sent", "Commands that the ingress has taken"),
            command_retries: counter("command_retries", "Attempts to send a command that have to be made again"),
            commands_unsent: counter("commands_unsent", "Commands that the ingress refused for good"),
            commands_expired: counter("commands_expired", "Commands whose time was over before the ingress took them"),
        };
        let help = "Time a transaction of documents, replies and offsets took";
        registry.register("drover_shadow_commit_seconds", help, telemetry.commit_seconds.clone());
        telemetry
    }

    /// A batch is durable.
    pub fn committed(&self, tally: &Tally, took: Duration) {
        for (operation, code) in &tally.answered {
            self.answers.get_or_create(&Answer { operation: operation.as_str(), code: *code }).inc();
        }
        self.repeats.inc_by(tally.repeats);
        self.repeats_unanswered.inc_by(tally.unanswered);
        self.commit_seconds.observe(took.as_secs_f64());
        tracing::debug!(?tally, ?took, "batch committed");
    }

    /// A record of the log of commands was taken.
    pub fn command_record(&self, outcome: Outcome) {
        self.command_records.get_or_create(&CommandRecord { outcome: outcome.as_str() }).inc();
    }

    /// A record cannot be read; it is skipped.
    pub fn malformed(&self, position: &Position, error: &dyn Display) {
        let Position { at, offset } = position;
        tracing::warn!(topic = &*at.topic, partition = at.partition, offset, %error, "malformed record skipped");
        self.malformed.inc();
    }
}
