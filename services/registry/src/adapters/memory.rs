//! A store in memory: for simulation, where neither a thread nor a disk may decide what comes first, or how long it takes.
//!
//! Adapter layer, of tests only. What it keeps outlives the process that wrote it, as what is on a disk does, but for the view
//! of presence, which [`Memory::lose_presence`] takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::{DeviceKey, TenantId};

use super::claims::{claimed, released};
use crate::audit::{Entry, Position};
use crate::object::{Digest, Kind, Object, ObjectKey, Spec};
use crate::ports::{
    AuditPage, Change, Found, Lookups, Mutation, OutboxRow, PresenceChange, PresenceView, RegistryStore, RelayTurn,
    Session, SessionKey, StoreError, TopicClaim,
};

/// The store; clones share what it keeps.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    objects: BTreeMap<ObjectKey, Object>,
    had_credentials: BTreeSet<DeviceKey>,
    claims: BTreeMap<String, TopicClaim>,
    outbox: BTreeMap<u64, Change>,
    audit: BTreeMap<(TenantId, Position), Entry>,
    /// Of the last write.
    sequence: u64,
    presence: BTreeMap<Partition, View>,
}

#[derive(Default)]
struct View {
    next: Offset,
    sessions: BTreeMap<SessionKey, Session>,
}

impl Memory {
    /// Loses the view of presence, as a process may that dies before it is on disk.
    pub fn lose_presence(&self) {
        self.rows().presence.clear();
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn by_digest(&self, digest: &Digest) -> Option<Object> {
        let is_it = |object: &&Object| object.credential().is_some_and(|(credential, _)| credential.digest == *digest);
        self.objects.values().find(is_it).cloned()
    }

    fn write(&mut self, mutation: Mutation) -> Result<Option<Object>, StoreError> {
        let Mutation { key, expected, mut after, time_ms, actor } = mutation;
        let before = self.objects.get(&key).cloned();
        let found = before.as_ref().map(|object| object.meta.revision);
        if found != expected {
            return Err(StoreError::Conflict { expected, found });
        }
        self.sequence += 1;
        match &mut after {
            Some(object) => {
                object.meta.revision = self.sequence;
                self.had_credentials.extend(object.credential().map(|(_, device)| device));
                self.objects.insert(key.clone(), object.clone());
            }
            None => drop(self.objects.remove(&key)),
        }
        let told = |object: &Option<Object>| object.clone().map(without_secret);
        let (before, told_after, revision) = (told(&before), told(&after), self.sequence);
        self.outbox.insert(self.sequence, Change { key, before, after: told_after, time_ms, actor, revision });
        Ok(after)
    }
}

/// As the feed tells it: sealed keys do not leave the store.
fn without_secret(mut object: Object) -> Object {
    if let Spec::Credential(credential) = &mut object.spec {
        credential.sealed = None;
    }
    object
}

#[async_trait]
impl RegistryStore for Memory {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        Ok(self.rows().objects.get(key).cloned())
    }

