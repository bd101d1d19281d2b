//! What the storage service tells of itself: one call writes the log line and moves the metric.

use std::time::Duration;

use drover_bus::Position;
use drover_types::{ErrorCode, InvalidTelemetry};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::{Skip, Tally};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Query {
    method: &'static str,
    /// `ok`, or the code of the error.
    outcome: String,
}

/// What `/metrics` shows of this service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    records: Counter,
    points: Counter,
    malformed: Counter,
    repeats: Counter,
    repeats_doubtful: Counter,
    window_crowded_out: Counter,
    payloads_opaque: Counter,
    values_skipped: Family<Reason, Counter>,
    store_seconds: Histogram,
    restarts: Counter,
    retries: Counter,
    rows_expired: Counter,
    queries: Family<Query, Counter>,
}

impl Telemetry {
    /// Registers the metrics; counters get their `_total` on output.
    pub fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(format!("drover_storage_{name}"), help, counter.clone());
            counter
        };
        let telemetry = Self {
            records: counter("records", "Telemetry records read and stored, or left out for a reason counted here"),
            points: counter("points", "Points stored"),
            malformed: counter("records_malformed", "Records skipped as unreadable"),
            repeats: counter("repeats", "Records recognised as sent again and not stored"),
            repeats_doubtful: counter(
                "repeats_doubtful",
                "Records with the DUP flag taken for new: no first sending known",
            ),
            window_crowded_out: counter("window_crowded_out", "Messages a full repeat window forgot before their time"),
            payloads_opaque: counter("payloads_opaque", "Messages without points: neither JSON nor a number"),
            restarts: counter("restarts", "Sessions begun again from the committed offsets"),
            retries: counter("store_retries", "Batches that the store did not take and that were tried again"),
            rows_expired: counter("rows_expired", "Rows removed because of their age"),
            values_skipped: Family::default(),
            queries: Family::default(),
            store_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
        };
        for reason in Skip::ALL {
            // Shown as 0 from the start.
            drop(telemetry.values_skipped.get_or_create(&Reason { reason: reason.label() }));
        }
        let help = "Values over a bound, kept in their message but not as points";
        registry.register("drover_storage_values_skipped", help, telemetry.values_skipped.clone());
        let help = "Time the store took to make a batch durable";
        registry.register("drover_storage_store_seconds", help, telemetry.store_seconds.clone());
        registry.register("drover_storage_queries", "Questions answered", telemetry.queries.clone());
        telemetry
    }

    /// A batch is durable and its offsets are committed.
    pub fn stored(&self, tally: &Tally, took: Duration) {
        self.records.inc_by(tally.records);
        self.points.inc_by(tally.points);
        self.malformed.inc_by(tally.malformed);
        self.repeats.inc_by(tally.repeats);
        self.repeats_doubtful.inc_by(tally.doubtful);
        self.window_crowded_out.inc_by(tally.crowded_out);
        self.payloads_opaque.inc_by(tally.opaque);
        for (reason, count) in &tally.skipped {
            self.values_skipped.get_or_create(&Reason { reason: reason.label() }).inc_by(*count);
        }
        self.store_seconds.observe(took.as_secs_f64());
        tracing::debug!(?tally, ?took, "batch stored");
    }

    /// A record cannot be read; it is skipped.
    pub fn malformed(&self, position: &Position, error: &InvalidTelemetry) {
        tracing::warn!(partition = position.at.partition, offset = position.offset, %error, "malformed record skipped");
    }

    /// The store did not take a batch; it is tried again. Why is said by who is not ready.
    pub fn refused(&self) {
        self.retries.inc();
    }

    /// Reading the log begins again from the committed offsets.
    pub fn restarted(&self, cause: &dyn std::fmt::Display) {
        self.restarts.inc();
        tracing::warn!(%cause, "storage begins again from the committed offsets");
    }

    /// Rows were removed because of their age.
    pub fn expired(&self, rows: u64) {
        self.rows_expired.inc_by(rows);
        tracing::debug!(rows, "rows expired");
    }

    /// A question was answered.
    pub fn answered(&self, method: &'static str, outcome: Result<(), ErrorCode>) {
        let outcome = outcome.map_or_else(|code| code.to_string(), |()| "ok".to_owned());
        tracing::debug!(method, outcome, "answered");
        self.queries.get_or_create(&Query { method, outcome }).inc();
    }
}
