//! What the registry tells of itself: one call writes the log line, moves the metric, and keeps readiness true.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use drover_bus::Position;
use drover_host::{Counted, Metrics, Ready};
use drover_types::{DeviceKey, ErrorCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::object::ObjectKey;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Authentication {
    proof: &'static str,
    /// `ok`, or the code of the error.
    outcome: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: &'static str,
}

/// Metrics `drover_registry_*`, and what keeps the service from being ready.
pub struct Telemetry {
    ready: Ready,
    obstacles: Mutex<BTreeMap<&'static str, String>>,
    authentications: Family<Authentication, Counter>,
    authenticating: Gauge,
    issued: Counter,
    revocations: Counter,
    unconfirmed: Counter,
    published: Counter,
    events: Counter,
    malformed: Family<Topic, Counter>,
    failures: Counter,
}

impl Telemetry {
    /// Registers the metrics. The service is not ready before [`Telemetry::started`].
    pub fn new(metrics: &Metrics, ready: Ready) -> Self {
        let telemetry = Self {
            ready,
            obstacles: Mutex::new(BTreeMap::from([(STARTING, "starting".to_owned())])),
            authentications: Family::default(),
            authenticating: Gauge::default(),
            issued: Counter::default(),
            revocations: Counter::default(),
            unconfirmed: Counter::default(),
            published: Counter::default(),
            events: Counter::default(),
            malformed: Family::default(),
            failures: Counter::default(),
        };
        metrics.register(|registry| {
            let mut add = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
            add(
                "drover_registry_credentials_issued",
                "Tokens, certificates and pre-shared keys made",
                &telemetry.issued,
            );
            add(
                "drover_registry_revocations",
                "Revocations sent to ingress nodes, and API tokens deleted",
                &telemetry.revocations,
            );
            add("drover_registry_nodes_unconfirmed", "Nodes that did not confirm one", &telemetry.unconfirmed);
            add("drover_registry_changes_published", "Changes in the change feed", &telemetry.published);
            add("drover_registry_events_published", "Lifecycle events", &telemetry.events);
            add("drover_registry_failures", "Failures of the store or the bus", &telemetry.failures);
            let authentications = telemetry.authentications.clone();
            registry.register("drover_registry_authentications", "Proofs of identity, by outcome", authentications);
            let authenticating = telemetry.authenticating.clone();
            registry.register("drover_registry_authentications_under_way", "Proofs not judged yet", authenticating);
            let malformed = telemetry.malformed.clone();
            registry.register("drover_registry_records_malformed", "Records skipped as unreadable", malformed);
        });
        telemetry
    }

    /// Everything is open; what still waits says so by [`Telemetry::obstacle`].
    pub fn started(&self) {
        self.working(STARTING);
    }

    /// A part does its work.
    pub fn working(&self, part: &'static str) {
        let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        if obstacles.remove(part).is_some() {
            self.tell(&obstacles);
        }
    }

    /// A part cannot do its work for now.
    pub fn obstacle(&self, part: &'static str, why: &dyn Display) {
        self.failures.inc();
        self.waiting(part, &why.to_string());
    }

    /// A part waits; not a failure.
    pub fn waiting(&self, part: &'static str, why: &str) {
        let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        if obstacles.get(part).is_none_or(|known| known != why) {
            obstacles.insert(part, why.to_owned());
            self.tell(&obstacles);
        }
    }

    fn tell(&self, obstacles: &BTreeMap<&'static str, String>) {
        match obstacles.iter().next() {
            None => self.ready.ready(),
            Some((part, why)) => self.ready.waiting(format!("{part}: {why}")),
        }
    }

    /// So many try to prove who they are, until what this answers is dropped.
    pub fn authenticating(&self, count: usize) -> Counted {
        Counted::new(&self.authenticating, count)
    }

    /// Somebody tried to prove who they are.
    pub fn authenticated(&self, proof: &'static str, outcome: Result<(), ErrorCode>) {
        let outcome: Cow<'static, str> = outcome.map_or_else(|code| code.to_string().into(), |()| "ok".into());
        tracing::debug!(proof, %outcome, "authenticated");
        self.authentications.get_or_create(&Authentication { proof, outcome }).inc();
    }

    /// A credential was made.
    pub fn issued(&self) {
        self.issued.inc();
    }

    /// A token of the REST interface was made.
    pub fn api_token_made(&self, key: &ObjectKey) {
        tracing::info!(%key, "made");
        self.issued.inc();
    }

    /// A token of the REST interface was deleted.
    pub fn api_token_deleted(&self, key: &ObjectKey) {
        tracing::info!(%key, "deleted");
        self.revocations.inc();
    }

    /// Ingress nodes were told to forget a device.
    pub fn revoked(&self, device: &DeviceKey, unconfirmed: usize) {
        tracing::info!(%device, unconfirmed, "revoked");
        self.revocations.inc();
        self.unconfirmed.inc_by(unconfirmed as u64);
    }

    /// Changes are in the feed.
    pub fn published(&self, changes: usize) {
        self.published.inc_by(changes as u64);
    }

    /// Lifecycle events are in the log.
    pub fn events(&self, events: usize) {
        self.events.inc_by(events as u64);
    }

    /// A record cannot be read; it is skipped.
    pub fn malformed(&self, topic: &'static str, position: &Position, error: &dyn Display) {
        let Position { at, offset } = position;
        tracing::warn!(topic, partition = at.partition, offset, %error, "malformed record skipped");
        self.malformed.get_or_create(&Topic { topic }).inc();
    }
}

/// The part that is an obstacle until the service has started.
const STARTING: &str = "start";

#[cfg(test)]
mod tests {
    use drover_host::Health;

    use super::*;

    #[test]
    fn proofs_are_under_way_until_they_are_judged_or_given_up() {
        let metrics = Metrics::default();
        let telemetry = Telemetry::new(&metrics, Health::default().service("registry"));
        let shown = |count: usize| {
            let line = format!("drover_registry_authentications_under_way {count}");
            metrics.encode().lines().any(|shown| shown == line)
        };
        let (many, one) = (telemetry.authenticating(256), telemetry.authenticating(1));
        assert!(shown(257), "{}", metrics.encode());
        drop(many);
        assert!(shown(1));
        drop(one);
        assert!(shown(0));
    }
}
