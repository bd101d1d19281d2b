//! What the ingress tells of itself: one call writes the log line and moves the metric.
//!
//! Labels are closed lists of ours; tenants, devices and clients are named in log lines only.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use drover_host::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use crate::domain::connection::{Close, CloseReason, Fault};
use crate::domain::identity::AuthenticateError;
use crate::domain::session::Dropped;

/// Log lines about the same trouble come at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQos {
    qos: u32,
}

/// Metrics `drover_ingress_*`.
pub struct Telemetry {
    connections: Gauge,
    connects: Counter,
    closes: Family<Reason, Counter>,
    authentication_failures: Family<Reason, Counter>,
    refused: Counter,
    messages_in: Family<OfQos, Counter>,
    messages_refused: Family<Reason, Counter>,
    messages_out: Family<OfQos, Counter>,
    drops: Family<Reason, Counter>,
    unacknowledged: Counter,
    acknowledged_seconds: Histogram,
    wills_dropped: Counter,
    /// When the last line about the log or the sockets was written, and how many were left out since.
    quiet: Mutex<Option<(Instant, u64)>>,
}

impl Telemetry {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let telemetry = Self {
            connections: Gauge::default(),
            connects: Counter::default(),
            closes: Family::default(),
            authentication_failures: Family::default(),
            refused: Counter::default(),
            messages_in: Family::default(),
            messages_refused: Family::default(),
            messages_out: Family::default(),
            drops: Family::default(),
            unacknowledged: Counter::default(),
            acknowledged_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            wills_dropped: Counter::default(),
            quiet: Mutex::new(None),
        };
        telemetry.register(metrics);
        telemetry
    }

    fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("drover_ingress");
            registry.register("connections", "Open connections", self.connections.clone());
            registry.register("connects", "Accepted CONNECTs", self.connects.clone());
            registry.register("closes", "Ended connections by reason", self.closes.clone());
            let failures = self.authentication_failures.clone();
            registry.register("authentication_failures", "CONNECTs refused by cause", failures);
            registry.register("connections_refused", "Connections over the limit", self.refused.clone());
            registry.register("messages_in", "Messages stored, by QoS", self.messages_in.clone());
            registry.register("messages_refused", "Messages refused, by cause", self.messages_refused.clone());
            registry.register("messages_out", "Messages sent to subscribers, by QoS", self.messages_out.clone());
            registry.register("messages_dropped", "Messages not delivered, by reason", self.drops.clone());
            registry.register("appends_failed", "Batches the log did not confirm", self.unacknowledged.clone());
            let seconds = self.acknowledged_seconds.clone();
            registry.register("stored_seconds", "From reading messages to their being durable", seconds);
            registry.register("wills_dropped", "Wills given up over the limit", self.wills_dropped.clone());
        });
    }

    /// A socket was accepted.
    pub fn opened(&self) {
        self.connections.inc();
    }

    /// A socket was closed, whatever became of it.
    pub fn closed(&self) {
        self.connections.dec();
    }

    /// A client is connected.
    pub fn connected(&self, client: &impl Display, peer: SocketAddr) {
        self.connects.inc();
        tracing::debug!(%client, %peer, "connected");
    }

    /// A connection ended. One line names the client and the cause if there was a fault.
    pub fn ended(&self, client: Option<&str>, peer: SocketAddr, close: &Close) {
        let reason = close.reason.name();
        self.closes.get_or_create(&Reason { reason }).inc();
        let client = client.unwrap_or("");
        let Some(fault) = &close.fault else {
            tracing::debug!(client, %peer, reason, "connection ended");
            return;
        };
        if let Some(cause) = authentication_cause(fault) {
            self.authentication_failures.get_or_create(&Reason { reason: cause }).inc();
        }
        match close.reason {
            CloseReason::Drain | CloseReason::TakenOver | CloseReason::KeepAlive => {
                tracing::debug!(client, %peer, reason, "connection ended");
            }
            CloseReason::NotStored => {} // said once by `not_stored`
            CloseReason::Client | CloseReason::ConnectionLost | CloseReason::Revoked | CloseReason::ProtocolError => {
                tracing::warn!(client, %peer, reason, cause = %fault, "connection closed");
            }
        }
    }

    /// A connection was closed because there are too many.
    pub fn refused(&self, peer: SocketAddr) {
        self.refused.inc();
        self.seldom(|left_out| tracing::warn!(%peer, left_out, "connection refused, node has no room"));
    }

    /// A transport failed before MQTT began.
    pub fn transport_failed(&self, peer: SocketAddr, error: &dyn Display) {
        self.closes.get_or_create(&Reason { reason: "transport" }).inc();
        self.seldom(|left_out| tracing::info!(%peer, %error, left_out, "connection failed before connect"));
    }

    /// A listener cannot accept.
    pub fn accept_failed(&self, error: &dyn Display) {
        self.seldom(|left_out| tracing::error!(%error, left_out, "cannot accept connections"));
    }

    /// A message is durable.
    pub fn stored(&self, qos: u8) {
        self.messages_in.get_or_create(&OfQos { qos: u32::from(qos) }).inc();
    }

    /// A batch is durable, this long after it was read.
    pub fn stored_after(&self, elapsed: Duration) {
        self.acknowledged_seconds.observe(elapsed.as_secs_f64());
    }

    /// The log did not confirm a batch.
    pub fn not_stored(&self, error: &dyn Display) {
        self.unacknowledged.inc();
        self.seldom(
            |left_out| tracing::error!(%error, left_out, "log did not confirm messages; closing their connection"),
        );
    }

    /// One message of a client was refused, its connection goes on.
    pub fn message_refused(&self, client: &str, peer: SocketAddr, fault: &Fault) {
        let reason = fault.reason_code().name();
        self.messages_refused.get_or_create(&Reason { reason }).inc();
        self.seldom(|left_out| tracing::warn!(client, %peer, cause = %fault, left_out, "message refused"));
    }

    /// A message was written to a subscriber.
    pub fn delivered(&self, qos0: bool) {
        self.messages_out.get_or_create(&OfQos { qos: u32::from(!qos0) }).inc();
    }

    /// A message will not reach a subscriber.
    pub fn dropped(&self, why: Dropped) {
        let reason = match why {
            Dropped::InboxFull => "inbox_full",
            Dropped::SlowReader => "slow_reader",
            Dropped::Away => "away",
            Dropped::Expired => "expired",
            Dropped::TooLarge => "too_large",
        };
        self.drops.get_or_create(&Reason { reason }).inc();
    }

    /// A will is given up: too many wait for the log already.
    pub fn will_dropped(&self, client: &impl Display) {
        self.wills_dropped.inc();
        self.seldom(|left_out| tracing::error!(%client, left_out, "will dropped, too many wait for the log"));
    }

    fn seldom(&self, line: impl FnOnce(u64)) {
        let now = Instant::now();
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *quiet {
            Some((last, left_out)) if now.duration_since(*last) < LOG_INTERVAL => *left_out += 1,
            last => {
                let left_out = last.take().map_or(0, |(_, left_out)| left_out);
                *last = Some((now, 0));
                line(left_out);
            }
        }
    }
}

