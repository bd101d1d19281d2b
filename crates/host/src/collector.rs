//! The way to the collector of traces: says once that it is away and once that it is back, and counts what was lost.
//!
//! Nobody waits for it: spans gather in a bounded queue that a thread of its own hands over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;

use crate::Metrics;

/// An exporter that tells of its failures.
#[derive(Debug)]
pub struct Collector<E> {
    exporter: E,
    endpoint: String,
    away: AtomicBool,
    exported: Counter,
    lost: Counter,
}

impl<E> Collector<E> {
    /// Tells of `exporter`, which sends to `endpoint`.
    pub fn new(exporter: E, endpoint: &str, metrics: &Metrics) -> Self {
        let (exported, lost) = (Counter::default(), Counter::default());
        metrics.register(|registry| {
            registry.register("drover_trace_spans_exported", "Spans the collector has taken", exported.clone());
            registry.register("drover_trace_spans_lost", "Spans the collector did not take", lost.clone());
        });
        Self { exporter, endpoint: endpoint.to_owned(), away: AtomicBool::new(false), exported, lost }
    }

    fn handed_over(&self, spans: u64, outcome: &OTelSdkResult) {
        let endpoint = self.endpoint.as_str();
        match outcome {
            Ok(()) => {
                self.exported.inc_by(spans);
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint, "the collector takes traces again");
                }
            }
            Err(error) => {
                self.lost.inc_by(spans);
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint, %error, "the collector takes no traces; spans are lost until it does");
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Collector<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        self.handed_over(spans, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
