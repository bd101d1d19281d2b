//! Stores that are opened while the node runs already: whoever asks before waits for them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Retained, Sessions};
use crate::domain::message::Message;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Change, Listed, Place, Row, SessionStore, Stored};
use crate::ports::{RetainedPage, RetainedQuery, RetainedStore, StoreError};

/// A store that is not there yet.
pub struct Late<T>(watch::Sender<Option<Arc<T>>>);

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<T> Late<T> {
    /// It is there.
    pub fn set(&self, store: T) {
        self.0.send_replace(Some(Arc::new(store)));
    }

    /// The store, as soon as it is there.
    pub(in crate::adapters) async fn get(&self) -> Arc<T> {
        let mut opened = self.0.subscribe();
        let store = opened.wait_for(Option::is_some).await.map(|opened| opened.clone());
        store.ok().flatten().expect("the sender is here, and there is some")
    }
}

#[async_trait]
impl RetainedStore for Late<Retained> {
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        self.get().await.keep(messages).await
    }

    async fn matching(&self, query: RetainedQuery) -> Result<RetainedPage, StoreError> {
        self.get().await.matching(query).await
    }

    async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        self.get().await.sweep(now_ms).await
    }
}

#[async_trait]
impl SessionStore for Late<Sessions> {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        self.get().await.write(changes).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.get().await.read(key).await
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        self.get().await.inbox(key, after, rows_max).await
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.get().await.own(after, sessions_max).await
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.get().await.left_by(node, after, sessions_max).await
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        self.get().await.nodes().await
    }

    fn is_shared(&self) -> bool {
        true
    }
}
