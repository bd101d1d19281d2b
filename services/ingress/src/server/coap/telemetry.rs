//! Counts what comes by CoAP and what becomes of it.

use coap_lite::{MessageClass, ResponseType};
use drover_host::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    /// As `2.04`.
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Why a datagram came to nothing.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// It is no message that can be answered.
    Malformed,
    /// The socket did not take it, or could not be read.
    Socket,
    /// There is no association that it is for.
    Unassociated,
    /// As many of its handshake wait for a key as may.
    CrowdedOut,
}

/// What a handshake has come to.
#[derive(Clone, Copy, Debug)]
pub enum Handshaken {
    Completed,
    /// The key was wrong, or there is none.
    Refused,
    /// It was not as handshakes are.
    Failed,
    /// It took too long.
    Late,
    /// It had to give way to others.
    CrowdedOut,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Handles on the metrics.
#[derive(Default)]
pub struct Telemetry {
    requests: Family<Code, Counter>,
    repeats: Counter,
    crowded_out: Counter,
    lost: Family<Reason, Counter>,
    retransmissions: Counter,
    observers: Gauge,
    handshakes: Family<Outcome, Counter>,
    associations: Gauge,
}

impl Telemetry {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let telemetry = Self::default();
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix("drover_ingress");
            own.register("coap_requests", "Requests of devices, by code of the answer", telemetry.requests.clone());
            own.register("coap_repeats", "Requests that came again", telemetry.repeats.clone());
            let crowded_out = telemetry.crowded_out.clone();
            own.register("coap_exchanges_crowded_out", "Requests forgotten before their time", crowded_out);
            own.register("coap_datagrams_lost", "Datagrams that came to nothing, by reason", telemetry.lost.clone());
            let retransmissions = telemetry.retransmissions.clone();
            own.register("coap_retransmissions", "Messages sent again", retransmissions);
            own.register("coap_handshakes", "Handshakes of DTLS, by outcome", telemetry.handshakes.clone());
            own.register("coap_associations", "Associations of DTLS", telemetry.associations.clone());
            own.register("coap_observers", "Devices that observe", telemetry.observers.clone());
        });
        telemetry
    }

    /// A request is answered, whether or not the answer is wanted.
    pub fn answered(&self, code: ResponseType) {
        let code = MessageClass::Response(code).to_string();
        self.requests.get_or_create(&Code { code }).inc();
    }

    /// A request has come again.
    pub fn repeated(&self) {
        self.repeats.inc();
    }

    /// Requests were forgotten before their time: if they come again, they are carried out again.
    pub fn crowded_out(&self, count: u64) {
        self.crowded_out.inc_by(count);
    }

    /// A datagram came to nothing.
    pub fn lost(&self, why: Lost) {
        let reason = match why {
            Lost::Malformed => "malformed",
            Lost::Socket => "socket",
            Lost::Unassociated => "unassociated",
            Lost::CrowdedOut => "crowded_out",
        };
        self.lost.get_or_create(&Reason { reason }).inc();
    }

    /// A message was sent again.
    pub fn retransmitted(&self) {
        self.retransmissions.inc();
    }

    /// A handshake has ended.
    pub fn handshake(&self, how: Handshaken) {
        let outcome = match how {
            Handshaken::Completed => "completed",
            Handshaken::Refused => "refused",
            Handshaken::Failed => "failed",
            Handshaken::Late => "late",
            Handshaken::CrowdedOut => "crowded_out",
        };
        self.handshakes.get_or_create(&Outcome { outcome }).inc();
    }

    /// There is one more association.
    pub fn associated(&self) {
        self.associations.inc();
    }

    /// There is one less.
    pub fn dissociated(&self) {
        self.associations.dec();
    }

    /// A device observes.
    pub fn observing(&self) {
        self.observers.inc();
    }

    /// It does no more.
    pub fn observed(&self) {
        self.observers.dec();
    }
}
