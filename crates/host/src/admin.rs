//! The admin port: is it alive, can it work, what does it measure. No secrets, nothing that changes anything.

use std::collections::BTreeMap;
use std::io;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::{Health, Metrics, Shutdown};

/// The [`ListenSpec::name`](crate::ListenSpec::name) of the admin listener.
pub const SOCKET: &str = "admin";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown`.
pub async fn serve(
    listeners: Vec<TcpListener>,
    health: Health,
    metrics: Metrics,
    shutdown: Shutdown,
) -> io::Result<()> {
    let routes = routes(health, metrics);
    let servers = listeners.into_iter().map(|listener| {
        let stop = shutdown.clone().cancelled_owned();
        async { axum::serve(listener, routes.clone()).with_graceful_shutdown(stop).await }
    });
    futures::future::try_join_all(servers).await?;
    // Without listeners there is nothing to serve, but it is no reason to end the process.
    shutdown.cancelled().await;
    Ok(())
}

fn routes(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness).with_state(health))
        .route("/metrics", get(exposition).with_state(metrics))
}

/// 200 `{"ready": true}`, or 503 `{"ready": false, "waiting": {WHO: WHY}}`; in either `"missed": {WHAT: WHY}` is what
/// the process can do without but does not reach.
async fn readiness(State(health): State<Health>) -> impl IntoResponse {
    let waiting: BTreeMap<&str, String> = health.obstacles().into_iter().collect();
    let missed = health.missed();
    let mut answer = serde_json::json!({"ready": waiting.is_empty()});
    let status = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !waiting.is_empty() {
        answer["waiting"] = serde_json::json!(waiting);
    }
    if !missed.is_empty() {
        answer["missed"] = serde_json::json!(missed);
    }
    (status, Json(answer))
}

async fn exposition(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::Response;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(health: &Health, metrics: &Metrics, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        routes(health.clone(), metrics.clone()).oneshot(request).await.expect("infallible")
    }

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_process_is_ready_when_all_its_services_are() {
        let (health, metrics) = (Health::default(), Metrics::default());
        let (one, two) = (health.service("one"), health.service("two"));
        one.ready();
        two.waiting("catching up");
        let response = ask(&health, &metrics, "/readyz").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(response).await, r#"{"ready":false,"waiting":{"two":"catching up"}}"#);
        two.ready();
        health.miss("three", Some("away".to_owned()));
        let response = ask(&health, &metrics, "/readyz").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, r#"{"ready":true,"missed":{"three":"away"}}"#);
        one.waiting("draining");
        assert_eq!(ask(&health, &metrics, "/healthz").await.status(), StatusCode::OK, "alive even while not ready");
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_and_tell_of_the_process() {
        let metrics = Metrics::default();
        crate::process::register(&metrics, &drover_types::FixedClock::at(1_500));
        let response = ask(&Health::default(), &metrics, "/metrics").await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], OPEN_METRICS);
        let text = body(response).await;
        assert!(text.contains("\nprocess_start_time_seconds 1.5\n"), "{text}");
        for name in
            ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_cpu_seconds_total"]
        {
            let sample =
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            assert!(sample.trim().parse::<f64>().expect("a number") > 0.0, "{name}{sample}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
