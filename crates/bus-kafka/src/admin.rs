//! Topics: made, deleted, listed.
//!
//! Of what a topic is, Kafka keeps everything but the size of the whole topic: its limit is one a partition, so that is
//! divided when a topic is made and multiplied when it is listed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_bus::{AdminError, Topic, TopicConfig};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::ask::{Asker, PATIENCE, words};
use crate::convert::raw_partition;
use crate::options::{KafkaOptions, OptionsError};
use crate::voice::Plain;

/// Topics one request describes.
const DESCRIBED_MAX: usize = 200;
/// How often and how many times a new topic is looked for until all brokers that answer know it.
const APPEARS: (Duration, u32) = (Duration::from_millis(20), 500);

const CLEANUP: &str = "cleanup.policy";
const COMPACT: &str = "compact";
const DELETE: &str = "delete";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";

/// Makes, deletes and lists topics.
pub(crate) struct Admin {
    client: Arc<AdminClient<Plain>>,
    asker: Arc<Asker>,
    replication_factor: u16,
    min_insync_replicas: u16,
    /// Topics in fewer copies than these, of which that was said; as many as the cluster has topics that were asked for.
    told: Mutex<HashSet<Topic>>,
}

impl Admin {
    pub fn new(options: &KafkaOptions, asker: Arc<Asker>) -> Result<Self, OptionsError> {
        let client = asker.clients().open(&options.common(), Plain)?;
        let (replication_factor, min_insync_replicas) = (options.replication_factor, options.min_insync_replicas);
        Ok(Self { client, asker, replication_factor, min_insync_replicas, told: Mutex::default() })
    }

