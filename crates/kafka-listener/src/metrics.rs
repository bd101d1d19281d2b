//! Metrics of the listener: `drover_kafka_*`. Labels hold names of APIs and reasons only, never clients or topics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::authentication::Reason;
use crate::wire::api::Api;

/// What the listener counts. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) malformed: Counter,
    authentication_failures: Family<ByReason, Counter>,
    requests: Family<ByApi, Counter>,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByApi {
    api: Api,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Reason,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl EncodeLabelValue for Api {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl Metrics {
    /// Registers everything under `drover_kafka_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("drover_kafka");
        registry.register("connections", "open connections of Kafka clients", self.connections.clone());
        let refused = self.connections_refused.clone();
        registry.register("connections_refused", "connections closed because of the limit", refused);
        registry.register("malformed", "connections closed because of a malformed request", self.malformed.clone());
        let failures = self.authentication_failures.clone();
        registry.register("authentication_failures", "clients that were not let in, by reason", failures);
        registry.register("requests", "requests by API", self.requests.clone());
        registry.register_with_unit("received", "bytes of requests", Unit::Bytes, self.received.clone());
        registry.register_with_unit("sent", "bytes of responses", Unit::Bytes, self.sent.clone());
    }

    pub(crate) fn count_failure(&self, reason: Reason) {
        self.authentication_failures.get_or_create(&ByReason { reason }).inc();
    }

    pub(crate) fn count_request(&self, api: Api) {
        self.requests.get_or_create(&ByApi { api }).inc();
    }
}
