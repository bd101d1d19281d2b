//! Other Kafka clusters that rules write to: those that the configuration names, for the tenants it names. At least once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use drover_bus::{AppendError, Bus, Outgoing, Record};
use drover_host::config::KafkaConfig;
use drover_proto::rules::v1::KafkaRecord;
use drover_types::TenantId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::domain::{Entry, Verdict, came_ms};

/// Longest wait for a cluster to have a record.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Records that are waited for on; one beyond may be written twice.
const PENDING_MAX: usize = 10_000;

/// Another cluster, and who may write to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Names of tenants; `*`: all.
    pub tenants: Vec<String>,
    pub kafka: KafkaConfig,
}

/// The clusters by name.
#[derive(Default)]
pub struct Clusters {
    clusters: BTreeMap<String, Cluster>,
    /// Records that clusters did not have in time, by the ids of their entries. They stay in the client's queue: the next
    /// attempt waits for the same record, and does not write another.
    pending: Mutex<HashMap<Vec<u8>, Writing>>,
}

type Writing = JoinHandle<Result<(), AppendError>>;

struct Cluster {
    tenants: Vec<String>,
    bus: Arc<dyn Bus>,
}

impl Clusters {
    /// Opens clients, which connect when they are used. To be called within the runtime.
    pub fn open(configured: &BTreeMap<String, ClusterConfig>) -> anyhow::Result<Self> {
        let mut clusters = BTreeMap::new();
        for (name, config) in configured {
            let bus =
                drover_host::bus::cluster(&config.kafka).with_context(|| format!("rules.clusters.{name}.kafka"))?;
            clusters.insert(name.clone(), Cluster { tenants: config.tenants.clone(), bus });
        }
        Ok(Self { clusters, pending: Mutex::default() })
    }

    /// Why a tenant cannot write to a cluster; a name that is another tenant's is as unknown as any.
    pub fn refuse(&self, tenant: &TenantId, name: &str) -> Option<String> {
        let unknown = self.of(tenant.as_str(), name).is_none();
        unknown.then(|| format!("cluster {name} is not in rules.clusters for tenant {tenant}"))
    }

    fn of(&self, tenant: &str, name: &str) -> Option<&Cluster> {
        self.clusters
            .get(name)
            .filter(|cluster| cluster.tenants.iter().any(|allowed| allowed == "*" || allowed == tenant))
    }

    /// Writes an entry's record, as old as the entry's message; done when the cluster has it.
    pub async fn write(&self, entry: &Entry, record: &KafkaRecord) -> Verdict {
        let name = &record.cluster;
        let Some(cluster) = self.of(&entry.work.tenant, name) else {
            return Verdict::Refused(format!("cluster {name} is not configured any more"));
        };
        let pending = self.pending().remove(&entry.work.id);
        let mut writing = pending.unwrap_or_else(|| {
            let outgoing = outgoing(record, came_ms(&entry.work, &entry.stored));
            tokio::spawn(append(cluster.bus.clone(), outgoing))
        });
        let Ok(written) = timeout(TIMEOUT, &mut writing).await else {
            self.keep(entry.work.id.clone(), writing);
            return Verdict::Later(format!("cluster {name} did not take the record within {} s", TIMEOUT.as_secs()));
        };
        match written {
            Ok(Ok(())) => Verdict::Done,
            Ok(Err(AppendError::Unavailable { reason })) => Verdict::Later(format!("cluster {name}: {reason}")),
            Ok(Err(
                refused @ (AppendError::UnknownTopic { .. }
                | AppendError::UnknownPartition { .. }
                | AppendError::TooLarge { .. }
                | AppendError::Refused { .. }),
            )) => Verdict::Refused(format!("cluster {name}: {refused}")),
            Err(error) => Verdict::Later(format!("cluster {name}: {error}")),
        }
    }

    fn keep(&self, id: Vec<u8>, writing: Writing) {
        let mut pending = self.pending();
        if pending.len() >= PENDING_MAX {
            pending.retain(|_, writing| !writing.is_finished());
        }
        if pending.len() < PENDING_MAX {
            pending.insert(id, writing);
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Writing>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn append(bus: Arc<dyn Bus>, record: Outgoing) -> Result<(), AppendError> {
    let receipt = bus.append(vec![record]).await?;
    receipt.await.map(drop).map_err(|error| AppendError::Unavailable { reason: error.to_string() })
}

fn outgoing(record: &KafkaRecord, timestamp_ms: i64) -> Outgoing {
    let written = Record {
        key: Some(record.key.clone().into()),
        value: Some(record.value.clone().into()),
        headers: record.headers.iter().map(|header| (&header.name, &header.value)).collect(),
        timestamp_ms,
    };
    Outgoing { topic: record.topic.as_str().into(), partition: record.partition, record: written }
}

#[cfg(test)]
mod tests {
    use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
    use drover_bus::{Position, Stored, TopicConfig, TopicPartition};
    use drover_proto::rules::v1 as wire;
    use drover_proto::rules::v1::OutboxEntry;

    use super::*;

    #[tokio::test]
    async fn a_record_is_written_for_the_tenants_that_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let bus = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("opens").0;
        let bus: Arc<dyn Bus> = Arc::new(bus);
        let topic =
            TopicConfig { topic: "t".into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
        bus.create_topic(topic).await.expect("made");
        let cluster = Cluster { tenants: vec!["home".to_owned()], bus: bus.clone() };
        let clusters = Clusters { clusters: [("other".to_owned(), cluster)].into(), ..Clusters::default() };
        let record = KafkaRecord {
            cluster: "other".into(),
            topic: "t".into(),
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            headers: vec![wire::Header { name: "rule".into(), value: b"r".to_vec() }],
            partition: None,
        };
        let entry = |tenant: &str| {
            let position = Position { at: TopicPartition::new("o", 0), offset: 0 };
            let stored = Stored { position, record: Record { timestamp_ms: 7, ..Record::default() } };
            Entry { stored, work: OutboxEntry { tenant: tenant.into(), time_ms: 3, ..OutboxEntry::default() } }
        };
        assert_eq!(clusters.write(&entry("home"), &record).await, Verdict::Done);
        let kept = bus.read(&TopicPartition::new("t", 0), 0, 1_000, Duration::ZERO).await.expect("read");
        let kept = &kept[0].record;
        assert_eq!((kept.key.as_deref(), kept.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!((kept.header("rule"), kept.timestamp_ms), (Some(&b"r"[..]), 7));

        assert!(matches!(clusters.write(&entry("away"), &record).await, Verdict::Refused(_)));
        let elsewhere = KafkaRecord { topic: "u".into(), ..record };
        assert!(matches!(clusters.write(&entry("home"), &elsewhere).await, Verdict::Refused(_)));
        let beyond = KafkaRecord { topic: "t".into(), partition: Some(1), ..elsewhere };
        assert!(matches!(clusters.write(&entry("home"), &beyond).await, Verdict::Refused(_)));
        let tenant = |name: &str| TenantId::new(name).expect("a name");
        assert_eq!(clusters.refuse(&tenant("home"), "other"), None);
        assert!(clusters.refuse(&tenant("away"), "other").is_some());
        assert!(clusters.refuse(&tenant("home"), "none").is_some());
    }
}
