//! Calls to a service in other processes: a deadline on each, and another try where that does no harm.
//!
//! What may have been carried out is asked again only if its method says that this is harmless; what never left this
//! process is asked again in any case. Both within the call's deadline, a bounded number of times, further apart each
//! time, and of another replica first.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::header::HeaderValue;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use drover_types::Random;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tower::ServiceExt;

use crate::{Metrics, SystemRandom};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// A peer that has said nothing for this long is asked whether it is there, and has this long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A replica that could not be reached is passed over for this long while there are others.
const SHUNNED: Duration = Duration::from_secs(1);
/// Tries of one call, the first among them.
const TRIES_MAX: usize = 4;
/// First and longest wait between two tries; each is shortened by a random part, at most by half.
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The gRPC status and deadline of a call.
const STATUS: &str = "grpc-status";
const TIMEOUT: &str = "grpc-timeout";
/// The longest deadline the header can name in milliseconds: eight digits.
const TIMEOUT_MS_MAX: u128 = 99_999_999;

/// How services in other processes are called.
#[derive(Clone)]
pub struct Calling {
    /// Longest a call may take with all its tries, unless its caller says otherwise.
    pub deadline: Duration,
    /// Whether the method at this path may be called twice with the effect of once.
    pub is_idempotent: fn(&str) -> bool,
}

impl Default for Calling {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(15), is_idempotent: |_| false }
    }
}

/// Another way than TCP to services in other processes: for simulation.
#[async_trait]
pub trait Wires: Send + Sync + 'static {
    /// A new connection to whoever is at `uri`.
    async fn open(&self, uri: &Uri) -> io::Result<DuplexStream>;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    service: String,
}

/// A service in other processes. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    service: Arc<str>,
    replicas: Arc<[Replica]>,
    /// The replica that the next call begins with.
    turn: Arc<AtomicUsize>,
    calling: Calling,
    tally: Tally,
}

/// Counts of all services in other processes. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    retries: Family<Peer, Counter>,
    failures: Family<Peer, Counter>,
}

impl Tally {
    /// Adds the metrics.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("drover_network");
            registry.register("retries", "Calls made again, by service", self.retries.clone());
            registry.register("failures", "Calls that failed in the end, by service", self.failures.clone());
        });
    }
}

struct Replica {
    uri: Uri,
    channel: Channel,
    shunned_until: Mutex<Option<Instant>>,
}

/// A try that did not work.
struct Failed {
    status: Status,
    /// Whether the call may have reached the service.
    sent: bool,
    /// Whether the replica itself could not be reached.
    unreachable: bool,
}

impl Remote {
    /// Replicas are connected to when first used, and again whenever a connection breaks; by TCP, unless there are other
    /// `wires`. The error: `tls` cannot be used.
    pub fn new(
        service: &str,
        uris: Vec<Uri>,
        tls: Option<&ClientTlsConfig>,
        wires: Option<&Arc<dyn Wires>>,
        calling: Calling,
        tally: Tally,
    ) -> Result<Self, tonic::transport::Error> {
        let replica =
            |uri: Uri| Ok(Replica { channel: channel(uri.clone(), tls, wires)?, uri, shunned_until: Mutex::default() });
        let replicas = uris.into_iter().map(replica).collect::<Result<_, tonic::transport::Error>>()?;
        Ok(Self { service: service.into(), replicas, turn: Arc::default(), calling, tally })
    }

    /// Each replica by itself, named by its `HOST:PORT`.
    pub fn replicas(&self) -> Vec<(String, Self)> {
        let alone = |replica: &Replica| {
            let name = replica.uri.authority().map_or_else(|| replica.uri.to_string(), ToString::to_string);
            (name, Self { replicas: Arc::new([replica.again()]), turn: Arc::default(), ..self.clone() })
        };
        self.replicas.iter().map(alone).collect()
    }

