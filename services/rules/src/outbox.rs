//! Runs the actions that are not Kafka outputs: at least once, in order per device, with the id as idempotency key.
//!
//! Nothing is dropped while the ingress is away: the partition goes back to the entry that failed and waits. What the
//! ingress refuses for good becomes a dead letter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, ConsumeError, Consumer, GroupConfig, Outgoing, Polled, Position, Start, Stored, TopicPartition};
use drover_host::grpc::Client;
use drover_host::{Backoff, Shutdown};
use drover_proto::from_status;
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::rules::v1::{OutboxEntry, outbox_entry};
use drover_types::ErrorCode;
use drover_types::limits::RECEIVE_MAXIMUM;
use futures::future::join_all;
use prost::Message as _;

use crate::domain::{OUTBOX_TOPIC, dead_letter};
use crate::telemetry::Telemetry;

/// Consumer group of the outbox.
pub const OUTBOX_GROUP: &str = "drover.rules.outbox";
/// Entries of one poll; those of one partition run one after the other. After a crash they are sent again, so they must
/// fit the window that recognises what is sent again.
const POLL_RECORDS: usize = RECEIVE_MAXIMUM as usize;
/// Longest wait of one poll.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A member that hangs for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest a single publish may take before it is tried again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest one partition's turn may take, so that the member polls well within its session timeout.
const TURN: Duration = Duration::from_secs(10);

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
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        loop {
            match self.session(&shutdown, &mut backoff).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(%error, "the outbox begins again from the committed offsets"),
            }
            if !backoff.wait(&shutdown).await {
                return Ok(());
            }
        }
    }

    async fn session(&self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), ConsumeError> {
        let config = GroupConfig {
            group: OUTBOX_GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![OUTBOX_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
        };
        let mut consumer = self.bus.join(config).await?;
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                polled = consumer.poll(POLL_RECORDS, POLL_WAIT) => polled?,
            };
            match polled {
                // Whatever was done is committed: nothing is in hand between two polls.
                Polled::Assigned(_) | Polled::Revoked(_) | Polled::Idle => {}
                Polled::Records(records) => {
                    if self.run_all(records, &mut *consumer).await? {
                        backoff.reset();
                    } else if !backoff.wait(shutdown).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Runs entries, partitions side by side; false if some have to wait, to which their partition then goes back.
    async fn run_all(&self, records: Vec<Stored>, consumer: &mut dyn Consumer) -> Result<bool, ConsumeError> {
        let mut partitions: BTreeMap<TopicPartition, Vec<Stored>> = BTreeMap::new();
        for stored in records {
            partitions.entry(stored.position.at.clone()).or_default().push(stored);
        }
        let turns = join_all(partitions.values().map(|entries| self.turn(entries))).await;
        consumer.commit(turns.iter().map(|(position, _)| position.clone()).collect()).await?;
        let mut all = true;
        for (position, done) in turns {
            if !done {
                all = false;
                consumer.seek(position).await?;
            }
        }
        Ok(all)
    }

    /// Runs the entries of one partition in order; the offset to go on from, and whether all were done.
    async fn turn(&self, entries: &[Stored]) -> (Position, bool) {
        let started = tokio::time::Instant::now();
        let mut next = entries[0].position.clone();
        for stored in entries {
            if started.elapsed() > TURN {
                return (next, false);
            }
            if let Err(reason) = self.run_one(stored).await {
                self.telemetry.republish_retries.inc();
                tracing::debug!(reason, partition = next.at.partition, offset = next.offset, "an action waits");
                return (next, false);
            }
            next.offset = stored.position.offset + 1;
        }
        (next, true)
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

    async fn bury(&self, letter: Outgoing) -> Result<(), String> {
        let receipt = self.bus.append(vec![letter]).await.map_err(|error| error.to_string())?;
        receipt.await.map(|_| ()).map_err(|error| error.to_string())
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
        // Of who asks, not of what is asked: a wrong token, or an ingress of another version.
        | ErrorCode::Unauthenticated
        | ErrorCode::Unimplemented => true,
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PermissionDenied
        | ErrorCode::FailedPrecondition
        | ErrorCode::OutOfRange
        | ErrorCode::DataLoss => false,
    }
}
