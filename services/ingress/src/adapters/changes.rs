//! The registry's change feed: what is disabled, deleted or revoked is forgotten and closed, whoever else tells it; what
//! a changed device or policy allows is asked again for the connections it concerns.
//!
//! Adapter: reads `drover.registry.changes` from its end, and after a failure from where it was, so that no change is
//! missed; where that cannot be, every open connection is asked for again (P5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_bus::{Offset, ReadError, Stored, TopicPartition};
use drover_proto::registry::v1::Change;
use drover_proto::registry::v1::object::Object;
use drover_proto::types::v1 as wire;
use drover_types::{REGISTRY_CHANGES_TOPIC as CHANGES_TOPIC, TenantId};
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::node::Node;
use crate::domain::reverify::Affected;
use crate::domain::revocations::{Revocation, Whose};

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

/// Follows the feed until `stop`; after a failure from where it was.
pub async fn follow(node: Arc<Node>, fresh: Arc<Freshness>, stop: CancellationToken) {
    let follow = async {
        let mut feed = Vec::new();
        loop {
            let failure = follow_once(&node, &fresh, &mut feed).await;
            tracing::debug!(failure, "registry's changes cannot be read");
            tokio::time::sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(follow).await;
}

/// Reads all partitions in turn until one fails; why.
async fn follow_once(node: &Node, fresh: &Freshness, feed: &mut Vec<(TopicPartition, Offset)>) -> String {
    if feed.is_empty() {
        match drover_bus::bounds(&*node.bus, CHANGES_TOPIC).await {
            Ok(Some(found)) => feed.extend(found.into_iter().map(|(at, bounds)| (at, bounds.end))),
            Ok(None) => return format!("topic {CHANGES_TOPIC} does not exist"),
            Err(error) => return error.to_string(),
        }
        node.changed(&Affected::All); // who is connected already may have changed before that end
    }
    loop {
        let reads = feed.iter().map(|(at, next)| node.bus.read(at, *next, READ_BYTES_MAX, WAIT));
        let heard = match futures::future::try_join_all(reads).await {
            Ok(heard) => heard,
            Err(error) => {
                if let ReadError::OutOfRange { .. } = error {
                    feed.clear(); // changes are missed
                }
                return error.to_string();
            }
        };
        for ((_, next), records) in feed.iter_mut().zip(heard) {
            *next = records.last().map_or(*next, |last| last.position.offset + 1);
            records.iter().for_each(|record| apply(node, record));
        }
        fresh.hear();
    }
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
    let Some(object) = after.as_ref().or(before.as_ref()) else { return };
    match object {
        Object::Device(device) => match (before.as_ref(), after.as_ref()) {
            (_, Some(Object::Device(after))) if after.enabled => {
                if !matches!(&before, Some(Object::Device(before)) if before.enabled && before.policies == after.policies)
                {
                    changed_device(node, device.meta.as_ref());
                }
            }
            (None, _) => changed_device(node, device.meta.as_ref()), // anonymous connections it had before it was registered
            (Some(_), _) => revoke(node, device.meta.as_ref(), Whose::All),
        },
        Object::Credential(credential) => {
            let meta = wire::Meta {
                tenant: credential.tenant.clone(),
                name: credential.device.clone(),
                ..wire::Meta::default()
            };
            match &after {
                // Nobody is this device without credentials any more.
                Some(_) => revoke(node, Some(&meta), Whose::Anonymous),
                None => revoke(node, Some(&meta), Whose::Credential(credential.id.clone())),
            }
        }
        Object::Policy(policy) => {
            if let Some((tenant, policy)) = names(policy.meta.as_ref()) {
                node.changed(&Affected::Policy { tenant, policy });
            }
        }
        Object::Rule(_)
        | Object::ApiToken(_)
        | Object::Function(_)
        | Object::CertificateAuthority(_)
        | Object::DeviceType(_)
        | Object::DeviceGroup(_) => {}
    }
}

fn changed_device(node: &Node, meta: Option<&wire::Meta>) {
    if let Some((tenant, device)) = names(meta) {
        node.changed(&Affected::Device { tenant, device });
    }
}

fn revoke(node: &Node, meta: Option<&wire::Meta>, whose: Whose) {
    if let Some((tenant, device)) = names(meta) {
        node.revoke(Revocation { tenant, device, whose }); // whom it closes is nobody's to wait for here
    }
}

fn names(meta: Option<&wire::Meta>) -> Option<(TenantId, String)> {
    let meta = meta?;
    match TenantId::new(&meta.tenant) {
        Ok(tenant) => Some((tenant, meta.name.clone())),
        Err(error) => {
            tracing::warn!(%error, "a change of the registry names no tenant");
            None
        }
    }
}
