//! Reads the log for a view: back from the beginning for tenants whose rules begin to ask, and on from where that ended.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_bus::{Bus, ReadError, Record, Stored, TopicPartition};
use drover_host::{Backoff, Shutdown};
use drover_proto::registry::v1::{Change as RegistryChange, object};
use drover_proto::types::v1 as wire;
use drover_types::TenantId;
use drover_types::shadow::SHADOW_DOCUMENTS_TOPIC;
use futures::future::join_all;
use prost::Message as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::domain::{View, Views};
use crate::feed::CHANGES_TOPIC;
use crate::telemetry::Telemetry;

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Longest wait for a record before asking again.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether rules of more tenants ask.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether a topic that did not exist has been made.
const ABSENT: Duration = Duration::from_secs(1);

/// An entry as a record tells it: tenant, key, and its JSON if it is there.
type Told = (TenantId, String, Option<String>);

/// Keeps one view as the log says.
pub struct Follow {
    pub bus: Arc<dyn Bus>,
    pub views: Arc<Views>,
    pub telemetry: Telemetry,
    topic: &'static str,
    view: fn(&Views) -> &View,
    told: fn(&Record) -> Option<Told>,
}

/// A partition, and where it is read on.
struct Place {
    at: TopicPartition,
    next: AtomicU64,
}

impl Follow {
    /// The registry's devices.
    pub fn devices(bus: Arc<dyn Bus>, views: Arc<Views>, telemetry: Telemetry) -> Self {
        Self { bus, views, telemetry, topic: CHANGES_TOPIC, view: |views| &views.devices, told: device }
    }

    /// Documents of shadows.
    pub fn shadows(bus: Arc<dyn Bus>, views: Arc<Views>, telemetry: Telemetry) -> Self {
        Self { bus, views, telemetry, topic: SHADOW_DOCUMENTS_TOPIC, view: |views| &views.shadows, told: shadow }
    }

    /// Works until `shutdown`; reads nothing as long as no rule asks.
    pub async fn run(self, shutdown: Shutdown) {
        let (mut places, mut backoff) = (Vec::new(), Backoff::default());
        loop {
            let turn = async {
                let mut asked = self.view().unknown();
                if places.is_empty() {
                    // There was no topic when it was looked last: nobody's entries have been read.
                    asked.extend(self.view().known());
                }
                if asked.is_empty() {
                    self.go_on(&places).await;
                    return Ok(());
                }
                places = self.read_back(&asked, &places).await?;
                self.view().know(asked);
                if places.is_empty() {
                    sleep(ABSENT).await;
                }
                Ok::<(), ReadError>(())
            };
            match shutdown.run_until_cancelled(turn).await {
                None => return,
                Some(Ok(())) => backoff.reset(),
                Some(Err(error)) => {
                    tracing::warn!(topic = self.topic, %error, "what rules look up cannot be read back");
                    if !backoff.wait(&shutdown).await {
                        return;
                    }
                }
            }
        }
    }

    fn view(&self) -> &View {
        (self.view)(&self.views)
    }

    /// All that the log has of these tenants, up to where the others are; up to its end, if there are none. A topic that does
    /// not exist has nothing of anybody.
    async fn read_back(&self, tenants: &HashSet<TenantId>, places: &[Place]) -> Result<Vec<Place>, ReadError> {
        let started = Instant::now();
        let Some(partitions) = drover_bus::bounds(&*self.bus, self.topic).await? else { return Ok(Vec::new()) };
        let mut reached = Vec::with_capacity(partitions.len());
        for (at, bounds) in partitions {
            let place = places.iter().find(|place| place.at == at);
            let end = place.map_or(bounds.end, |place| place.next.load(Ordering::Relaxed));
            let mut next = bounds.earliest;
            while next < end {
                let records = match self.bus.read(&at, next, READ_BYTES, Duration::ZERO).await {
                    Err(ReadError::Corrupt { reason }) => {
                        // As with states: one damaged place does not stop every rule, and is told of.
                        tracing::error!(reason, topic = self.topic, at.partition, next, "look-ups behind it are lost");
                        break;
                    }
                    read => read?,
                };
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                let before = records.iter().take_while(|stored| stored.position.offset < end);
                self.apply(tenants, before);
            }
            reached.push(Place { at, next: AtomicU64::new(end) });
        }
        tracing::info!(topic = self.topic, tenants = tenants.len(), took = ?started.elapsed(), "read what rules look up");
        Ok(reached)
    }