    async fn page(&self, kind: Kind, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<Object>, StoreError> {
        let rows = self.rows();
        let from = Bound::Excluded(ObjectKey::new(kind, tenant, after));
        let behind = rows.objects.range((from, Bound::Unbounded));
        let of_kind = behind.take_while(|(key, _)| key.kind == kind && key.tenant == *tenant);
        Ok(of_kind.take(limit).map(|(_, object)| object.clone()).collect())
    }

    async fn credential_by_digest(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        Ok(self.rows().by_digest(digest))
    }

    async fn credentials_of(&self, device: &DeviceKey) -> Result<Vec<Object>, StoreError> {
        let rows = self.rows();
        let is_its = |object: &&Object| object.credential().is_some_and(|(_, owner)| owner == *device);
        Ok(rows.objects.values().filter(is_its).cloned().collect())
    }

    async fn has_had_credentials(&self, device: &DeviceKey) -> Result<bool, StoreError> {
        Ok(self.rows().had_credentials.contains(device))
    }

    async fn look_up(&self, wanted: Arc<Lookups>) -> Result<Found, StoreError> {
        let rows = self.rows();
        Ok(Found {
            objects: wanted.objects.iter().map(|key| Ok(rows.objects.get(key).cloned())).collect(),
            by_digest: wanted.digests.iter().map(|digest| Ok(rows.by_digest(digest))).collect(),
            had_credentials: wanted.had_credentials.iter().map(|key| Ok(rows.had_credentials.contains(key))).collect(),
        })
    }

    async fn write(&self, mutation: Mutation) -> Result<Option<Object>, StoreError> {
        self.rows().write(mutation)
    }

    async fn claim_topic(&self, topic: &str, rule: &ObjectKey, now_ms: u64) -> Result<TopicClaim, StoreError> {
        let mut rows = self.rows();
        let (after, answer) = claimed(rows.claims.remove(topic), rule, now_ms);
        rows.claims.extend(after.map(|claim| (topic.to_owned(), claim)));
        Ok(answer)
    }

    async fn topic_claim(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError> {
        Ok(self.rows().claims.get(topic).cloned())
    }

    async fn release_topic(&self, topic: &str, rule: &ObjectKey) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let after = released(rows.claims.remove(topic), rule);
        rows.claims.extend(after.map(|claim| (topic.to_owned(), claim)));
        Ok(())
    }

    async fn relay_turn(&self) -> Result<RelayTurn, StoreError> {
        Ok(RelayTurn::Alone)
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self.rows();
        let row = |(sequence, change): (&u64, &Change)| OutboxRow { sequence: *sequence, change: change.clone() };
        Ok(rows.outbox.iter().take(limit).map(row).collect())
    }

    async fn forget(&self, sequences: &[u64]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for sequence in sequences {
            rows.outbox.remove(sequence);
        }
        Ok(())
    }

    async fn put_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let placed = entries.into_iter().map(|entry| ((entry.tenant.clone(), entry.position()), entry));
        self.rows().audit.extend(placed);
        Ok(())
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let (rows, oldest) = (self.rows(), Position::at(oldest_ms));
        if oldest >= *before {
            return Ok(AuditPage::default());
        }
        let span = (tenant.clone(), oldest)..(tenant.clone(), before.clone());
        let entries: Vec<Entry> = rows.audit.range(span).rev().take(limit).map(|(_, entry)| entry.clone()).collect();
        let next = entries.last().filter(|_| entries.len() == limit).map(Entry::position);
        Ok(AuditPage { entries, next })
    }

    async fn presence_of(
        &self,
        partition: Partition,
        device: &DeviceKey,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let rows = self.rows();
        let all = rows.presence.get(&partition).into_iter().flat_map(|view| &view.sessions);
        let of_device = all.filter(|(key, _)| key.device == *device);
        Ok(of_device.map(|(key, session)| (key.clone(), session.clone())).collect())
    }

    async fn presence(&self, partition: Partition) -> Result<PresenceView, StoreError> {
        let rows = self.rows();
        let Some(view) = rows.presence.get(&partition) else { return Ok(PresenceView::default()) };
        let sessions = view.sessions.iter().map(|(key, session)| (key.clone(), session.clone())).collect();
        Ok(PresenceView { next: Some(view.next), sessions })
    }

    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for PresenceChange { partition, next, sessions } in changes {
            let view = rows.presence.entry(partition).or_default();
            view.next = next;
            for (key, session) in sessions {
                match session {
                    Some(session) => drop(view.sessions.insert(key, session)),
                    None => drop(view.sessions.remove(&key)),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Factory};

    struct Memories;

    #[async_trait]
    impl Factory for Memories {
        async fn empty(&self) -> Arc<dyn RegistryStore> {
            Arc::new(Memory::default())
        }

        async fn reopened(&self, store: Arc<dyn RegistryStore>) -> Arc<dyn RegistryStore> {
            store
        }
    }

    #[tokio::test]
    async fn the_store_in_memory_keeps_every_promise() {
        conformance::suite(&Memories).await;
    }
}
