//! The store in Cassandra or Scylla, shared by any number of registry processes.
//!
//! Adapter layer. [`heads`] has the one decision of every write and what follows from it, [`lists`], [`look_up`] and
//! [`presence`] read and write what is not decided, [`outbox`] hands changes to the one process that relays them, [`audit`] keeps what it makes of them. Numbers of writes
//! ([`sequence`]) are the timestamps of all rows, so that nothing late wins over anything newer.

mod audit;
mod claims;
mod heads;
mod lists;
mod look_up;
mod minutes;
mod outbox;
mod presence;
mod rows;
mod schema;
mod sequence;
mod statements;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::Partition;
use drover_scylla_kit::{Cassandra, OpenError, Store};
use drover_types::{Clock, DeviceKey, Random, TenantId};

use crate::adapters::claims::{claimed, released};
use crate::audit::{Entry, Position};
use crate::object::{Digest, Kind, Object, ObjectKey};
use crate::ports::{
    AuditPage, Found, Lookups, Mutation, OutboxRow, PresenceChange, PresenceView, RegistryStore, RelayTurn, Session,
    SessionKey, StoreError, TopicClaim,
};
use minutes::Minutes;
use outbox::Relay;
use schema::SCHEMA;
use sequence::Sequence;
use statements::Statements;

/// Random bytes that tell processes apart.
const WRITER_BYTES: usize = 16;

/// The store in a keyspace. Any number of them, in any number of processes, may be open at once.
pub struct Scylla {
    store: Store,
    statements: Statements,
    sequence: Sequence,
    /// Tells this store's writes and its turn at the relay from those of others.
    writer: [u8; WRITER_BYTES],
    relay: Mutex<Relay>,
    minutes: Mutex<Minutes>,
    /// How long a call may take, however many requests it is.
    patience: Duration,
}

impl Scylla {
    /// Opens the registry's tables, or makes them; while the database is away, waits and tells why.
    pub async fn open(
        cassandra: &Cassandra,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        waiting: impl Fn(&OpenError),
    ) -> Result<Self, OpenError> {
        let prepare = async |store: Store| Statements::prepare(&store).await.map(|statements| (store, statements));
        let (store, statements) = cassandra.open_and_prepare(&SCHEMA, prepare, waiting).await?;
        let mut writer = [0; WRITER_BYTES];
        random.fill(&mut writer);
        let (sequence, patience) = (Sequence::new(clock), store.request_timeout());
        Ok(Self { store, statements, sequence, writer, relay: Mutex::default(), minutes: Mutex::default(), patience })
    }

    /// A call ends in time, whatever the database does. What it was at then happens wholly, later, or not.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late =
            || StoreError::Unavailable { reason: format!("cassandra did not answer within {:?}", self.patience) };
        tokio::time::timeout(self.patience, call).await.unwrap_or_else(|_| Err(late()))
    }
}

#[async_trait]
impl RegistryStore for Scylla {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.in_time(self.object(key)).await
    }

    async fn page(&self, kind: Kind, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<Object>, StoreError> {
        self.in_time(self.list(kind, tenant, after, limit)).await
    }

    async fn credential_by_digest(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        self.in_time(self.by_digest(digest)).await
    }

    async fn credentials_of(&self, device: &DeviceKey) -> Result<Vec<Object>, StoreError> {
        self.in_time(self.credentials(device)).await
    }

    async fn has_had_credentials(&self, device: &DeviceKey) -> Result<bool, StoreError> {
        self.in_time(async {
            let values = (device.tenant.as_str(), device.device.as_str());
            let row: Option<(Option<bool>,)> = self.store.row(&self.statements.had_credentials, values).await?;
            Ok(row.is_some())
        })
        .await
    }

    async fn look_up(&self, wanted: Arc<Lookups>) -> Result<Found, StoreError> {
        Ok(self.look_up_each(&wanted).await)
    }

    async fn write(&self, mutation: Mutation) -> Result<Option<Object>, StoreError> {
        self.in_time(self.write_object(&mutation)).await
    }

    async fn claim_topic(&self, topic: &str, rule: &ObjectKey, now_ms: u64) -> Result<TopicClaim, StoreError> {
        self.in_time(self.change_claim(topic, |before| claimed(before, rule, now_ms))).await
    }

    async fn topic_claim(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError> {
        self.in_time(self.claim_of(topic)).await
    }

    async fn release_topic(&self, topic: &str, rule: &ObjectKey) -> Result<(), StoreError> {
        self.in_time(self.change_claim(topic, |before| (released(before, rule), ()))).await
    }

    async fn relay_turn(&self) -> Result<RelayTurn, StoreError> {
        self.in_time(self.claim()).await
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        // Each request has its own time; after a long absence there are many.
        self.waiting(limit).await
    }

    async fn forget(&self, sequences: &[u64]) -> Result<(), StoreError> {
        self.in_time(self.remove(sequences)).await
    }

    async fn put_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.in_time(self.put_entries(entries)).await
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        self.in_time(self.entries(tenant, oldest_ms, before, limit)).await
    }

    async fn presence_of(
        &self,
        partition: Partition,
        device: &DeviceKey,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        self.in_time(self.sessions_of(partition, device)).await
    }

    async fn presence(&self, partition: Partition) -> Result<PresenceView, StoreError> {
        self.view(partition).await
    }

    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        for PresenceChange { partition, next, sessions } in changes {
            self.put_view(partition, next, sessions).await?;
        }
        Ok(())
    }
}
