//! What all nodes share, in memory: their sessions, and who owns them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use drover_types::{ClientId, TenantId};

use super::platform::NAMES;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Change, Head, Listed, Place, Row, SessionStore, Stored, Subscription, What};
use crate::ports::{Former, Owner, Owners, OwnersError, StoreError, Taken};

/// What all nodes share.
#[derive(Default)]
pub(super) struct Database {
    sessions: Mutex<BTreeMap<Key, Rows>>,
    owners: Mutex<HashMap<Key, Owner>>,
    epochs: AtomicU64,
    /// No node can ask for the sessions of its own.
    pub(super) is_away: AtomicBool,
    /// The session that cannot be read.
    pub(super) unreadable: Mutex<Option<Key>>,
    /// Of the reads of a session each of this number fails; 0: none.
    pub(super) fails_each: AtomicU64,
    reads: AtomicU64,
}

/// One session: its head with the node and stamp of the last write, and the rest.
#[derive(Default)]
struct Rows {
    head: Option<(Head, Box<str>, u64)>,
    subscriptions: Vec<Subscription>,
    inbox: BTreeMap<Place, Row>,
}

/// The database as one node has it.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) database: Arc<Database>,
    pub(super) node: &'static str,
}

impl Client {
    fn write_one(&self, Change { key, stamp, what }: &Change) {
        let mut sessions = self.database.sessions.lock().expect("no panic");
        let rows = sessions.entry((**key).clone()).or_default();
        match what {
            What::Head(head) if rows.head.as_ref().is_none_or(|(.., last)| last < stamp) => {
                rows.head = Some(((**head).clone(), self.node.into(), *stamp));
            }
            What::Head(_) | What::Received(_) | What::Left(_) => {}
            What::Subscriptions(all) => rows.subscriptions.clone_from(all),
            What::Put(row) => {
                rows.inbox.insert(row.place, row.clone());
            }
            What::Remove(place) => {
                rows.inbox.remove(place);
            }
            What::Passed { before, .. } => rows.inbox.retain(|place, _| place >= before),
            What::End => {
                sessions.remove(&**key);
            }
        }
    }
}

#[async_trait]
impl SessionStore for Client {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        changes.iter().for_each(|change| self.write_one(change));
        Ok(())
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let (reads, each) = (&self.database.reads, self.database.fails_each.load(Ordering::Relaxed));
        let fails = each > 0 && (reads.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(each);
        if fails || self.database.unreadable.lock().expect("no panic").as_ref() == Some(key) {
            return Err(StoreError::Unavailable { reason: "as told".to_owned() });
        }
        let sessions = self.database.sessions.lock().expect("no panic");
        let Some(rows) = sessions.get(key) else { return Ok(None) };
        let Some((head, node, stamp)) = rows.head.clone() else { return Ok(None) };
        Ok(Some(Stored { head, subscriptions: rows.subscriptions.clone(), received: Vec::new(), stamp, node }))
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let sessions = self.database.sessions.lock().expect("no panic");
        let Some(rows) = sessions.get(key) else { return Ok(Vec::new()) };
        let behind = rows.inbox.values().filter(|row| after.is_none_or(|after| row.place > after));
        Ok(behind.take(rows_max).cloned().collect())
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        if self.database.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { reason: "as told".to_owned() });
        }
        self.left_by(self.node, after, sessions_max).await
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        let sessions = self.database.sessions.lock().expect("no panic");
        let of_node =
            |head: &Option<(Head, Box<str>, u64)>| head.as_ref().is_some_and(|(_, writer, _)| **writer == *node);
        let found = sessions.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        let found = found.filter(|(_, rows)| of_node(&rows.head));
        let listed = |(key, rows): (&Key, &Rows)| {
            let (head, node, stamp) = rows.head.clone().expect("it was just looked at");
            let stored = Stored { head, subscriptions: rows.subscriptions.clone(), received: Vec::new(), stamp, node };
            (key.clone(), Ok(stored))
        };
        Ok(found.take(sessions_max).map(listed).collect())
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        Ok(NAMES.map(str::to_owned).to_vec())
    }

    fn is_shared(&self) -> bool {
        true
    }
}

#[async_trait]
impl Owners for Client {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        let epoch = self.database.epochs.fetch_add(1_000, Ordering::Relaxed) + 1_000;
        let owner = Owner { node: self.node.to_owned(), epoch };
        let former = self.database.owners.lock().expect("no panic").insert((tenant.clone(), client.clone()), owner);
        let former = former.filter(|former| former.node != self.node);
        Ok(Taken { epoch, former: former.map_or(Former::Here, |former| Former::Node(former.node)) })
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        Ok(self.database.owners.lock().expect("no panic").get(&(tenant.clone(), client.clone())).cloned())
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        if self.owner(tenant, client).await? != owner {
            return Ok(None);
        }
        Ok(Some(self.take(tenant, client).await?.epoch))
    }

    async fn renew(&self, _: &TenantId, _: &ClientId, _: u64) -> Result<(), OwnersError> {
        Ok(())
    }
}
