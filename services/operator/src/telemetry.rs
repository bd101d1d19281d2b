//! What the operator tells of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    /// `ok`, or `failed`: it is tried again.
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reviewed {
    /// `allowed` or `refused`.
    outcome: &'static str,
}

/// Metrics `drover_operator_*`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    drift: Family<OfKind, Counter>,
    status_writes: Family<OfKind, Counter>,
    status_deferred: Counter,
    secrets_written: Counter,
    fleet_devices: Counter,
    left_behind: Family<OfKind, Counter>,
    leading: Gauge,
    reviews: Family<Reviewed, Counter>,
}

impl Telemetry {
    /// Registers the metrics; counters get their `_total` on output.
    pub fn register(registry: &mut Registry) -> Self {
        let telemetry = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            drift: Family::default(),
            status_writes: Family::default(),
            status_deferred: Counter::default(),
            secrets_written: Counter::default(),
            fleet_devices: Counter::default(),
            left_behind: Family::default(),
            leading: Gauge::default(),
            reviews: Family::default(),
        };
        let Self { reconciles, reconcile_seconds, drift, status_writes, .. } = telemetry.clone();
        let Self { status_deferred, secrets_written, fleet_devices, left_behind, leading, reviews, .. } =
            telemetry.clone();
        let registry = registry.sub_registry_with_prefix("drover_operator");
        registry.register("reconciles", "Turns of objects, by kind and outcome", reconciles);
        registry.register("reconcile_seconds", "Time a turn took", reconcile_seconds);
        registry.register("drift_corrected", "Objects that were changed elsewhere and set back", drift);
        registry.register("status_writes", "Statuses written to the API server", status_writes);
        registry.register("status_deferred", "Statuses put off by the rate of all of them", status_deferred);
        registry.register("secrets_written", "Secrets made or renewed", secrets_written);
        registry.register("fleet_devices_written", "Devices of fleets written to the registry", fleet_devices);
        let help = "Objects that were let go although the registry could not be asked to delete theirs";
        registry.register("left_behind", help, left_behind);
        registry.register("leading", "1: this process is the one that works", leading);
        registry.register("reviews", "Rules that the API server asked about before it kept them, by outcome", reviews);
        telemetry
    }

    pub fn reconciled(&self, kind: &'static str, ok: bool, took_ms: u64) {
        let outcome = if ok { "ok" } else { "failed" };
        self.reconciles.get_or_create(&Outcome { kind, outcome }).inc();
        self.reconcile_seconds.observe(took_ms as f64 / 1000.0);
    }

    pub fn drift(&self, kind: &'static str) {
        self.drift.get_or_create(&OfKind { kind }).inc();
    }

    pub fn status_written(&self, kind: &'static str) {
        self.status_writes.get_or_create(&OfKind { kind }).inc();
    }

    pub fn status_deferred(&self) {
        self.status_deferred.inc();
    }

    pub fn secret_written(&self) {
        self.secrets_written.inc();
    }

    pub fn fleet_written(&self, devices: usize) {
        self.fleet_devices.inc_by(devices as u64);
    }

    pub fn left_behind(&self, kind: &'static str) {
        self.left_behind.get_or_create(&OfKind { kind }).inc();
    }

    pub fn reviewed(&self, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "refused" };
        self.reviews.get_or_create(&Reviewed { outcome }).inc();
    }

    pub fn leads(&self, leads: bool) {
        tracing::info!(leads, "leadership");
        self.leading.set(leads.into());
    }
}
