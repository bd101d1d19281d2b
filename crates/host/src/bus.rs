//! Opens the log that configuration names: the one match on `bus.kind`.

use std::path::Path;
use std::sync::Arc;

use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions, OpenError, Recovery};
use drover_bus::{AdminError, Bus, TopicConfig};
use drover_bus_kafka::{KafkaBus, KafkaOptions, OptionsError};
use drover_types::{Clock, TELEMETRY_TOPIC};

use crate::config::{BusConfig, BusKind, KafkaConfig};
use crate::{Metrics, Ready, Retained, Shutdown, bus_metrics};

/// Pause before a log that is away is asked again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Why there is no log; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("{0}; {advice}", advice = advice(.0))]
    Open(#[from] OpenError),
    #[error("bus.partitions = {wanted}: {source}")]
    Telemetry { wanted: u32, source: AdminError },
    #[error("bus.kafka: {0}")]
    Kafka(#[from] OptionsError),
}

/// What to do about a log that cannot be opened.
pub fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked { .. } => "stop that process, or choose another directory with --data DIR",
        OpenError::Format { .. } => {
            "use the version of drover that wrote it, or choose another directory with --data DIR"
        }
        OpenError::Foreign { .. } => "choose another directory with --data DIR",
        OpenError::Corrupt { .. } => {
            "restore it from a backup, or move it away and choose another directory with --data DIR"
        }
        OpenError::File(_) => "make room or give permission, or choose another directory with --data DIR",
    }
}

/// The log, and the embedded adapter itself where it is that one: the Kafka listener needs more than the port tells.
#[derive(Clone)]
pub struct OpenBus {
    pub bus: Arc<dyn Bus>,
    pub embedded: Option<EmbeddedBus>,
}

/// A cluster as the log; adds the metrics of the way into it.
fn kafka(options: KafkaOptions, metrics: &Metrics) -> Result<OpenBus, OptionsError> {
    let bus = KafkaBus::open(options)?;
    bus_metrics::register(metrics, bus.clone());
    Ok(OpenBus { bus: Arc::new(bus), embedded: None })
}

/// A cluster besides the log. It is asked when it is used. To be called within the runtime.
pub fn cluster(config: &KafkaConfig) -> Result<Arc<dyn Bus>, OptionsError> {
    Ok(Arc::new(KafkaBus::open(config.options())?))
}

/// Opens the log. In `directory` if it is embedded: reports what a crash had left, and may take as long as the disk needs to
/// check the end of every file. A cluster is not asked yet: [`prepare`] does that. To be called within the runtime.
///
/// `retained` holds retention of the embedded log back; a cluster knows no such thing, there retention has to be longer than
/// any consumer may be away.
pub fn open(
    config: &BusConfig,
    directory: &Path,
    clock: Arc<dyn Clock>,
    retained: &[Retained],
    metrics: &Metrics,
) -> Result<OpenBus, BusError> {
    match config.kind {
        BusKind::Embedded => {
            let mut options = EmbeddedOptions { clock: Some(clock), ..EmbeddedOptions::default() };
            for Retained { topic, group } in retained {
                options.retained_for.entry((*topic).into()).or_default().push((*group).to_owned());
            }
            let (embedded, recovery) = EmbeddedBus::open(directory, options)?;
            report(&recovery);
            Ok(OpenBus { bus: Arc::new(embedded.clone()), embedded: Some(embedded) })
        }
        BusKind::Kafka => Ok(kafka(config.kafka.options(), metrics)?),
    }
}

/// Makes the telemetry topic; waits for a log that is away, and says so. `Ok(None)`: the process is stopping.
pub async fn prepare(
    bus: &dyn Bus,
    config: &BusConfig,
    ready: &Ready,
    shutdown: &Shutdown,
) -> Result<Option<()>, BusError> {
    let telemetry = TopicConfig {
        topic: TELEMETRY_TOPIC.into(),
        partitions: config.partitions,
        compact: false,
        retention_ms: Some(config.retention.as_millis()),
        retention_bytes: Some(config.retention_size.bytes()),
    };
    let wanted = config.partitions;
    loop {
        match bus.create_topic(telemetry.clone()).await {
            Ok(_) => return Ok(Some(())),
            Err(AdminError::Unavailable { reason }) => ready.waiting(reason),
            Err(
                source @ (AdminError::Name { .. }
                | AdminError::PartitionCount { .. }
                | AdminError::Partitions { .. }
                | AdminError::Setting { .. }
                | AdminError::Refused { .. }
                | AdminError::Unknown { .. }),
            ) => return Err(BusError::Telemetry { wanted, source }),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return Ok(None);
        }
    }
}

fn report(recovery: &Recovery) {
    for cut in &recovery.cut {
        let (file, at, bytes) = (cut.file.display(), cut.at, cut.bytes);
        tracing::warn!(%file, at, bytes, reason = cut.reason, "end of a file cut: it was never completed");
    }
    for rewound in &recovery.rewound {
        let (group, topic, partition) = (&rewound.group, &*rewound.at.topic, rewound.at.partition);
        let (from, to) = (rewound.from, rewound.to);
        tracing::warn!(group, topic, partition, from, to, "committed offset moved back to the end of its partition");
    }
    for path in &recovery.strange {
        tracing::warn!(path = %path.display(), "not of the log and left alone; move it away");
    }
    for path in &recovery.removed {
        tracing::info!(path = %path.display(), "remains removed");
    }
    if recovery.redone_records > 0 {
        tracing::info!(records = recovery.redone_records, "committed transactions redone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Health, SystemClock};

    async fn opened(directory: &Path, config: &BusConfig) -> Result<OpenBus, BusError> {
        let log = open(config, directory, Arc::new(SystemClock), &[], &Metrics::default())?;
        let ready = Health::default().service("log");
        prepare(&*log.bus, config, &ready, &Shutdown::new()).await.map(|_| log)
    }

    #[tokio::test]
    async fn the_telemetry_topic_is_made_once_with_the_configured_partitions() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = BusConfig { partitions: 3, ..BusConfig::default() };
        for _ in 0..2 {
            let log = opened(directory.path(), &config).await.expect("opens");
            let topics = log.bus.topics().await.expect("lists");
            assert_eq!(topics.iter().map(|t| (&*t.topic, t.partitions)).collect::<Vec<_>>(), [(TELEMETRY_TOPIC, 3)]);
            log.embedded.expect("is embedded").close().await;
        }
        let other = BusConfig { partitions: 4, ..BusConfig::default() };
        let refused = opened(directory.path(), &other).await.err().expect("partitions are set once").to_string();
        assert!(refused.starts_with("bus.partitions = 4: "), "{refused}");
    }

    #[tokio::test]
    async fn a_directory_in_use_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let _log = opened(directory.path(), &BusConfig::default()).await.expect("opens");
        let refused = opened(directory.path(), &BusConfig::default()).await.err().expect("in use").to_string();
        assert!(refused.starts_with(&format!("{} is in use", directory.path().display())), "{refused}");
        assert!(refused.ends_with("or choose another directory with --data DIR"), "{refused}");
    }
}
