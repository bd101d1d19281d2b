//! What the gateway tells about itself: one call writes the log line and moves the metric.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use drover_host::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::domain::tail::DropReason;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    /// The route's pattern, never the path: ids do not belong in labels.
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

/// Handles on the gateway's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    streams: Gauge,
    stream_messages: Counter,
    stream_dropped_records: Family<DropLabels, Counter<u64, AtomicU64>>,
}

/// Counts a live stream as long as it lives.
pub struct OpenStream(Telemetry);

impl Telemetry {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let inner = Inner {
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            streams: Gauge::default(),
            stream_messages: Counter::default(),
            stream_dropped_records: Family::default(),
        };
        metrics.register(|registry| {
            let mut add = |name: &str, help: &str, metric: Box<dyn prometheus_client::registry::Metric>| {
                registry.register(format!("drover_gateway_{name}"), help, metric);
            };
            add("requests", "Requests answered, by method, route and HTTP status", Box::new(inner.requests.clone()));
            add("request_seconds", "Time until the head of the answer", Box::new(inner.request_seconds.clone()));
            add("streams", "Live streams open now", Box::new(inner.streams.clone()));
            add("stream_messages", "Messages sent on live streams", Box::new(inner.stream_messages.clone()));
            add(
                "stream_dropped_records",
                "Records left out of live streams, by reason",
                Box::new(inner.stream_dropped_records.clone()),
            );
        });
        Self(Arc::new(inner))
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        tracing::debug!(method, route, status, seconds = took.as_secs_f64(), "answered");
        let labels = RequestLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.0.requests.get_or_create(&labels).inc();
        self.0.request_seconds.observe(took.as_secs_f64());
    }

    /// A live stream opened; the handle counts until it is dropped.
    pub fn stream_opened(&self) -> OpenStream {
        tracing::debug!("live stream opened");
        self.0.streams.inc();
        OpenStream(self.clone())
    }
}

impl OpenStream {
    /// A message went out.
    pub fn sent(&self) {
        self.0.0.stream_messages.inc();
    }

    /// Records were left out.
    pub fn dropped(&self, records: u64, reason: DropReason) {
        tracing::debug!(records, reason = reason.as_str(), "live stream left records out");
        self.0.0.stream_dropped_records.get_or_create(&DropLabels { reason: reason.as_str() }).inc_by(records);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.streams.dec();
    }
}
