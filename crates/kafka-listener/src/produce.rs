//! Produce and InitProducerId.
//!
//! Adapter layer. Whatever `acks` says, an acknowledged batch is durable. Idempotence is the log's: it remembers each
//! producer's sequence together with the records. Transactions from outside are refused.

use std::sync::Arc;

use bytes::Bytes;
use drover_bus::embedded::{ProducerSequence, SequenceError};
use drover_bus::{AppendError, Bus, Outgoing, Receipt, TopicPartition};
use futures::future::{FutureExt, join_all};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::batch::{self, Batch};
use crate::dispatch::{Listener, Outcome, Peer, Reply};
use crate::offsets::place;
use crate::refusal;
use crate::view::View;

/// Largest unpacked size of one batch, bytes: what Kafka's clients can send uncompressed, many times over.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A producer without answers.
const NO_ACKS: i16 = 0;
/// Nobody fences an idempotent producer, so its first epoch is its last.
const FIRST_EPOCH: i16 = 0;
/// No answer for want of an offset.
const NO_OFFSET: i64 = -1;

/// A code, and what to tell the person behind it.
type Refused = (ResponseError, String);

/// One partition's share of a request: what it is, and when it is durable.
struct Begun {
    topic: TopicName,
    partition: i32,
    receipt: Result<Receipt, Refused>,
}

/// Hands every batch to the log in order; the reply waits until all are durable.
pub async fn produce(listener: Arc<Listener>, peer: Arc<Peer>, view: &View, request: ProduceRequest) -> Reply {
    let acks = request.acks;
    let refused = refusal_of(&request);
    let shares = request.topic_data.into_iter().flat_map(|topic| {
        let name = topic.name;
        topic.partition_data.into_iter().map(move |data| (name.clone(), data))
    });
    // Different partitions, so their appends need not wait for each other.
    let begun = shares.map(|(topic, data)| {
        let (listener, refused) = (&listener, refused.clone());
        async move {
            let receipt = match refused {
                Some(refused) => Err(refused),
                None => append(listener, view, &topic, data.index, data.records.unwrap_or_default()).await,
            };
            Begun { topic, partition: data.index, receipt }
        }
    });
    let begun = join_all(begun).await;
    async move { finish(&peer, acks, begun).await }.boxed()
}

/// What is wrong with the request as a whole.
fn refusal_of(request: &ProduceRequest) -> Option<Refused> {
    if request.transactional_id.is_some() {
        return Some((ResponseError::TransactionalIdAuthorizationFailed, "transactional ids are not served".into()));
    }
    if !matches!(request.acks, -1..=1) {
        let reason = format!("acks is {}, allowed are -1, 0 and 1", request.acks);
        return Some((ResponseError::InvalidRequiredAcks, reason));
    }
    None
}

async fn append(
    listener: &Listener,
    view: &View,
    topic: &str,
    partition: i32,
    records: Bytes,
) -> Result<Receipt, Refused> {
    let at = place(view, topic, partition).map_err(|error| (error, format!("partition {partition} does not exist")))?;
    refusal::check_writable(view, topic)?;
    let batch = batch::decode(records, UNPACKED_BYTES_MAX).map_err(|e| (refusal::of_batch(&e), e.to_string()))?;
    if batch.is_transactional {
        return Err((ResponseError::TransactionalIdAuthorizationFailed, "transactions are not served".into()));
    }
    append_batch(listener, at, batch).await
}

async fn append_batch(listener: &Listener, at: TopicPartition, batch: Batch) -> Result<Receipt, Refused> {
    match batch.producer {
        Some(producer) => {
            let sequence = ProducerSequence { id: producer.id, epoch: producer.epoch, first: producer.sequence };
            let appended = listener.bus.append_sequenced(at, sequence, batch.records).await;
            appended.map_err(|e| (of_sequence(&e), e.to_string()))
        }
        None => {
            let outgoing = batch.records.into_iter().map(|record| Outgoing {
                topic: at.topic.clone(),
                partition: Some(at.partition),
                record,
            });
            let appended = listener.bus.append(outgoing.collect()).await;
            appended.map_err(|e: AppendError| (refusal::of_append(&e), e.to_string()))
        }
    }
}

fn of_sequence(error: &SequenceError) -> ResponseError {
    match error {
        SequenceError::OutOfOrder { .. } => ResponseError::OutOfOrderSequenceNumber,
        SequenceError::Fenced { .. } => ResponseError::InvalidProducerEpoch,
        SequenceError::Empty => ResponseError::InvalidRecord,
        SequenceError::Append(error) => refusal::of_append(error),
    }
}

async fn finish(peer: &Peer, acks: i16, begun: Vec<Begun>) -> Outcome {
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    let mut failure = None;
    for Begun { topic, partition, receipt } in begun {
        let written = written(receipt).await;
        if let Err((error, reason)) = &written {
            tracing::warn!(topic = %*topic, partition, remote = %peer.remote, %error, reason, "kafka produce refused");
            failure = Some(reason.clone());
        }
        let response = partition_response(partition, written);
        match topics.last_mut() {
            Some(last) if last.name == topic => last.partition_responses.push(response),
            Some(_) | None => {
                let responses = vec![response];
                topics.push(TopicProduceResponse::default().with_name(topic).with_partition_responses(responses));
            }
        }
    }
    match (acks, failure) {
        (NO_ACKS, None) => Outcome::Silence,
        (NO_ACKS, Some(reason)) => Outcome::Close(format!("produce without acks failed: {reason}")),
        _ => Outcome::Answer(ProduceResponse::default().with_responses(topics).into()),
    }
}

/// The base offset, once it is durable.
async fn written(receipt: Result<Receipt, Refused>) -> Result<i64, Refused> {
    let positions = receipt?.await.map_err(|e| (ResponseError::KafkaStorageError, e.to_string()))?;
    Ok(positions.first().map_or(NO_OFFSET, |position| position.offset as i64))
}

fn partition_response(partition: i32, written: Result<i64, Refused>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(partition);
    match written {
        Ok(base) => response.with_base_offset(base),
        Err((error, reason)) => response
            .with_error_code(error.code())
            .with_base_offset(NO_OFFSET)
            .with_error_message(Some(StrBytes::from_string(reason))),
    }
}

/// A new producer id, never given before.
pub async fn init_producer_id(
    listener: &Listener,
    peer: &Peer,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if let Some(id) = request.transactional_id {
        tracing::warn!(remote = %peer.remote, id = %*id, "kafka client refused: transactional ids are not served");
        return response.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    if !peer.principal.may_write() {
        return response.with_error_code(ResponseError::ClusterAuthorizationFailed.code());
    }
    match listener.bus.allocate_producer_id().await {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(FIRST_EPOCH),
        Err(error) => response.with_error_code(refusal::of_append(&error).code()),
    }
}
