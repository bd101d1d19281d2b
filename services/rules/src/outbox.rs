//! Runs the actions that are not Kafka outputs: at least once, in order per device, with the id as idempotency key.
//!
//! Nothing is dropped while the ingress is away: the partition goes back to the entry that failed and waits. What the
//! ingress refuses for good becomes a dead letter.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{AppendError, Bus, Outgoing, Stored};
use drover_host::grpc::Client;
use drover_host::{CarryOut, InOrder, Shutdown};
use drover_proto::from_status;
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::rules::v1::{OutboxEntry, outbox_entry};
use drover_types::ErrorCode;
use drover_types::limits::RECEIVE_MAXIMUM;
use prost::Message as _;

use crate::domain::{OUTBOX_TOPIC, dead_letter, without_source};
use crate::telemetry::Telemetry;

/// Consumer group of the outbox.
pub const OUTBOX_GROUP: &str = "drover.rules.outbox";
/// Entries of one poll; those of one partition run one after the other. After a crash they are sent again, so they must
/// fit the window that recognises what is sent again.
const POLL_RECORDS: usize = RECEIVE_MAXIMUM as usize;
/// Longest a single publish may take before it is tried again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The loop over `drover.rules.outbox`.
pub struct Outbox {
    bus: Arc<dyn Bus>,
    ingress: IngressClient<Client>,
    member: String,
    telemetry: Telemetry,
}

/// Why an entry was not done.
enum Failure {
    /// Try again.
    Later(String),
    /// Never will be.
    Refused(String),
}

impl Outbox {
    /// An outbox that publishes through `ingress`.
    pub fn new(bus: Arc<dyn Bus>, ingress: Client, member: String, telemetry: Telemetry) -> Self {
        Self { bus, ingress: IngressClient::new(ingress), member, telemetry }
    }

    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let (bus, member) = (Arc::clone(&self.bus), self.member.clone());
        let (group, topic, poll_records) = (OUTBOX_GROUP, OUTBOX_TOPIC, POLL_RECORDS);
        InOrder { bus, group, member, topic, poll_records }.run(&self, &shutdown).await;
    }

    /// Done means confirmed by the ingress, or buried for good. The error: why not yet.
    async fn run_one(&self, stored: &Stored) -> Result<(), String> {
        match self.publish(stored).await {
            Ok(()) => {
                self.telemetry.republished.inc();
                Ok(())
            }
            Err(Failure::Later(reason)) => Err(reason),
            Err(Failure::Refused(cause)) => {
                tracing::warn!(cause, offset = stored.position.offset, "an action becomes a dead letter");
                self.bury(dead_letter(stored, None, &cause)).await?;
                self.telemetry.republish_refused.inc();
                Ok(())
            }
        }
    }

    async fn publish(&self, stored: &Stored) -> Result<(), Failure> {
        let value = stored.record.value.clone().unwrap_or_default();
        let entry = OutboxEntry::decode(value).map_err(|error| Failure::Refused(error.to_string()))?;
        let Some(outbox_entry::Work::Republish(work)) = entry.work else {
            return Err(Failure::Refused("outbox entry has no work".to_owned()));
        };
        let request = PublishRequest {
            id: entry.id,
            tenant: entry.tenant,
            device: entry.device,
            client: format!("rule/{}", entry.rule),
            topic: work.topic,
            payload: work.payload,
            qos: work.qos,
            hops: work.hops,
            traceparent: entry.traceparent,
        };
        let mut ingress = self.ingress.clone();
        let answer = tokio::time::timeout(PUBLISH_TIMEOUT, ingress.publish(request)).await;
        let error = match answer {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => from_status(&status),
            Err(_) => return Err(Failure::Later("the ingress does not answer".to_owned())),
        };
        Err(if is_passing(error.code) { Failure::Later(error.message) } else { Failure::Refused(error.message) })
    }

    /// Returns when the dead letter is durable; without its source if the log finds it too large.
    async fn bury(&self, letter: Outgoing) -> Result<(), String> {
        let small = without_source(&letter);
        let appended = match (self.bus.append(vec![letter]).await, small) {
            (Err(AppendError::TooLarge { .. }), Some(small)) => self.bus.append(vec![small]).await,
            (appended, _) => appended,
        };
        let receipt = appended.map_err(|error| error.to_string())?;
        receipt.await.map(|_| ()).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl CarryOut for Outbox {
    async fn carry_out(&self, stored: &Stored) -> Result<(), String> {
        self.run_one(stored).await.inspect_err(|_| {
            self.telemetry.republish_retries.inc();
        })
    }
}

/// Whether the same request may succeed later.
fn is_passing(code: ErrorCode) -> bool {
    match code {
        ErrorCode::Cancelled
        | ErrorCode::Unknown
        | ErrorCode::DeadlineExceeded
        | ErrorCode::ResourceExhausted
        | ErrorCode::Aborted
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        // Of who asks, not of what is asked: a wrong token.
        | ErrorCode::Unauthenticated => true,
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PermissionDenied
        | ErrorCode::FailedPrecondition
        | ErrorCode::OutOfRange
        // What nobody here serves, shadows for example.
        | ErrorCode::Unimplemented
        | ErrorCode::DataLoss => false,
    }
}