    fn limits() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
    }

    fn unavailable(&self, what: &str, error: &KafkaError) -> AdminError {
        AdminError::Unavailable { reason: self.asker.away(what, error) }
    }

    /// As the port promises; returns when the topic can be written.
    pub async fn create(&self, config: &TopicConfig) -> Result<bool, AdminError> {
        config.check()?;
        let settings = settings(config, self.min_insync_replicas);
        let factor = i32::from(self.replication_factor);
        let new = NewTopic::new(&config.topic, raw_partition(config.partitions), TopicReplication::Fixed(factor));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let what = format!("making topic {}", config.topic);
        let made = self.client.create_topics(&[new], &Self::limits()).await;
        let made = made.map_err(|error| self.unavailable(&what, &error))?.pop().unwrap_or(Ok(String::new()));
        match made {
            Ok(_) => {
                self.appears(config).await?;
                Ok(true)
            }
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {
                let appeared = self.appears(config).await;
                if let Ok(()) | Err(AdminError::Partitions { .. }) = appeared {
                    self.check_existing(config).await?;
                }
                appeared.map(|()| false)
            }
            Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) => Err(self.too_few_brokers(config).await),
            Err((
                _,
                code @ (RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::InvalidConfig
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed),
            )) => Err(AdminError::Refused { topic: config.topic.to_string(), reason: code.to_string() }),
            Err((_, code)) => Err(self.unavailable(&what, &KafkaError::AdminOp(code))),
        }
    }

    async fn too_few_brokers(&self, config: &TopicConfig) -> AdminError {
        let there = match self.asker.all().await {
            Ok((_, 1)) => "there is 1".to_owned(),
            Ok((_, brokers)) => format!("there are {brokers}"),
            Err(_) => "there are fewer".to_owned(),
        };
        let factor = self.replication_factor;
        let reason =
            format!("replication factor {factor} wants as many brokers, {there}; see bus.kafka.replication_factor");
        AdminError::Refused { topic: config.topic.to_string(), reason }
    }

    /// Refuses a topic that is there, made by somebody else perhaps, and not compacted as it is to be.
    async fn check_existing(&self, config: &TopicConfig) -> Result<(), AdminError> {
        let topic = &config.topic;
        let mut described = self.describe(&[(topic.clone(), config.partitions)]).await?;
        let Some(settings) = described.remove(topic) else {
            let reason = self.asker.voice().explain(format!("topic {topic} is not there any more"));
            return Err(AdminError::Unavailable { reason });
        };
        check_policy(config, &settings)?;
        let replicas = self.asker.replicas(topic).await.map_err(|reason| AdminError::Unavailable { reason })?;
        self.tell_copies(topic, replicas, settings.get(MIN_INSYNC_REPLICAS).and_then(|value| value.parse().ok()));
        Ok(())
    }

    /// Says once of a topic that is there in fewer copies than topics are made with here.
    fn tell_copies(&self, topic: &Topic, replicas: Option<usize>, min_insync_replicas: Option<usize>) {
        let fewer = |found: Option<usize>, wanted: u16| found.is_some_and(|found| found < usize::from(wanted));
        let few = fewer(replicas, self.replication_factor) || fewer(min_insync_replicas, self.min_insync_replicas);
        if few && self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone()) {
            let wanted = [self.replication_factor, self.min_insync_replicas];
            let topic = &**topic;
            tracing::warn!(topic, replicas, min_insync_replicas, ?wanted, "topic kept in fewer copies than configured");
        }
    }

    /// Returns when the topic is seen with its partitions, each with a leader.
    async fn appears(&self, config: &TopicConfig) -> Result<(), AdminError> {
        let (pause, times) = APPEARS;
        let mut obstacle = self.asker.voice().explain(format!("topic {} does not appear", config.topic));
        for _ in 0..times {
            match self.asker.look(&config.topic).await {
                Ok(Some(existing)) if existing != config.partitions => {
                    let topic = config.topic.to_string();
                    return Err(AdminError::Partitions { topic, existing, wanted: config.partitions });
                }
                Ok(Some(existing)) => {
                    self.asker.learn(config.topic.clone(), existing);
                    return Ok(());
                }
                Ok(None) => {}
                Err(unseen) => obstacle = unseen.into(),
            }
            tokio::time::sleep(pause).await;
        }
        Err(AdminError::Unavailable { reason: obstacle })
    }

    /// As the port promises.
    pub async fn delete(&self, topic: &str) -> Result<(), AdminError> {
        let what = format!("deleting topic {topic}");
        self.asker.forget(topic);
        let deleted = self.client.delete_topics(&[topic], &Self::limits()).await;
        match deleted.map_err(|error| self.unavailable(&what, &error))?.pop() {
            Some(Ok(_)) | None => Ok(()),
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => {
                Err(AdminError::Unknown { topic: topic.to_owned() })
            }
            Some(Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed),
            ))) => Err(AdminError::Refused { topic: topic.to_owned(), reason: code.to_string() }),
            Some(Err((_, code))) => Err(self.unavailable(&what, &KafkaError::AdminOp(code))),
        }
    }

    /// All topics but those Kafka keeps for itself, sorted by name.
    pub async fn list(&self) -> Result<Vec<TopicConfig>, AdminError> {
        let (mut topics, _) = self.asker.all().await.map_err(|reason| AdminError::Unavailable { reason })?;
        topics.retain(|(topic, _)| !topic.starts_with("__"));
        topics.sort();
        let mut configs = Vec::with_capacity(topics.len());
        for some in topics.chunks(DESCRIBED_MAX) {
            let settings = self.describe(some).await?;
            configs.extend(some.iter().filter_map(|(topic, partitions)| {
                settings.get(topic).map(|settings| listed(topic.clone(), *partitions, settings))
            }));
        }
        Ok(configs)
    }

    /// Settings by topic; a topic deleted meanwhile is left out.
    async fn describe(&self, topics: &[(Topic, u32)]) -> Result<HashMap<Topic, HashMap<String, String>>, AdminError> {
        let wanted: Vec<_> = topics.iter().map(|(topic, _)| ResourceSpecifier::Topic(topic)).collect();
        let described = self.client.describe_configs(&wanted, &Self::limits()).await;
        let described = described.map_err(|error| self.unavailable("settings of topics", &error))?;
        let mut all = HashMap::new();
        for ((topic, _), resource) in topics.iter().zip(described) {
            match resource {
                Ok(resource) => {
                    let value = |entry: rdkafka::admin::ConfigEntry| Some((entry.name, entry.value?));
                    all.insert(topic.clone(), resource.entries.into_iter().filter_map(value).collect());
                }
                Err(code) if crate::ask::is_unknown(code) => {}
                Err(code) => {
                    let reason = self.asker.voice().explain(words(&KafkaError::AdminOp(code)));
                    return Err(AdminError::Unavailable { reason });
                }
            }
        }
        Ok(all)
    }
}

