//! Counts requests of devices by what they ask for and how it ended, and the rows of batches.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use drover_host::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::{DeviceSide, websocket};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// `topics`, `batch`, `functions`, `update`, `write`, `mqtt` or `other`: paths hold topics, which do not belong in labels.
    route: &'static str,
    status: u16,
}

/// What became of a row: `kept` or `refused`.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Kept,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// Handles on the metrics.
#[derive(Clone)]
pub struct Telemetry {
    requests: Family<Labels, Counter>,
    rows: Family<OfOutcome, Counter>,
}

impl Telemetry {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let telemetry = Self { requests: Family::default(), rows: Family::default() };
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix("drover_ingress");
            own.register("http_requests", "Requests of devices, by route and HTTP status", telemetry.requests.clone());
            own.register("batch_rows", "Rows of batches, by outcome", telemetry.rows.clone());
        });
        telemetry
    }

    /// Rows of a batch have come to this.
    pub fn rows(&self, outcome: Outcome, count: usize) {
        let outcome = match outcome {
            Outcome::Kept => "kept",
            Outcome::Refused => "refused",
        };
        self.rows.get_or_create(&OfOutcome { outcome }).inc_by(count as u64);
    }
}

fn route(path: &str) -> &'static str {
    match path {
        "/update" => "update",
        "/v1/batch" => "batch",
        "/api/v2/write" => "write",
        websocket::PATH => "mqtt",
        path if path.starts_with("/v1/topics/") => "topics",
        path if path.starts_with("/v1/functions/") => "functions",
        _ => "other",
    }
}

/// Counts the request.
pub async fn measure(State(side): State<Arc<DeviceSide>>, request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    tracing::debug!(route, status, "a device's request was answered");
    side.telemetry.requests.get_or_create(&Labels { route, status }).inc();
    response
}