    /// Follows every partition until rules of more tenants ask.
    async fn go_on(&self, places: &[Place]) {
        let more = async {
            while self.view().unknown().is_empty() {
                sleep(LOOK).await;
            }
        };
        let following: Vec<_> = places.iter().map(|place| self.follow(place)).collect();
        tokio::select! {
            biased;
            () = more => {}
            _ = join_all(following), if !places.is_empty() => {}
        }
    }

    async fn follow(&self, place: &Place) {
        loop {
            let next = place.next.load(Ordering::Relaxed);
            match self.bus.read(&place.at, next, READ_BYTES, READ_WAIT).await {
                Ok(records) => {
                    let Some(last) = records.last() else { continue };
                    self.apply(&self.view().known(), records.iter());
                    place.next.store(last.position.offset + 1, Ordering::Relaxed);
                }
                // Compaction has removed what was there; what it left comes now.
                Err(ReadError::OutOfRange { from, earliest, .. }) if from < earliest => {
                    place.next.store(earliest, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::debug!(%error, topic = self.topic, place.at.partition, "what rules look up stands still");
                    sleep(READ_WAIT).await;
                }
            }
        }
    }

    fn apply<'r>(&self, tenants: &HashSet<TenantId>, records: impl Iterator<Item = &'r Stored>) {
        let told: Vec<Told> = records.filter_map(|stored| (self.told)(&stored.record)).collect();
        self.view().apply(tenants, told.iter().map(|(tenant, key, json)| (tenant, key.as_str(), json.clone())));
        self.telemetry.looked_up(&self.views);
    }
}

/// A device, as `device()` shows it.
fn device(record: &Record) -> Option<Told> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    let (tenant, name) = key.strip_prefix("device/")?.split_once('/')?;
    let after = match record.value.clone().map(RegistryChange::decode) {
        None => None,
        Some(Ok(change)) => change.after.and_then(|after| after.object),
        Some(Err(error)) => {
            tracing::error!(device = name, %error, "a change of the registry cannot be read");
            return None;
        }
    };
    let json = match after {
        Some(object::Object::Device(device)) => Some(entry(name, device)),
        Some(_) | None => None,
    };
    Some((TenantId::new(tenant).ok()?, name.to_owned(), json))
}

/// `{"name", "type", "labels", "attributes"}`; a device of no type has none.
fn entry(name: &str, device: wire::Device) -> String {
    let wire::Device { meta, r#type, attributes, .. } = device;
    let sorted = |pairs: std::collections::HashMap<String, String>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let labels = sorted(meta.unwrap_or_default().labels);
    let mut entry = json!({"name": name});
    if !r#type.is_empty() {
        entry["type"] = r#type.into();
    }
    entry["labels"] = json!(labels);
    entry["attributes"] = json!(sorted(attributes));
    entry.to_string()
}

/// The document of a shadow that is there.
fn shadow(record: &Record) -> Option<Told> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    let (tenant, key) = key.split_once('/')?;
    let json = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    let json = json.filter(|json| is_there(json)).map(str::to_owned);
    Some((TenantId::new(tenant).ok()?, key.to_owned(), json))
}

/// Whether a document has a state: a deleted one has none.
fn is_there(json: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Document {
        state: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Document>(json).is_ok_and(|document| document.state.is_some())
}
