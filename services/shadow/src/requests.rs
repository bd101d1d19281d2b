//! Requests that the platform makes itself: through the log like a device's, and their answers from the log.
//!
//! Whichever replica owns the partition: who asks follows the replies of that partition from where they end when it
//! asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::{AppendError, Bus, Offset, Outgoing, ReadError, TopicPartition, partition_of};
use drover_proto::shadow::v1::{Answer, Delivery};
use drover_types::shadow::ShadowOperation;
use drover_types::{ApiError, Clock, ErrorCode, RecordId};
use prost::Message as _;
use tokio::sync::Semaphore;

use crate::domain::{ShadowKey, request};
use crate::topics::REPLIES_TOPIC;

/// Requests that wait for their answers at the same time; more wait for their turn.
const WAITING_MAX: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Longest wait of one read.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Wait before an append is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Makes requests.
pub struct Requests {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
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
    pub fn new(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, partitions: u32, deadline: Duration) -> Self {
        Self { bus, clock, partitions, deadline, turns: Semaphore::new(WAITING_MAX) }
    }

    /// Asks, and waits for the answer. Who asks again under the same id changes nothing twice and is answered the
    /// same. `DEADLINE_EXCEEDED`: it may be carried out yet.
    pub async fn ask(
        &self,
        key: &ShadowKey,
        operation: ShadowOperation,
        payload: Bytes,
        id: RecordId,
    ) -> Result<Accepted, ApiError> {
        let outgoing = request(key, operation, payload, id, self.clock.now_ms())
            .map_err(|error| ApiError::invalid("device", error.to_string()))?;
        let asking = async {
            let _turn = self.turns.acquire().await;
            let at =
                TopicPartition::new(REPLIES_TOPIC, partition_of(key.device.to_string().as_bytes(), self.partitions));
            let from = self.bus.bounds(&at).await.map_err(unavailable)?.end;
            self.append(outgoing).await?;
            self.answer(&at, from, id).await
        };
        let late = || ApiError::new(ErrorCode::DeadlineExceeded, format!("no answer within {:?}", self.deadline));
        let (answer, payload) = tokio::time::timeout(self.deadline, asking).await.map_err(|_| late())??;
        match answer.code {
            0 => Ok(Accepted { payload, version: answer.version }),
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
