//! Requests that the platform makes itself: through the log like a device's, and their answers from the log.
//!
//! Whichever replica owns the partition: who asks follows the replies of that partition from where they end when it
//! asks. An accepted change is answered once the store shows it: whoever is told of it reads it, by any replica.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::{AppendError, Bus, Offset, Outgoing, ReadError, TopicPartition, partition_of};
use drover_proto::shadow::v1::{Answer, Delivery};
use drover_types::shadow::ShadowOperation;
use drover_types::{ApiError, Clock, ErrorCode, RecordId};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::domain::{ShadowKey, request};
use crate::looks::Looks;
use crate::ports::ShadowStore;
use crate::telemetry::Telemetry;
use crate::topics::REPLIES_TOPIC;

/// Requests that wait for their answers at the same time; more wait for their turn.
const WAITING_MAX: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Longest wait of one read.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Wait before an append is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long an answer waits for the store to show its change, and no longer than half of what is left of the deadline: it has
/// to arrive, too, and rules wait 5 s for it.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(2);
/// First and longest pause between two looks into the store; doubled with every look.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// Makes requests.
pub struct Requests {
    bus: Arc<dyn Bus>,
    store: Arc<dyn ShadowStore>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    partitions: u32,
    deadline: Duration,
    turns: Semaphore,
}

/// An accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// As on `…/accepted`; JSON.
    pub payload: Vec<u8>,
    pub version: u64,
}

impl Requests {
    /// Requests to the topics that have so many `partitions`; each is given up at its `deadline`.
    pub fn new(
        bus: Arc<dyn Bus>,
        store: Arc<dyn ShadowStore>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        partitions: u32,
        deadline: Duration,
    ) -> Self {
        Self { bus, store, clock, telemetry, partitions, deadline, turns: Semaphore::new(WAITING_MAX) }
    }

    /// Asks for a change, and waits for the answer and until the store shows what was accepted. Who asks again under the same
    /// id changes nothing twice and is answered the same. `DEADLINE_EXCEEDED`: it may be carried out yet. A change that the store
    /// does not show in time is answered all the same, for it is kept, and counted.
    pub async fn ask(
        &self,
        key: &ShadowKey,
        operation: ShadowOperation,
        payload: Bytes,
        id: RecordId,
    ) -> Result<Accepted, ApiError> {
        let outgoing = request(key, operation, payload, id, self.clock.now_ms())
            .map_err(|error| ApiError::invalid("device", error.to_string()))?;
        let until = Instant::now() + self.deadline;
        let asking = async {
            let _turn = self.turns.acquire().await;
            let at =
                TopicPartition::new(REPLIES_TOPIC, partition_of(key.device.to_string().as_bytes(), self.partitions));
            let from = self.bus.bounds(&at).await.map_err(unavailable)?.end;
            self.append(outgoing).await?;
            self.answer(&at, from, id).await
        };
        let late = || ApiError::new(ErrorCode::DeadlineExceeded, format!("no answer within {:?}", self.deadline));
        let (answer, payload) = timeout_at(until, asking).await.map_err(|_| late())??;
        match answer.code {
            0 => {
                self.seen(key, answer.version, until).await;
                Ok(Accepted { payload, version: answer.version })
            }
            code => Err(refusal(code, &payload)),
        }
    }

    /// Appends until it is durable: a repeat is recognised by its id.
    async fn append(&self, outgoing: Outgoing) -> Result<(), ApiError> {
        loop {
            let failure = match self.bus.append(vec![outgoing.clone()]).await {
                Ok(receipt) => match receipt.await {
                    Ok(_) => return Ok(()),
                    Err(error) => error.to_string(),
                },
                Err(error @ AppendError::Unavailable { .. }) => error.to_string(),
                Err(
                    error @ (AppendError::UnknownTopic { .. }
                    | AppendError::UnknownPartition { .. }
                    | AppendError::Refused { .. }
                    | AppendError::TooLarge { .. }),
                ) => return Err(unavailable(error)),
            };
            tracing::debug!(failure, "a request is not in the log yet");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Waits until the store shows this `version` of a shadow, or a later one: versions never begin anew, and a deletion is one.
    /// Has no turn: a partition's owner answers no more requests until it has put what it has answered.
    async fn seen(&self, key: &ShadowKey, version: u64, until: Instant) {
        let looking = async {
            let mut looks = Looks::new(FIRST_LOOK, LONGEST_LOOK);
            while !self.shows(key, version).await {
                looks.pause().await;
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        if timeout(SEEN_WAIT_MAX.min(left / 2), looking).await.is_err() {
            self.telemetry.answers_unseen.inc();
            tracing::debug!(%key, version, "the store does not show yet what is answered");
        }
    }

    async fn shows(&self, key: &ShadowKey, version: u64) -> bool {
        match self.store.get(key).await {
            Ok(shadow) => shadow.is_some_and(|shadow| shadow.version >= version),
            Err(error) => {
                tracing::debug!(%error, "whether the store shows a change is looked at again");
                false
            }
        }
    }

    async fn answer(&self, at: &TopicPartition, mut next: Offset, id: RecordId) -> Result<(Answer, Vec<u8>), ApiError> {
        loop {
            let records = match self.bus.read(at, next, READ_BYTES, READ_WAIT).await {
                Err(ReadError::OutOfRange { from, earliest, .. }) if from < earliest => {
                    next = earliest;
                    continue;
                }
                records => records.map_err(unavailable)?,
            };
            for stored in records {
                next = stored.position.offset + 1;
                let Ok(delivery) = Delivery::decode(stored.record.value.unwrap_or_default()) else { continue };
                if let Some(answer) = delivery.answer.filter(|answer| answer.request_id == id.0) {
                    return Ok((answer, delivery.payload));
                }
            }
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, error.to_string())
}

/// A rejection as the platform's own interfaces tell it.
fn refusal(code: u32, payload: &[u8]) -> ApiError {
    let body: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    let message = body["message"].as_str().unwrap_or("rejected").to_owned();
    match code {
        404 => ApiError::new(ErrorCode::NotFound, message),
        409 => ApiError::new(ErrorCode::Aborted, message),
        _ => ApiError::invalid("document", message),
    }
}