/// Kafka's settings of a topic. Of a compacted one, what is younger than its retention is not compacted.
fn settings(config: &TopicConfig, min_insync_replicas: u16) -> Vec<(&'static str, String)> {
    let or_never = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let partitions = u64::from(config.partitions.max(1));
    let mut settings = vec![
        (CLEANUP, policy(config).to_owned()),
        (RETENTION_MS, or_never(config.retention_ms)),
        (RETENTION_BYTES, or_never(config.retention_bytes.map(|bytes| (bytes / partitions).max(1)))),
        (MIN_INSYNC_REPLICAS, min_insync_replicas.to_string()),
    ];
    if let (true, Some(ms)) = (config.compact, config.retention_ms) {
        settings.push(("min.compaction.lag.ms", ms.to_string()));
    }
    settings
}

fn policy(config: &TopicConfig) -> &'static str {
    if config.compact { COMPACT } else { DELETE }
}

/// Refuses any other policy, both at once too: of a compacted topic records would go with time, of another one those that
/// have a later one of their key.
fn check_policy(config: &TopicConfig, settings: &HashMap<String, String>) -> Result<(), AdminError> {
    let (found, wanted) = (settings.get(CLEANUP).map_or("", String::as_str), policy(config));
    if found == wanted {
        return Ok(());
    }
    Err(AdminError::Setting { topic: config.topic.to_string(), setting: CLEANUP, found: found.to_owned(), wanted })
}

fn listed(topic: Topic, partitions: u32, settings: &HashMap<String, String>) -> TopicConfig {
    let limit = |key: &str| settings.get(key).and_then(|value| value.parse().ok());
    TopicConfig {
        topic,
        partitions,
        compact: settings.get(CLEANUP).is_some_and(|policy| policy.split(',').any(|policy| policy.trim() == COMPACT)),
        retention_ms: limit(RETENTION_MS),
        retention_bytes: limit(RETENTION_BYTES).map(|bytes: u64| bytes.saturating_mul(partitions.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_there_has_the_policy_it_is_to_have_and_no_other() {
        let config = |compact| TopicConfig {
            topic: "t".into(),
            partitions: 1,
            compact,
            retention_ms: None,
            retention_bytes: None,
        };
        let check = |compact, found: &str| {
            check_policy(&config(compact), &HashMap::from([(CLEANUP.to_owned(), found.to_owned())]))
        };
        assert_eq!((check(true, "compact"), check(false, "delete")), (Ok(()), Ok(())));
        for (compact, found) in
            [(true, "delete"), (true, "compact,delete"), (false, "compact"), (false, "compact,delete")]
        {
            let error = check(compact, found).expect_err("another").to_string();
            let wanted = policy(&config(compact));
            assert_eq!(error, format!("topic t exists with cleanup.policy = {found}, {wanted} was asked for"));
        }
    }

    #[test]
    fn a_topic_is_listed_as_it_was_made() {
        for (compact, retention_ms, retention_bytes) in
            [(false, Some(60_000), Some(8_000)), (true, Some(5), None), (true, None, None)]
        {
            let config = TopicConfig { topic: "t".into(), partitions: 4, compact, retention_ms, retention_bytes };
            let kept = settings(&config, 2).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            assert_eq!(listed("t".into(), 4, &kept), config);
        }
    }
}
