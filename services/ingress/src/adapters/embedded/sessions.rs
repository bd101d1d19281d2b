//! Sessions in the embedded store: three rows a session, and one a message of its inbox.
//!
//! Adapter layer. All changes of a call are one batch on disk: all are there, or none. Stamps say nothing here, for one
//! process writes, in order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use fjall::Keyspace;

use super::keys::{self, Kind};
use super::open::{Open, Shared, store_error};
use crate::adapters::rows::sessions as rows;
use crate::domain::sessions::Key;
use crate::ports::StoreError;
use crate::ports::sessions::{Change, Listed, Place, Row, SessionStore, Stored, What};

/// Name of the node in heads: there is no other.
const NODE: &str = "";
/// Messages that are removed by their numbers, whether they are there or not; more are looked for first.
const REMOVED_BLINDLY_MAX: u32 = 1_000;

/// The embedded store of sessions.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

/// Rows to write, or to remove, by key.
type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a call writes.
#[derive(Default)]
struct Writes {
    sessions: Rows,
    inbox: Rows,
}

impl Sessions {
    /// Those in the database `shared`.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Runs a read or a write where blocking is allowed.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || work(&shared));
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }

    /// Reads, or answers with nothing if nothing was ever written.
    async fn read_with<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&Open) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |shared| shared.existing()?.map_or_else(|| Ok(T::default()), |open| read(&open))).await
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        self.run(move |shared| {
            let open = shared.opened()?;
            let mut writes = Writes::default();
            for change in changes.iter() {
                writes.add(&open, change).map_err(|error| change.failed(error))?;
            }
            let mut batch = open.batch();
            for (keyspace, rows) in [(&open.sessions, writes.sessions), (&open.inbox, writes.inbox)] {
                for (key, row) in rows {
                    match row {
                        Some(row) => batch.insert(keyspace, key, row),
                        None => batch.remove(keyspace, key),
                    }
                }
            }
            shared.commit(batch)
        })
        .await
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let key = key.clone();
        self.read_with(move |open| read(open, &key)).await
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let key = key.clone();
        self.read_with(move |open| {
            let prefix = keys::session(&key);
            let from = after.map_or(Bound::Included(prefix.clone()), |place| {
                Bound::Excluded(keys::message(&key, place)) // of the same session, so behind its prefix
            });
            let mut found = Vec::new();
            for row in open.inbox.range((from, Bound::Unbounded)).take(rows_max) {
                let (at, row) = row.into_inner().map_err(store_error)?;
                if !at.starts_with(&prefix) {
                    break;
                }
                found.push(rows::read_row(&key.0, keys::read_place(&at)?, &row)?);
            }
            Ok(found)
        })
        .await
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(keys::part(key, Kind::Received)));
        self.read_with(move |open| {
            let mut found = Vec::new();
            for row in open.sessions.range((from, Bound::Unbounded)) {
                let (key, kind) = keys::read_part(&row.into_inner().map_err(store_error)?.0)?;
                if kind == Some(Kind::Head) {
                    match read(open, &key) {
                        Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                        stored => found.extend(stored.transpose().map(|stored| (key, stored))),
                    }
                }
                if found.len() == sessions_max {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn left_by(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Vec<Listed>, StoreError> {
        Ok(Vec::new())
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

impl Writes {
    fn add(&mut self, open: &Open, change: &Change) -> Result<(), StoreError> {
        let (key, stamp) = (&*change.key, change.stamp);
        match &change.what {
            What::Head(head) => self.keep(key, Kind::Head, rows::write_head(head, NODE, stamp)),
            What::Subscriptions(all) => self.keep(key, Kind::Subscriptions, rows::write_subscriptions(all)),
            What::Received(packet_ids) => self.keep(key, Kind::Received, rows::write_received(packet_ids)),
            What::Put(row) => {
                self.inbox.insert(keys::message(key, row.place), Some(rows::write_row(row)));
            }
            What::Remove(place) => {
                self.inbox.insert(keys::message(key, *place), None);
            }
            What::Passed { from, before } if is_short(*from, *before) => {
                let numbers = from.number..before.number;
                let places = numbers.map(|number| Place { number, ..*from });
                self.inbox.extend(places.map(|place| (keys::message(key, place), None)));
            }
            What::Passed { from, before } => {
                let span = keys::message(key, *from)..keys::message(key, *before);
                self.remove_all(&open.inbox, span)?;
            }
            What::End => {
                for kind in Kind::ALL {
                    self.sessions.insert(keys::part(key, kind), None);
                }
                let (first, last) = (Place::default(), Place { epoch: u64::MAX, number: u32::MAX });
                self.remove_all(&open.inbox, keys::message(key, first)..keys::message(key, last))?;
            }
            What::Left(_) => {} // there are no lists of nodes
        }
        Ok(())
    }

    fn keep(&mut self, key: &Key, kind: Kind, row: Vec<u8>) {
        self.sessions.insert(keys::part(key, kind), Some(row));
    }

    /// Removes what is in `span`, in the database or about to be.
    fn remove_all(&mut self, inbox: &Keyspace, span: std::ops::Range<Vec<u8>>) -> Result<(), StoreError> {
        self.inbox.range_mut(span.clone()).for_each(|(_, row)| *row = None);
        for row in inbox.range(span) {
            let (key, _) = row.into_inner().map_err(store_error)?;
            self.inbox.insert(key.to_vec(), None);
        }
        Ok(())
    }
}

fn is_short(from: Place, before: Place) -> bool {
    from.epoch == before.epoch && before.number.saturating_sub(from.number) <= REMOVED_BLINDLY_MAX
}

fn read(open: &Open, key: &Key) -> Result<Option<Stored>, StoreError> {
    let row = |kind| open.sessions.get(keys::part(key, kind)).map_err(store_error);
    let Some(head) = row(Kind::Head)? else { return Ok(None) };
    let (head, _, stamp) = rows::read_head(&head)?;
    let subscriptions = row(Kind::Subscriptions)?.map(|row| rows::read_subscriptions(&row)).transpose()?;
    let received = row(Kind::Received)?.map(|row| rows::read_received(&row)).transpose()?;
    Ok(Some(Stored {
        head,
        subscriptions: subscriptions.unwrap_or_default(),
        received: received.unwrap_or_default(),
        stamp,
        node: NODE.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::embedded;
    use crate::conformance::{BOUNDS, SessionFactory, sessions};

    struct Directory(tempfile::TempDir);

    #[async_trait]
    impl SessionFactory for Directory {
        async fn open(&self) -> Arc<dyn SessionStore> {
            Arc::new(embedded::open(&self.0.path().join("store"), BOUNDS).expect("opens").1)
        }
    }

    #[tokio::test]
    async fn the_embedded_store_keeps_every_promise() {
        sessions(&Directory(tempfile::tempdir().expect("a directory"))).await;
    }
}
