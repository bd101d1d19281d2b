//! Deliveries by gRPC to every ingress node.
//!
//! A node that does not confirm is waited for; one that has been away for longer than [`PATIENCE`] is not: its clients
//! have gone to other nodes or are away as well, and a device that connects asks for its shadow.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, Peers, grpc};
use drover_proto::ingress::v1::DeliverRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::shadow::v1::Delivery;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::ports::{IngressNodes, Undelivered};
use crate::telemetry::Telemetry;

/// Longest one call may take before it is tried again.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a node may be away before deliveries go on without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a node that is away is tried.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// At least once to whoever subscribed at QoS 1.
const QOS: u32 = 1;

/// The ingress nodes a configuration names.
pub struct GrpcNodes {
    nodes: Peers<IngressClient<grpc::Client>>,
    away: Mutex<HashMap<String, Away>>,
    telemetry: Telemetry,
}

/// A node that did not confirm the last time.
#[derive(Clone, Copy)]
struct Away {
    since: Instant,
    tried: Instant,
}

/// What a node's answer means for the delivery.
enum Fate {
    Done,
    Again(Status),
}

impl GrpcNodes {
    /// Connects to each node when it is first needed.
    pub fn new(network: &Network, nodes: &[String], telemetry: Telemetry) -> Self {
        Self { nodes: Peers::new(network, nodes, IngressClient::new), away: Mutex::default(), telemetry }
    }

    /// Whether a node is asked now; one given up is asked now and then.
    fn is_asked(&self, node: &str, now: Instant) -> bool {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = away.get(node).is_none_or(|a| now - a.since < PATIENCE || now - a.tried >= TRY_AGAIN);
        if !asked {
            self.telemetry.deliveries_missed.inc();
        }
        asked
    }

    fn heard(&self, node: &str, answer: Result<(), Status>, now: Instant) -> Fate {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match answer {
            Ok(()) => None,
            Err(status) if status.code() == Code::InvalidArgument => {
                tracing::warn!(node, %status, "a delivery was refused");
                self.telemetry.deliveries_refused.inc();
                None
            }
            Err(status) => Some(status),
        };
        let Some(status) = status else {
            away.remove(node);
            return Fate::Done;
        };
        let entry = away.entry(node.to_owned()).or_insert(Away { since: now, tried: now });
        entry.tried = now;
        if now - entry.since < PATIENCE {
            return Fate::Again(status);
        }
        tracing::debug!(node, %status, "deliveries go on without a node that is away");
        self.telemetry.deliveries_missed.inc();
        Fate::Done
    }
}

#[async_trait]
impl IngressNodes for GrpcNodes {
    async fn deliver(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        let request = DeliverRequest {
            tenant: delivery.tenant.clone(),
            topic: delivery.topic.clone(),
            payload: delivery.payload.clone(),
            qos: QOS,
            client: delivery.client.clone(),
            epoch: delivery.epoch,
        };
        let call = |mut node: IngressClient<grpc::Client>| {
            let request = request.clone();
            async move { node.deliver(request).await }
        };
        let began = Instant::now();
        let answers = self.nodes.call(DEADLINE, |node| self.is_asked(node, began), call).await;
        let mut outcome = Ok(());
        for (node, answer) in answers {
            if let Fate::Again(status) = self.heard(node, answer.map(drop), Instant::now()) {
                outcome = Err(Undelivered { node: node.to_owned(), reason: status.to_string() });
            }
        }
        if outcome.is_ok() {
            self.telemetry.delivered.inc();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_waited_for_and_then_given_up_until_it_answers() {
        let telemetry = Telemetry::register(&mut prometheus_client::registry::Registry::default());
        let nodes = GrpcNodes::new(&Network::default(), &[], telemetry);
        let away = || Err(Status::unavailable("gone"));
        assert!(matches!(nodes.heard("a", away(), Instant::now()), Fate::Again(_)));
        tokio::time::advance(PATIENCE - Duration::from_millis(1)).await;
        assert!(nodes.is_asked("a", Instant::now()));
        assert!(matches!(nodes.heard("a", away(), Instant::now()), Fate::Again(_)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!nodes.is_asked("a", Instant::now()), "it was tried just now");
        tokio::time::advance(TRY_AGAIN).await;
        assert!(nodes.is_asked("a", Instant::now()));
        assert!(matches!(nodes.heard("a", away(), Instant::now()), Fate::Done));
        assert!(!nodes.is_asked("a", Instant::now()) && nodes.is_asked("b", Instant::now()));
        assert_eq!(nodes.telemetry.deliveries_missed.get(), 3);
        tokio::time::advance(TRY_AGAIN).await;
        assert!(matches!(nodes.heard("a", Ok(()), Instant::now()), Fate::Done));
        assert!(matches!(nodes.heard("a", away(), Instant::now()), Fate::Again(_)), "patience begins anew");
        let refused = Err(Status::invalid_argument("too large"));
        assert!(matches!(nodes.heard("b", refused, Instant::now()), Fate::Done));
    }
}
