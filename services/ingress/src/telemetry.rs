//! What the ingress tells of itself: one call writes the log line and moves the metric.
//!
//! Labels are closed lists of ours; tenants, devices and clients are named in log lines only.

mod lines;

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use drover_bus::Position;
use drover_host::Metrics;
use drover_types::Qos;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::domain::connection::{Claims, Close, CloseReason, Fault};
use crate::domain::identity::AuthenticateError;
use crate::domain::session::Dropped;
use crate::domain::sessions::AttachError;
use lines::Lines;

/// Lines about the log or the sockets come at most this often.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);
/// Lines about clients that are refused or closed: what others decide the number of. About 30 MB a day at most.
const CLIENTS_INTERVAL: Duration = Duration::from_secs(10);
/// Most of them in that interval, of each kind.
const CLIENT_LINES_MAX: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNotice {
    notice: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
    queue: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQos {
    qos: u32,
}

/// The questions to the registry by now.
#[derive(Clone, Default)]
pub struct QuestionGauges {
    /// Those that wait for a call.
    pub waiting: Gauge,
    /// Those of calls under way.
    pub asked: Gauge,
}

/// Metrics `drover_ingress_*`.
pub struct Telemetry {
    connections: Gauge,
    connects: Counter,
    closes: Family<Reason, Counter>,
    connects_refused: Family<Reason, Counter>,
    registry_questions: Family<OfState, Gauge>,
    refused: Counter,
    messages_in: Family<OfQos, Counter>,
    /// Of each QoS, found already: these are asked for with every message.
    messages_in_of: [Counter; 3],
    messages_refused: Family<Reason, Counter>,
    messages_delayed: Counter,
    messages_waiting: Family<OfQueue, Gauge>,
    subscriptions_refused: Family<Reason, Counter>,
    protocol_errors: Family<Reason, Counter>,
    messages_out: Family<OfQos, Counter>,
    messages_out_of: [Counter; 3],
    drops: Family<Reason, Counter>,
    withheld: Counter,
    awaited: Gauge,
    too_slow: Counter,
    unacknowledged: Counter,
    acknowledged_seconds: Histogram,
    superseded: Counter,
    wills_dropped: Counter,
    retained_unread: Counter,
    session_changes: Counter,
    session_writes_failed: Counter,
    sessions_unreadable: Counter,
    sessions_not_kept: Counter,
    sessions_claimed: Counter,
    events_skipped: Counter,
    events_malformed: Counter,
    notices_untold: Family<OfNotice, Counter>,
    not_forwarded: Family<Reason, Counter>,
    /// About the log or the sockets.
    trouble: Lines,
    /// About clients that were not admitted.
    refusals: Lines,
    /// About connections closed for a fault.
    faults: Lines,
}

impl Telemetry {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let (messages_in, messages_out) = (Family::default(), Family::default());
        let telemetry = Self {
            connections: Gauge::default(),
            connects: Counter::default(),
            closes: Family::default(),
            connects_refused: Family::default(),
            registry_questions: Family::default(),
            refused: Counter::default(),
            messages_in_of: of_each_qos(&messages_in),
            messages_in,
            messages_refused: Family::default(),
            messages_delayed: Counter::default(),
            messages_waiting: Family::default(),
            subscriptions_refused: Family::default(),
            protocol_errors: Family::default(),
            messages_out_of: of_each_qos(&messages_out),
            messages_out,
            drops: Family::default(),
            withheld: Counter::default(),
            awaited: Gauge::default(),
            too_slow: Counter::default(),
            unacknowledged: Counter::default(),
            acknowledged_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            superseded: Counter::default(),
            wills_dropped: Counter::default(),
            retained_unread: Counter::default(),
            session_changes: Counter::default(),
            session_writes_failed: Counter::default(),
            sessions_unreadable: Counter::default(),
            sessions_not_kept: Counter::default(),
            sessions_claimed: Counter::default(),
            events_skipped: Counter::default(),
            events_malformed: Counter::default(),
            notices_untold: Family::default(),
            not_forwarded: Family::default(),
            trouble: Lines::new(1, TROUBLE_INTERVAL),
            refusals: Lines::new(CLIENT_LINES_MAX, CLIENTS_INTERVAL),
            faults: Lines::new(CLIENT_LINES_MAX, CLIENTS_INTERVAL),
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
            registry.register("connects_refused", "CONNECTs refused, by reason", self.connects_refused.clone());
            let questions = self.registry_questions.clone();
            registry.register("registry_questions", "Questions to the registry by now, by state", questions);
            registry.register("connections_refused", "Connections over the limit", self.refused.clone());
            registry.register("messages_in", "Messages stored, by QoS", self.messages_in.clone());
            registry.register("messages_refused", "Messages refused, by cause", self.messages_refused.clone());
            let delayed = self.messages_delayed.clone();
            registry.register(
                "messages_delayed",
                "Messages over a quota, after which their client was not read",
                delayed,
            );
            let waiting = self.messages_waiting.clone();
            registry.register("messages_waiting", "Messages in queues of this node, by queue", waiting);
            let refused = self.subscriptions_refused.clone();
            registry.register("subscriptions_refused", "Subscriptions refused, by cause", refused);
            let errors = self.protocol_errors.clone();
            registry.register("protocol_errors", "Connections ended for what the client sent, by cause", errors);
            registry.register("messages_out", "Messages sent to subscribers, by QoS", self.messages_out.clone());
            registry.register("messages_dropped", "Messages not delivered, by reason", self.drops.clone());
            let withheld = "Messages not acknowledged before a subscriber has room for them";
            registry.register("messages_withheld", withheld, self.withheld.clone());
            registry.register("subscribers_awaited", "Subscribers that publishers wait for", self.awaited.clone());
            let too_slow = "Times that publishers have waited for a subscriber for too long";
            registry.register("subscribers_too_slow", too_slow, self.too_slow.clone());
            registry.register("appends_failed", "Batches the log did not confirm", self.unacknowledged.clone());
            let seconds = self.acknowledged_seconds.clone();
            registry.register("stored_seconds", "From reading messages to their being durable", seconds);
            let superseded = "Messages not stored: their connection was replaced, or lost earlier ones, meanwhile";
            registry.register("messages_superseded", superseded, self.superseded.clone());
            registry.register("wills_dropped", "Wills given up over the limit", self.wills_dropped.clone());
            let unread = self.retained_unread.clone();
            registry.register("retained_unread", "Subscriptions whose retained messages could not be read", unread);
            let changes = self.session_changes.clone();
            registry.register("session_changes", "Changes of sessions written to the store", changes);
            let failed = self.session_writes_failed.clone();
            registry.register("session_writes_failed", "Writes of sessions that failed, to be made again", failed);
            let unreadable = self.sessions_unreadable.clone();
            registry.register("sessions_unreadable", "Sessions of before the start that cannot be read", unreadable);
            let not_kept = self.sessions_not_kept.clone();
            registry.register("sessions_not_kept", "Sessions ended, as the store cannot take them", not_kept);
            let claimed = self.sessions_claimed.clone();
            registry.register("sessions_claimed", "Sessions taken from nodes that are gone", claimed);
            let skipped = self.events_skipped.clone();
            registry.register("events_skipped", "Lifecycle events too old when they could be read", skipped);
            let malformed = self.events_malformed.clone();
            registry.register("events_malformed", "Lifecycle events that cannot be read", malformed);
            let untold = self.notices_untold.clone();
            registry.register("notices_untold", "Notices that nobody was told, by what they are", untold);
            let not_forwarded = self.not_forwarded.clone();
            registry.register(
                "messages_not_forwarded",
                "Messages not offered to another node, by reason",
                not_forwarded,
            );
        });
    }

    /// What shows the questions to the registry.
    pub fn registry_questions(&self) -> QuestionGauges {
        let of = |state| self.registry_questions.get_or_create(&OfState { state }).clone();
        QuestionGauges { waiting: of("waiting"), asked: of("asked") }
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
        if let (CloseReason::ProtocolError, Some(fault)) = (close.reason, &close.fault) {
            self.protocol_errors.get_or_create(&Reason { reason: fault.reason_code().name() }).inc();
        }
        let Some(fault) = &close.fault else {
            tracing::debug!(client, %peer, reason, "connection ended");
            return;
        };
        match close.reason {
            CloseReason::Drain | CloseReason::TakenOver | CloseReason::KeepAlive | CloseReason::NodeLost => {
                tracing::debug!(client, %peer, reason, "connection ended");
            }
            CloseReason::NotStored | CloseReason::NotKept => {} // said once by `not_stored` and `session_not_kept`
            CloseReason::Client | CloseReason::ConnectionLost | CloseReason::Revoked | CloseReason::ProtocolError => {
                self.faults.write(|left_out| {
                    tracing::warn!(client, %peer, reason, cause = %fault, left_out, "connection closed");
                });
            }
        }
    }

    /// A client was not admitted. Its names are quoted: they are whatever it has sent.
    pub fn connect_refused(&self, claims: &Claims, peer: SocketAddr, fault: &Fault) {
        let reason = refusal(fault);
        self.connects_refused.get_or_create(&Reason { reason }).inc();
        let Claims { client, user_name } = claims;
        let user_name = user_name.as_deref().unwrap_or_default();
        self.refusals.write(|left_out| {
            tracing::warn!(?client, ?user_name, %peer, reason, cause = %fault, left_out, "connect refused");
        });
    }

    /// Time has passed: what was left out of the log is told, even if no line follows.
    pub fn tick(&self) {
        for (lines, what) in [(&self.refusals, "connect refused"), (&self.faults, "connection closed")] {
            if let Some(left_out) = lines.overdue() {
                tracing::warn!(left_out, what, "lines were left out");
            }
        }
    }

    /// Lifecycle events will not reach the subscribers of this node: they were old when it could read them.
    pub fn events_skipped(&self, count: u64) {
        self.events_skipped.inc_by(count);
        self.seldom(|left_out| tracing::warn!(count, left_out, "lifecycle events skipped, the log was out of reach"));
    }

    /// A record of the lifecycle events cannot be read; it is skipped.
    pub fn event_malformed(&self, position: &Position, error: &dyn Display) {
        self.events_malformed.inc();
        self.seldom(|left_out| tracing::warn!(?position, %error, left_out, "lifecycle event skipped"));
    }

    /// A device has more `refusal`s, or changes of a `subscription`, than are told.
    pub fn untold(&self, notice: &'static str) {
        self.notices_untold.get_or_create(&OfNotice { notice }).inc();
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
        self.messages_in_of[usize::from(qos.min(2))].inc();
    }

    /// A batch is durable, this long after it was read.
    pub fn stored_after(&self, elapsed: Duration) {
        self.acknowledged_seconds.observe(elapsed.as_secs_f64());
    }

    /// Messages that were not stored, because their client has come back on another connection, or sends them again
    /// after earlier ones that were lost.
    pub fn superseded(&self, count: usize) {
        if count > 0 {
            self.superseded.inc_by(count as u64);
        }
    }

    /// The log did not confirm a batch.
    pub fn not_stored(&self, error: &dyn Display) {
        self.unacknowledged.inc();
        self.seldom(
            |left_out| tracing::error!(%error, left_out, "log did not confirm messages; closing their connection"),
        );
    }

    /// One message or subscription of a client was refused, its connection goes on.
    pub fn message_refused(&self, client: &str, peer: SocketAddr, fault: &Fault) {
        let reason = fault.reason_code().name();
        let subscription = fault.is_about_a_filter();
        let counter = if subscription { &self.subscriptions_refused } else { &self.messages_refused };
        counter.get_or_create(&Reason { reason }).inc();
        let what = if subscription { "subscription refused" } else { "message refused" };
        self.seldom(|left_out| tracing::warn!(client, %peer, cause = %fault, left_out, "{what}"));
    }

    /// How many messages are in one of the node's queues by now.
    pub fn waiting(&self, queue: &'static str, messages: usize) {
        self.messages_waiting.get_or_create(&OfQueue { queue }).set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// A message was taken that is over a quota; its client is not read for a while.
    pub fn message_delayed(&self) {
        self.messages_delayed.inc();
    }

    /// A message was written to a subscriber.
    pub fn delivered(&self, qos: Qos) {
        self.messages_out_of[qos as usize].inc();
    }

    /// Messages will not reach a subscriber.
    pub fn dropped(&self, why: Dropped, count: usize) {
        if count == 0 {
            return;
        }
        let reason = match why {
            Dropped::InboxFull => "inbox_full",
            Dropped::SlowReader => "slow_reader",
            Dropped::Away => "away",
            Dropped::Expired => "expired",
            Dropped::TooLarge => "too_large",
            Dropped::NotAllowed => "not_allowed",
            Dropped::SessionExpired => "session_expired",
            Dropped::CleanStart => "clean_start",
            Dropped::SessionClosed => "session_closed",
            Dropped::NodeStopped => "node_stopped",
            Dropped::Moved => "moved",
            Dropped::RetainedFull => "retained_full",
            Dropped::NoMember => "no_member",
            Dropped::NotKept => "not_kept",
        };
        self.drops.get_or_create(&Reason { reason }).inc_by(count as u64);
    }

    /// A message is not acknowledged before a subscriber has room for it.
    pub fn withheld(&self) {
        self.withheld.inc();
    }

    /// Publishers wait for so many subscribers by now.
    pub fn subscribers_awaited(&self, count: usize) {
        self.awaited.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Publishers have waited for a subscriber for too long: they wait no longer, and what it has no room for is dropped.
    pub fn subscriber_too_slow(&self, client: &impl Display) {
        self.too_slow.inc();
        self.seldom(|left_out| tracing::warn!(%client, left_out, "a subscriber is too slow; its inbox is full"));
    }

    /// Messages were not offered to the subscribers of another node.
    pub fn not_forwarded(&self, reason: &'static str, count: usize) {
        self.not_forwarded.get_or_create(&Reason { reason }).inc_by(count as u64);
    }

    /// Another ingress node answers.
    pub fn peer_live(&self, node: &str) {
        tracing::info!(node, "ingress node is there");
    }

    /// Another ingress node has not answered for a lease.
    pub fn peer_away(&self, node: &str, error: &str) {
        tracing::warn!(node, error, "ingress node is away; messages pass it by");
    }

    /// A will is given up: too many wait for the log already.
    pub fn will_dropped(&self, client: &impl Display) {
        self.wills_dropped.inc();
        self.seldom(|left_out| tracing::error!(%client, left_out, "will dropped, too many wait for the log"));
    }

    /// The retained messages of a subscription cannot be read; those not sent yet will not be.
    pub fn retained_unread(&self, error: &dyn Display) {
        self.retained_unread.inc();
        self.seldom(|left_out| tracing::error!(%error, left_out, "retained messages cannot be read"));
    }

    /// Messages to be retained are not, and those that are waiting for that wait; or one never will be.
    pub fn not_retained(&self, error: &dyn Display) {
        self.seldom(|left_out| tracing::error!(%error, left_out, "messages cannot be retained"));
    }

    /// Retained messages whose time is over cannot be removed now.
    pub fn retained_not_swept(&self, error: &dyn Display) {
        self.seldom(|left_out| tracing::warn!(%error, left_out, "old retained messages cannot be removed"));
    }

    /// Changes of sessions are in the store.
    pub fn sessions_written(&self, count: usize) {
        self.session_changes.inc_by(count as u64);
    }

    /// Changes of sessions are not in the store; they are written again.
    pub fn sessions_not_written(&self, error: &dyn Display) {
        self.session_writes_failed.inc();
        self.seldom(
            |left_out| tracing::error!(%error, left_out, "sessions cannot be written; who waits for that waits"),
        );
    }

    /// A session is not taken back, or not all of it: what the store has of it makes no sense.
    pub fn session_unreadable(&self, client: &impl Display, error: &dyn Display) {
        self.sessions_unreadable.inc();
        self.seldom(|left_out| tracing::error!(%client, %error, left_out, "a session of before cannot be read"));
    }

    /// What a former owner may have written late to the inbox of a session cannot be read now.
    pub fn inbox_unread(&self, client: &impl Display, error: &dyn Display) {
        self.seldom(|left_out| tracing::warn!(%client, %error, left_out, "the inbox of a session cannot be read"));
    }

    /// A session ends, for the store cannot take what is to be kept of it.
    pub fn session_not_kept(&self, client: &impl Display, error: &dyn Display) {
        self.sessions_not_kept.inc();
        self.seldom(|left_out| tracing::error!(%client, %error, left_out, "a session cannot be kept, and ends"));
    }

    /// This node has its share of the sessions of one that is gone.
    pub fn sessions_claimed(&self, gone: &str, count: usize) {
        if count > 0 {
            self.sessions_claimed.inc_by(count as u64);
            tracing::info!(gone, count, "sessions of an ingress node that is gone are taken");
        }
    }

    /// Sessions of a node that is gone cannot be taken now; messages that may be for them wait.
    pub fn sessions_not_claimed(&self, gone: &str, error: &dyn Display) {
        self.seldom(
            |left_out| tracing::error!(gone, %error, left_out, "sessions of a node that is gone cannot be taken"),
        );
    }

    fn seldom(&self, line: impl FnOnce(u64)) {
        self.trouble.write(line);
    }
}

fn of_each_qos(family: &Family<OfQos, Counter>) -> [Counter; 3] {
    [0, 1, 2].map(|qos| family.get_or_create(&OfQos { qos }).clone())
}

/// The label of a refused CONNECT.
fn refusal(fault: &Fault) -> &'static str {
    match fault {
        Fault::Authentication(AuthenticateError::Wrong { .. }) => "wrong_credentials",
        Fault::Authentication(AuthenticateError::Refused { .. }) => "refused",
        Fault::Authentication(AuthenticateError::Unavailable { .. }) | Fault::NoAnswerInTime => "unavailable",
        Fault::Session(AttachError::NoOwner { .. }) => "no_owner",
        Fault::Session(AttachError::NotRead { .. }) => "store",
        Fault::NoCredentials => "no_credentials",
        Fault::ConnectDenied { .. } | Fault::PublishDenied { .. } => "policy",
        Fault::AuthenticationMethod | Fault::Challenge | Fault::NotAuthenticated => "method",
        Fault::ClientIdMissing | Fault::ClientIdTooLong { .. } => "client_id",
        Fault::Topic(_) | Fault::NoShadows { .. } => "will",
        Fault::OverLimit | Fault::Session(AttachError::TooManySessions { .. }) => "over_limit",
        Fault::Session(AttachError::TooManyConnections { .. }) => "quota",
        Fault::ConnectRate { .. } => "rate",
        Fault::Session(AttachError::Revoked)
        | Fault::Revoked
        | Fault::Expired
        | Fault::ConnectWithdrawn { .. }
        | Fault::SubscriptionWithdrawn { .. } => "revoked",
        Fault::Drain => "drain",
        Fault::TakenOver | Fault::Session(AttachError::TakenOver) => "taken_over",
        Fault::KeepAlive | Fault::NotStored | Fault::DeclaredGone | Fault::NotKept => "node",
        Fault::Malformed(_)
        | Fault::NoConnectInTime
        | Fault::NotConnected { .. }
        | Fault::SecondConnect
        | Fault::Unexpected { .. }
        | Fault::AliasOverLimit { .. }
        | Fault::AliasUnknown { .. }
        | Fault::PayloadTooLarge { .. }
        | Fault::OverQuota(_)
        | Fault::SubscribeDenied { .. }
        | Fault::FilterDenied { .. }
        | Fault::Filter(_)
        | Fault::TooManyFilters { .. }
        | Fault::ReceiveMaximum { .. }
        | Fault::Unreleased { .. }
        | Fault::Answer { .. }
        | Fault::ExpiryFromZero => "protocol",
    }
}
