//! Topic settings between Kafka's names and the bus, and DescribeConfigs.
//!
//! Adapter layer. Only settings that are honoured are accepted; a silent "yes" to the others would be a lie.

use drover_bus::{Bus, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::dispatch::Listener;
use crate::metadata::{BROKER, RETENTION_MS_DEFAULT};
use crate::refusal;
use crate::view::View;

const CLEANUP_POLICY: &str = "cleanup.policy";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
/// Kinds of resources, sources and types of values, by Kafka's numbers; this one is that of topics.
pub const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const TOPIC_SOURCE: i8 = 1;
const STRING_TYPE: i8 = 2;
const LONG_TYPE: i8 = 5;
const LIST_TYPE: i8 = 7;

/// A topic as its creator describes it. Kafka limits the bytes of a partition, the bus those of a topic.
pub fn parse(name: &str, partitions: u32, settings: &[CreatableTopicConfig]) -> Result<TopicConfig, String> {
    let mut config = TopicConfig {
        topic: name.into(),
        partitions,
        compact: false,
        retention_ms: Some(RETENTION_MS_DEFAULT),
        retention_bytes: None,
    };
    let mut retention_ms = None;
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or_default();
        match setting.name.as_str() {
            CLEANUP_POLICY => config.compact = is_compact(value)?,
            RETENTION_MS => retention_ms = Some(limit(RETENTION_MS, value)?),
            RETENTION_BYTES => {
                config.retention_bytes =
                    limit(RETENTION_BYTES, value)?.map(|bytes| bytes.saturating_mul(partitions.into()));
            }
            other => {
                return Err(format!(
                    "{other} is not supported, {CLEANUP_POLICY}, {RETENTION_MS} and {RETENTION_BYTES} are"
                ));
            }
        }
    }
    let unsaid = if config.compact { None } else { config.retention_ms };
    config.retention_ms = retention_ms.unwrap_or(unsaid);
    Ok(config)
}

fn is_compact(policy: &str) -> Result<bool, String> {
    match policy {
        "delete" => Ok(false),
        "compact" => Ok(true),
        other => Err(format!("{CLEANUP_POLICY} is {other:?}, allowed are delete and compact")),
    }
}

/// A number, or -1 for "without limit".
fn limit(name: &str, value: &str) -> Result<Option<u64>, String> {
    match value.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(limit) if limit >= 0 => Ok(Some(limit as u64)),
        Ok(_) | Err(_) => Err(format!("{name} is {value:?}, allowed are -1 and whole numbers from 0")),
    }
}

/// The settings of topics, and the few of the one broker.
pub async fn describe(listener: &Listener, view: &View, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let known = listener.bus.topics().await;
    let results = request.resources.into_iter().map(|resource| {
        let settings = match (&known, resource.resource_type) {
            (Ok(known), TOPIC_RESOURCE) => of_topic(view, known, &resource.resource_name),
            (Ok(_), BROKER_RESOURCE) => of_broker(listener, &resource.resource_name),
            (Ok(_), _) => Err(ResponseError::InvalidRequest),
            (Err(error), _) => Err(refusal::of_admin(error)),
        };
        result(resource, settings)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// Name, value and type of a setting.
type Setting = (&'static str, String, i8);

fn of_topic(view: &View, known: &[TopicConfig], name: &str) -> Result<Vec<Setting>, ResponseError> {
    let config = known.iter().find(|config| *config.topic == *name && view.sees(name));
    let config = config.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let limit = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let of_partition = config.retention_bytes.map(|bytes| bytes / u64::from(config.partitions.max(1)));
    Ok(vec![
        (CLEANUP_POLICY, if config.compact { "compact" } else { "delete" }.to_owned(), LIST_TYPE),
        (RETENTION_MS, limit(config.retention_ms), LONG_TYPE),
        (RETENTION_BYTES, limit(of_partition), LONG_TYPE),
    ])
}

fn of_broker(listener: &Listener, name: &str) -> Result<Vec<Setting>, ResponseError> {
    if name != BROKER.0.to_string() {
        return Err(ResponseError::InvalidRequest);
    }
    let auto_create = listener.config.auto_create_partitions;
    Ok(vec![
        ("auto.create.topics.enable", auto_create.is_some().to_string(), STRING_TYPE),
        ("socket.request.max.bytes", listener.config.frame_bytes_max.to_string(), LONG_TYPE),
    ])
}

fn result(resource: DescribeConfigsResource, settings: Result<Vec<Setting>, ResponseError>) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_error_code(refusal::code(&settings));
    let is_asked = |name: &str| match &resource.configuration_keys {
        None => true,
        Some(keys) => keys.iter().any(|key| **key == *name),
    };
    let described = settings.unwrap_or_default().into_iter().filter(|(name, ..)| is_asked(name));
    let described = described.map(|(name, value, kind)| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_read_only(true)
            .with_config_source(TOPIC_SOURCE)
            .with_config_type(kind)
    });
    result.with_configs(described.collect()).with_resource_name(resource.resource_name)
}
