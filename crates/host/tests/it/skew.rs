//! Clocks of two processes: every answer over TCP tells the time, and who asks says in the log when it is another than its own.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::middleware::map_response;
use axum::response::Response;
use drover_host::{SystemClock, dependency};
use drover_types::Clock;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::service::{Served, network};

const HEADER: &str = "drover-time-ms";
const DEADLINE: Duration = Duration::from_secs(30);
/// Far beyond what clocks may differ by.
const FAR_MS: u64 = 60_000;

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Lines about clocks.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text");
        text.lines().filter(|line| line.contains("clocks")).map(str::to_owned).collect()
    }
}

/// A process that answers whether it is there, by a clock that is ahead of ours by `ahead_ms`.
async fn served(ahead_ms: Arc<AtomicU64>) -> SocketAddr {
    let (_, health) = tonic_health::server::health_reporter();
    let tell_time = move |mut answer: Response| {
        let theirs_ms = SystemClock.now_ms() + ahead_ms.load(Ordering::Relaxed);
        answer.headers_mut().insert(HEADER, theirs_ms.into());
        std::future::ready(answer)
    };
    let routes = Routes::new(health).into_axum_router().layer(map_response(tell_time));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("bound");
    let serving = Server::builder().add_routes(Routes::from(routes)).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { serving.await.expect("serves") });
    address
}

#[tokio::test]
async fn every_answer_over_tcp_tells_the_time() {
    let served = Served::start();
    let mut health = HealthClient::new(network(&[served.address], DEADLINE).client("thing"));
    let before_ms = SystemClock.now_ms();
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.expect("there");
    let told = answer.metadata().get(HEADER).expect("the header").to_str().expect("text");
    let told_ms: u64 = told.parse().expect("a number");
    assert!((before_ms..=SystemClock.now_ms()).contains(&told_ms), "{told_ms}");
}

#[tokio::test]
async fn a_clock_that_differs_is_one_line_and_one_more_when_it_agrees_again() {
    let (log, ahead_ms) = (Log::default(), Arc::new(AtomicU64::new(0)));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let address = served(ahead_ms.clone()).await;
    let probe = dependency::service("thing", network(&[address], DEADLINE).client("thing"));
    for (ahead, lines) in [(0, 0), (FAR_MS, 1), (FAR_MS, 1), (0, 2), (FAR_MS, 3)] {
        ahead_ms.store(ahead, Ordering::Relaxed);
        probe().await.expect("there");
        assert_eq!(log.lines().len(), lines, "{ahead} ms ahead: {:?}", log.lines());
    }
    let lines = log.lines();
    for part in ["WARN", "clocks differ; set the clocks of all machines", r#"service="thing""#, "limit_ms=10000"] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    assert!(lines[0].contains("skew_ms=60") || lines[0].contains("skew_ms=59"), "{}", lines[0]);
    assert!(lines[1].contains("INFO") && lines[1].contains("clocks agree again"), "{}", lines[1]);
}