    /// Makes one call. Its message is one, not a stream: it is kept to be sent again.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.collect().await?.to_bytes());
        let again = (self.calling.is_idempotent)(request.uri().path());
        let deadline = Instant::now() + timeout_of(request.headers()).unwrap_or(self.calling.deadline);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut tries, mut wait) = (0, WAIT_FIRST);
        loop {
            let replica = self.pick(turn + tries);
            let failed = match replica.try_once(request.clone(), deadline).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            replica.shun(failed.unreachable);
            tries += 1;
            // The first try of another replica follows at once.
            let pause = if tries < self.replicas.len() { Duration::ZERO } else { jittered(wait) };
            let safe = again || !failed.sent;
            if failed.status.code() != Code::Unavailable
                || !safe
                || tries >= TRIES_MAX
                || Instant::now() + pause >= deadline
            {
                self.count(&self.tally.failures);
                return Err(self.told(failed.status, replica));
            }
            self.count(&self.tally.retries);
            tracing::debug!(service = %self.service, replica = %replica.uri, status = %failed.status, tries, "again");
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
    }

    /// The replica whose turn it is, or the next that is not shunned.
    fn pick(&self, turn: usize) -> &Replica {
        let all = self.replicas.len();
        let in_turn = (0..all).map(|i| &self.replicas[(turn + i) % all]);
        let now = Instant::now();
        in_turn.clone().find(|replica| !replica.is_shunned(now)).unwrap_or(&self.replicas[turn % all])
    }

    fn count(&self, what: &Family<Peer, Counter>) {
        what.get_or_create(&Peer { service: self.service.to_string() }).inc();
    }

    /// A status of the transport says who cannot be reached; one of the service is handed on.
    fn told(&self, status: Status, replica: &Replica) -> Status {
        if status.code() == Code::Unavailable && status.details().is_empty() && status.source().is_some() {
            return Status::unavailable(format!("{} at {}: {}", self.service, replica.uri, causes(&status)));
        }
        status
    }
}

impl Replica {
    fn again(&self) -> Self {
        Self { uri: self.uri.clone(), channel: self.channel.clone(), shunned_until: Mutex::default() }
    }

    async fn try_once(&self, mut request: Request<Bytes>, deadline: Instant) -> Result<Response<Body>, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        let header = format!("{}m", left.as_millis().clamp(1, TIMEOUT_MS_MAX));
        let header = HeaderValue::try_from(header).expect("digits and a letter are a header value");
        request.headers_mut().insert(TIMEOUT, header);
        let call = self.channel.clone().oneshot(request.map(|message| Body::new(Full::new(message))));
        match tokio::time::timeout_at(deadline, call).await {
            Ok(Ok(response)) if is_unavailable(response.headers()) => {
                let status = Status::from_header_map(response.headers());
                let status = status.unwrap_or_else(|| Status::unavailable("the service is unavailable"));
                Err(Failed { status, sent: true, unreachable: false })
            }
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(late()),
        }
    }

    fn is_shunned(&self, now: Instant) -> bool {
        self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    fn shun(&self, unreachable: bool) {
        let until = unreachable.then(|| Instant::now() + SHUNNED);
        *self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

fn channel(
    uri: Uri,
    tls: Option<&ClientTlsConfig>,
    wires: Option<&Arc<dyn Wires>>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let endpoint = match tls {
        Some(tls) => endpoint.tls_config(tls.clone())?,
        None => endpoint,
    };
    let Some(wires) = wires.cloned() else { return Ok(endpoint.connect_lazy()) };
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let wires = wires.clone();
        async move { wires.open(&uri).await.map(TokioIo::new) }
    })))
}

/// What a broken transport means for the call.
fn failure(error: tonic::transport::Error) -> Failed {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    if causes.clone().any(|cause| cause.is::<TimeoutExpired>()) {
        return late();
    }
    let sent = !causes.any(|cause| cause.is::<ConnectError>());
    let mut status = Status::unavailable("cannot be reached");
    status.set_source(Arc::new(error));
    Failed { status, sent, unreachable: true }
}

fn late() -> Failed {
    let status = Status::deadline_exceeded("no answer within the call's deadline; whether it was done is unknown");
    Failed { status, sent: true, unreachable: false }
}

/// The innermost cause says it best: "connection refused".
fn causes(status: &Status) -> String {
    let chain = std::iter::successors(status.source(), |cause| (*cause).source());
    chain.last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn is_unavailable(headers: &HeaderMap) -> bool {
    headers.get(STATUS).is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unavailable)
}

/// The deadline that the caller has set, if it has.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value.saturating_mul(3_600))),
        "M" => Some(Duration::from_secs(value.saturating_mul(60))),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Between half of `wait` and all of it, so that those who failed together do not come back together.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    SystemRandom.fill(&mut random);
    wait.mul_f64(0.5 + f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) / 2.0)
}
