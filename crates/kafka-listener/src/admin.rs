//! CreateTopics and DeleteTopics.
//!
//! Adapter layer. Topics of the platform are neither made nor deleted from outside.

use drover_bus::{Bus, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::configs;
use crate::dispatch::{Listener, Peer};
use crate::refusal;
use crate::view::View;

/// Partitions of a topic whose creator leaves the number to us, where topics are not made automatically.
const PARTITIONS_DEFAULT: u32 = 8;

/// A code, and what to tell the person behind it.
type Refused = (ResponseError, String);

/// Makes topics, or only says whether it would.
pub async fn create_topics(
    listener: &Listener,
    peer: &Peer,
    view: &View,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let made = create_topic(listener, view, &topic, request.validate_only).await;
        topics.push(created(peer, version, topic.name, made));
    }
    CreateTopicsResponse::default().with_topics(topics)
}

async fn create_topic(
    listener: &Listener,
    view: &View,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<TopicConfig, Refused> {
    check_creatable(view, &topic.name)?;
    let config = config_of(listener, topic)?;
    let known = listener.bus.topics().await.map_err(|e| (refusal::of_admin(&e), e.to_string()))?;
    let exists = || (ResponseError::TopicAlreadyExists, format!("topic {} exists", *topic.name));
    if known.iter().any(|known| known.topic == config.topic) {
        return Err(exists());
    }
    if !view.has_room(&known, config.partitions) {
        let reason = "the topics of the tenant have too many partitions for one more".to_owned();
        return Err((ResponseError::PolicyViolation, reason));
    }
    if !validate_only {
        let made = listener.bus.create_topic(config.clone()).await;
        if !made.map_err(|e| (refusal::of_admin(&e), e.to_string()))? {
            return Err(exists());
        }
    }
    Ok(config)
}

/// Whether there is such a topic is not told to whom it could not belong.
fn check_creatable(view: &View, name: &str) -> Result<(), Refused> {
    if !view.sees(name) {
        let reason = format!("topic {name} is not one of this tenant: its topics are named TENANT.…");
        return Err((ResponseError::TopicAuthorizationFailed, reason));
    }
    refusal::check_writable(view, name)
}

fn config_of(listener: &Listener, topic: &CreatableTopic) -> Result<TopicConfig, Refused> {
    let name = topic.name.as_str();
    if !topic.assignments.is_empty() {
        let reason = "there is one broker, replicas cannot be assigned".to_owned();
        return Err((ResponseError::InvalidReplicaAssignment, reason));
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        let reason = format!("there is one broker, replication factor {} is not possible", topic.replication_factor);
        return Err((ResponseError::InvalidReplicationFactor, reason));
    }
    let partitions = match topic.num_partitions {
        -1 => listener.config.auto_create_partitions.unwrap_or(PARTITIONS_DEFAULT),
        asked => u32::try_from(asked)
            .map_err(|_| (ResponseError::InvalidPartitions, format!("{asked} partitions are not possible")))?,
    };
    configs::parse(name, partitions, &topic.configs).map_err(|reason| (ResponseError::InvalidConfig, reason))
}

fn created(peer: &Peer, version: i16, name: TopicName, made: Result<TopicConfig, Refused>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default();
    match made {
        Ok(config) => {
            tracing::info!(topic = %*name, partitions = config.partitions, remote = %peer.remote, "kafka topic created");
            let result = result.with_name(name);
            if version < 5 {
                return result;
            }
            result.with_num_partitions(config.partitions as i32).with_replication_factor(1).with_configs(Some(vec![]))
        }
        Err((error, reason)) => {
            tracing::warn!(topic = %*name, remote = %peer.remote, reason, "kafka topic not created");
            result.with_name(name).with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(reason)))
        }
    }
}

/// Deletes topics with all their records.
pub async fn delete_topics(
    listener: &Listener,
    peer: &Peer,
    view: &View,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let mut responses = Vec::with_capacity(request.topic_names.len());
    for name in request.topic_names {
        let deleted = delete_topic(listener, view, &name).await;
        responses.push(gone(peer, version, name, deleted));
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_topic(listener: &Listener, view: &View, name: &str) -> Result<(), Refused> {
    if !view.sees(name) {
        return Err((ResponseError::UnknownTopicOrPartition, format!("topic {name} does not exist")));
    }
    refusal::check_writable(view, name)?;
    listener.bus.delete_topic(name).await.map_err(|e| (refusal::of_admin(&e), e.to_string()))
}

fn gone(peer: &Peer, version: i16, name: TopicName, deleted: Result<(), Refused>) -> DeletableTopicResult {
    match deleted {
        Ok(()) => {
            tracing::info!(topic = %*name, remote = %peer.remote, "kafka topic deleted");
            DeletableTopicResult::default().with_name(Some(name))
        }
        Err((error, reason)) => {
            tracing::warn!(topic = %*name, remote = %peer.remote, reason, "kafka topic not deleted");
            DeletableTopicResult::default()
                .with_name(Some(name))
                .with_error_code(error.code())
                .with_error_message((version >= 5).then(|| StrBytes::from_string(reason)))
        }
    }
}
