//! Sessions in memory: of one node alone, or of several that share them.
//!
//! Adapter layer, of tests only. Of two changes that say something of the same the later counts: by their stamps, whichever
//! arrives last; where one node is alone, by the order in which they come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_mqtt::PacketId;

use crate::domain::sessions::Key;
use crate::ports::StoreError;
use crate::ports::sessions::{Change, Head, Listed, Place, Row, SessionStore, Stored, Subscription, What};

/// What all nodes have written.
#[derive(Clone, Default)]
pub struct SharedSessions(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    sessions: BTreeMap<Key, Session>,
    nodes: BTreeSet<Box<str>>,
    /// Changes of a node that is alone.
    written: u64,
}

/// Something, and the place of its change among those of its session.
struct At<T> {
    order: u64,
    value: T,
}

#[derive(Default)]
struct Session {
    /// Whatever was written up to this is gone with the session it was of.
    ended: u64,
    head: Option<At<(Head, Box<str>, u64)>>,
    subscriptions: Option<At<Vec<Subscription>>>,
    received: Option<At<Vec<PacketId>>>,
    /// `None`: removed.
    inbox: BTreeMap<Place, At<Option<Row>>>,
    /// Up to which change there is nothing before which place.
    passed: Vec<(u64, Place)>,
}

impl SharedSessions {
    /// The sessions as the node of this name has them.
    pub fn of(&self, node: &str) -> NodeSessions {
        self.kept().nodes.insert(node.into());
        NodeSessions { all: self.clone(), node: node.into() }
    }

    /// The sessions as the only node has them.
    pub fn alone(&self) -> NodeSessions {
        NodeSessions { all: self.clone(), node: Box::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sessions as one node has them.
#[derive(Clone)]
pub struct NodeSessions {
    all: SharedSessions,
    /// Its name; empty: it is alone.
    node: Box<str>,
}

/// Puts `value` there, unless what is there is later.
fn put<T>(there: &mut Option<At<T>>, order: u64, value: T) {
    if there.as_ref().is_none_or(|there| there.order <= order) {
        *there = Some(At { order, value });
    }
}

impl Session {
    fn change(&mut self, order: u64, change: &Change, node: &str) {
        if order <= self.ended {
            return;
        }
        match &change.what {
            What::Head(head) => put(&mut self.head, order, ((**head).clone(), node.into(), change.stamp)),
            What::Subscriptions(all) => put(&mut self.subscriptions, order, all.clone()),
            What::Received(packet_ids) => put(&mut self.received, order, packet_ids.clone()),
            What::Put(row) => self.put_row(order, row.place, Some(row.clone())),
            What::Remove(place) => self.put_row(order, *place, None),
            What::Passed { before, .. } => {
                self.passed.retain(|(passed, place)| *passed > order || place > before);
                self.passed.push((order, *before));
                self.inbox.retain(|place, row| place >= before || row.order > order);
            }
            What::End => {
                self.ended = order;
                self.head.take_if(|head| head.order <= order);
                self.subscriptions.take_if(|all| all.order <= order);
                self.received.take_if(|all| all.order <= order);
                self.inbox.retain(|_, row| row.order > order);
            }
            What::Left(_) => {} // lists are made of heads
        }
    }

    fn put_row(&mut self, order: u64, place: Place, row: Option<Row>) {
        let is_passed = self.passed.iter().any(|(passed, before)| order <= *passed && place < *before);
        let is_late = self.inbox.get(&place).is_some_and(|there| there.order > order);
        if !is_passed && !is_late {
            self.inbox.insert(place, At { order, value: row });
        }
    }

    fn stored(&self) -> Option<Stored> {
        let (head, node, stamp) = self.head.as_ref()?.value.clone();
        Some(Stored {
            head,
            subscriptions: self.subscriptions.as_ref().map(|all| all.value.clone()).unwrap_or_default(),
            received: self.received.as_ref().map(|all| all.value.clone()).unwrap_or_default(),
            stamp,
            node,
        })
    }
}

impl NodeSessions {
    fn list(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Vec<Listed> {
        let kept = self.all.kept();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stored = kept.sessions.range::<Key, _>((from, Bound::Unbounded)).filter_map(|(key, session)| {
            let stored = session.stored().filter(|stored| *stored.node == *node)?;
            Some((key.clone(), Ok(stored)))
        });
        stored.take(sessions_max).collect()
    }
}

#[async_trait]
impl SessionStore for NodeSessions {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        let mut kept = self.all.kept();
        for change in changes.iter() {
            kept.written += 1;
            let order = if self.is_shared() { change.stamp } else { kept.written };
            kept.sessions.entry((*change.key).clone()).or_default().change(order, change, &self.node);
        }
        Ok(())
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        Ok(self.all.kept().sessions.get(key).and_then(Session::stored))
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let kept = self.all.kept();
        let Some(session) = kept.sessions.get(key) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = session.inbox.range((from, Bound::Unbounded)).filter_map(|(_, row)| row.value.clone());
        Ok(rows.take(rows_max).collect())
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        Ok(self.list(&self.node, after, sessions_max))
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        Ok(if self.is_shared() { self.list(node, after, sessions_max) } else { Vec::new() })
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        let kept = self.all.kept();
        Ok(if self.is_shared() { kept.nodes.iter().map(ToString::to_string).collect() } else { Vec::new() })
    }

    fn is_shared(&self) -> bool {
        !self.node.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{SessionFactory, sessions};

    struct Alone(SharedSessions);

    #[async_trait]
    impl SessionFactory for Alone {
        async fn open(&self) -> Arc<dyn SessionStore> {
            Arc::new(self.0.alone())
        }
    }

    struct Shared(SharedSessions);

    #[async_trait]
    impl SessionFactory for Shared {
        async fn open(&self) -> Arc<dyn SessionStore> {
            Arc::new(self.0.of("n"))
        }
    }

    #[tokio::test]
    async fn sessions_in_memory_keep_every_promise_alone_and_shared() {
        sessions(&Alone(SharedSessions::default())).await;
        sessions(&Shared(SharedSessions::default())).await;
    }

    #[tokio::test]
    async fn a_change_that_comes_late_does_not_undo_what_another_node_has_written() {
        let all = SharedSessions::default();
        let (former, next) = (all.of("a"), all.of("b"));
        let key =
            Arc::new((drover_types::TenantId::default_tenant(), drover_types::ClientId::new("c").expect("valid")));
        let place = Place { epoch: 1, number: 0 };
        let row = Row { place, packet_id: PacketId::MIN, delivery: None };
        let change = |stamp, what| -> Arc<[Change]> { [Change { key: key.clone(), stamp, what }].into() };
        next.write(change(9, What::Passed { from: place, before: Place { number: 1, ..place } }))
            .await
            .expect("written");
        former.write(change(5, What::Put(row.clone()))).await.expect("written");
        assert!(next.inbox(&key, None, 10).await.expect("read").is_empty(), "it is passed");
        next.write(change(20, What::End)).await.expect("written");
        former.write(change(12, What::Put(row))).await.expect("written");
        assert!(next.inbox(&key, None, 10).await.expect("read").is_empty(), "its session has ended");
        assert_eq!(former.nodes().await.expect("read"), ["a", "b"]);
    }
}
