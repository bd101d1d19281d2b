//! Metadata and DescribeCluster: one broker, which leads every partition.
//!
//! Adapter layer.

use drover_bus::{AdminError, Bus, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::dispatch::{Listener, Peer};
use crate::refusal;
use crate::view::View;

/// The one broker.
pub const BROKER: BrokerId = BrokerId(1);
/// Nothing is ever elected here.
pub const LEADER_EPOCH: i32 = 0;
const CLUSTER: StrBytes = StrBytes::from_static_str("drover");
/// Age at which records of a topic made without a word about retention may go: Kafka's default, 7 days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * 24 * 3600 * 1000;

/// The broker under the address this client connected to, and the topics asked for.
pub async fn metadata(
    listener: &Listener,
    peer: &Peer,
    view: &View,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let broker =
        MetadataResponseBroker::default().with_node_id(BROKER).with_host(peer.host.clone()).with_port(peer.port.into());
    let response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id((version >= 2).then_some(CLUSTER))
        .with_controller_id(BROKER);
    let known = match listener.bus.topics().await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(%error, "kafka metadata could not be read");
            return response;
        }
    };
    let asked = request.topics.filter(|topics| version >= 1 || !topics.is_empty());
    let topics = match asked {
        None => {
            let seen = known.iter().filter(|config| view.sees(&config.topic));
            seen.map(|config| describe(config, version)).collect()
        }
        Some(asked) => {
            let mut topics = Vec::with_capacity(asked.len());
            let mut known = Known { all: known, view, may_create: request.allow_auto_topic_creation };
            for name in asked.into_iter().filter_map(|topic| topic.name) {
                topics.push(topic(listener, &mut known, name, version).await);
            }
            topics
        }
    };
    response.with_topics(topics)
}

/// What there is, and how much of it for whom.
struct Known<'a> {
    all: Vec<TopicConfig>,
    view: &'a View,
    /// Whether the client wants what is missing to be made.
    may_create: bool,
}

impl Known<'_> {
    fn find(&self, name: &str) -> Option<&TopicConfig> {
        self.all.iter().find(|config| *config.topic == *name && self.view.sees(name))
    }

    /// Whether a topic may come into being because the client asks for it.
    fn may_become(&self, name: &str, partitions: u32) -> bool {
        let is_writable = self.view.sees(name) && refusal::check_writable(self.view, name).is_ok();
        self.may_create && is_writable && self.view.has_room(&self.all, partitions)
    }
}

async fn topic(listener: &Listener, known: &mut Known<'_>, name: TopicName, version: i16) -> MetadataResponseTopic {
    if let Some(config) = known.find(&name) {
        return describe(config, version);
    }
    let created = match listener.config.auto_create_partitions {
        Some(partitions) if known.may_become(&name, partitions) => create(listener, &name, partitions).await,
        Some(_) | None => Err(ResponseError::UnknownTopicOrPartition),
    };
    match created {
        Ok(config) => {
            let described = describe(&config, version);
            known.all.push(config);
            described
        }
        Err(error) => MetadataResponseTopic::default().with_name(Some(name)).with_error_code(error.code()),
    }
}

async fn create(listener: &Listener, name: &str, partitions: u32) -> Result<TopicConfig, ResponseError> {
    let config = TopicConfig {
        topic: name.into(),
        partitions,
        compact: false,
        retention_ms: Some(RETENTION_MS_DEFAULT),
        retention_bytes: None,
    };
    match listener.bus.create_topic(config.clone()).await {
        Ok(_) => {
            tracing::info!(topic = name, partitions, "kafka client asked for a missing topic: created");
            Ok(config)
        }
        // Someone else made it in the meantime, with another number of partitions.
        Err(AdminError::Partitions { existing, .. }) => Ok(TopicConfig { partitions: existing, ..config }),
        Err(error) => Err(refusal::of_admin(&error)),
    }
}

fn describe(config: &TopicConfig, version: i16) -> MetadataResponseTopic {
    let leader_epoch = if version >= 7 { LEADER_EPOCH } else { -1 };
    let partition = |index: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BROKER)
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(vec![BROKER])
            .with_isr_nodes(vec![BROKER])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(config.topic.to_string()))))
        .with_partitions((0..config.partitions).map(partition).collect())
}

/// The cluster of one broker. Clients may ask for brokers (1) only, not for a controller quorum.
pub fn describe_cluster(peer: &Peer, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default().with_endpoint_type(request.endpoint_type);
    if request.endpoint_type != 1 {
        return response.with_error_code(ResponseError::UnsupportedEndpointType.code());
    }
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BROKER)
        .with_host(peer.host.clone())
        .with_port(peer.port.into());
    response.with_cluster_id(CLUSTER).with_controller_id(BROKER).with_brokers(vec![broker])
}