/// The label of a failed authentication; `None` for other faults.
fn authentication_cause(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::Authentication(AuthenticateError::Wrong { .. }) => Some("wrong_credentials"),
        Fault::Authentication(AuthenticateError::Refused { .. }) => Some("refused"),
        Fault::Authentication(AuthenticateError::Unavailable { .. }) | Fault::NoAnswerInTime => Some("unavailable"),
        Fault::NoCredentials => Some("no_credentials"),
        Fault::ConnectDenied { .. } => Some("policy"),
        Fault::AuthenticationMethod => Some("method"),
        Fault::Malformed(_)
        | Fault::NoConnectInTime
        | Fault::NotConnected { .. }
        | Fault::SecondConnect
        | Fault::Unexpected { .. }
        | Fault::OverLimit
        | Fault::ClientIdMissing
        | Fault::ClientIdTooLong { .. }
        | Fault::Session(_)
        | Fault::PublishDenied { .. }
        | Fault::Topic(_)
        | Fault::AliasOverLimit { .. }
        | Fault::AliasUnknown { .. }
        | Fault::PayloadTooLarge { .. }
        | Fault::Qos2
        | Fault::Retain
        | Fault::ReceiveMaximum { .. }
        | Fault::ExpiryFromZero
        | Fault::KeepAlive
        | Fault::TakenOver
        | Fault::Revoked
        | Fault::Expired
        | Fault::Drain
        | Fault::NotStored => None,
    }
}
