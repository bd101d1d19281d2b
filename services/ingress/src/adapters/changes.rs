//! The registry's change feed: what is disabled, deleted or revoked is forgotten and closed, whoever else tells it.
//!
//! Adapter: reads `drover.registry.changes` from its end. A change of a policy ends what is kept of its tenant's
//! identities; connections that are open keep the policy they were admitted with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_bus::{Bus, Stored, TopicPartition};
use drover_proto::registry::v1::{Change, object};
use drover_proto::types::v1 as wire;
use drover_types::TenantId;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::node::Node;

/// Topic of the feed.
const CHANGES_TOPIC: &str = "drover.registry.changes";
/// Longest wait of one read; each answer, even an empty one, shows that the feed is alive.
const WAIT: Duration = Duration::from_millis(250);
/// A feed that was not heard for this long may hide a revocation (P5).
const FRESH: Duration = Duration::from_secs(1);
/// Wait after a read that failed.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes of one read.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// When all of the feed was last heard.
pub struct Freshness {
    started: Instant,
    /// Milliseconds since `started`, + 1; 0: never.
    heard: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { started: Instant::now(), heard: AtomicU64::new(0) }
    }
}

impl Freshness {
    /// Whether the feed was heard lately.
    pub fn is_fresh(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        heard > 0 && self.elapsed_ms() + 1 < heard + FRESH.as_millis() as u64
    }

    pub(super) fn hear(&self) {
        self.heard.store(self.elapsed_ms() + 1, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Follows the feed until `stop`; after a failure from its end again, with nothing kept.
pub async fn follow(node: Arc<Node>, fresh: Arc<Freshness>, stop: CancellationToken) {
    loop {
        let failure = stop.run_until_cancelled(follow_once(&node, &fresh)).await;
        let Some(failure) = failure else { return };
        tracing::debug!(failure, "registry's changes cannot be read");
        let Some(()) = stop.run_until_cancelled(tokio::time::sleep(RETRY)).await else { return };
    }
}

/// Reads all partitions in turn until one fails; why.
async fn follow_once(node: &Node, fresh: &Freshness) -> String {
    let mut ends = match ends(&*node.bus).await {
        Ok(ends) => ends,
        Err(failure) => return failure,
    };
    loop {
        let reads = ends.iter().map(|(at, next)| node.bus.read(at, *next, READ_BYTES_MAX, WAIT));
        let heard = match futures::future::try_join_all(reads).await {
            Ok(heard) => heard,
            Err(error) => return error.to_string(),
        };
        for ((_, next), records) in ends.iter_mut().zip(heard) {
            *next = records.last().map_or(*next, |last| last.position.offset + 1);
            records.iter().for_each(|record| apply(node, record));
        }
        fresh.hear();
    }
}

async fn ends(bus: &dyn Bus) -> Result<Vec<(TopicPartition, u64)>, String> {
    let topics = bus.topics().await.map_err(|e| e.to_string())?;
    let topic = topics.iter().find(|topic| &*topic.topic == CHANGES_TOPIC);
    let partitions = topic.ok_or_else(|| format!("topic {CHANGES_TOPIC} does not exist"))?.partitions;
    let mut ends = Vec::new();
    for partition in 0..partitions {
        let at = TopicPartition::new(CHANGES_TOPIC, partition);
        let end = bus.bounds(&at).await.map_err(|e| e.to_string())?.end;
        ends.push((at, end));
    }
    Ok(ends)
}

fn apply(node: &Node, record: &Stored) {
    let Some(value) = &record.record.value else { return }; // a tombstone follows its deletion
    match Change::decode(value.as_ref()) {
        Ok(change) => apply_change(node, change),
        Err(error) => tracing::warn!(%error, position = ?record.position, "a change of the registry cannot be read"),
    }
}

fn apply_change(node: &Node, change: Change) {
    let before = change.before.and_then(|object| object.object);
    let after = change.after.and_then(|object| object.object);
    match (before, after) {
        (Some(object::Object::Device(before)), after) if !still_admits(after.as_ref()) => {
            revoke(node, before.meta.as_ref(), "");
        }
        (Some(object::Object::Device(before)), Some(_)) => forget(node, before.meta.as_ref(), true),
        (Some(object::Object::Credential(gone)), None) => {
            let meta = wire::Meta { tenant: gone.tenant, name: gone.device, ..wire::Meta::default() };
            revoke(node, Some(&meta), &gone.id);
        }
        (Some(object::Object::Policy(before)), _) => forget(node, before.meta.as_ref(), false),
        (None, _) | (Some(object::Object::Device(_) | object::Object::Credential(_) | object::Object::Rule(_)), _) => {}
    }
}

fn still_admits(after: Option<&object::Object>) -> bool {
    match after {
        Some(object::Object::Device(after)) => after.enabled,
        Some(object::Object::Credential(_) | object::Object::Policy(_) | object::Object::Rule(_)) | None => false,
    }
}

fn revoke(node: &Node, meta: Option<&wire::Meta>, credential: &str) {
    let Some(meta) = meta else { return };
    match TenantId::new(&meta.tenant) {
        Ok(tenant) => drop(node.revoke(&tenant, &meta.name, credential)),
        Err(error) => tracing::warn!(%error, "a change of the registry names no tenant"),
    }
}

/// Nothing is revoked, but what is known may be outdated.
fn forget(node: &Node, meta: Option<&wire::Meta>, one_device: bool) {
    if let Some(meta) = meta {
        node.authenticator.forget(&meta.tenant, if one_device { &meta.name } else { "" }, "");
    }
}
