//! The sessions of a node as one life of it has them: slow and failing by seed, broken on purpose, and out of reach when that
//! life ends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_ingress::domain::sessions::Key;
use drover_ingress::memory::NodeSessions;
use drover_ingress::ports::StoreError;
use drover_ingress::ports::sessions::{Change, Listed, Place, Row, SessionStore, Stored, What};
use drover_sim::SeededRandom;
use drover_types::TenantId;
use tokio_util::sync::CancellationToken;

use super::severed::through;

/// Longest time that a call takes, milliseconds.
const DELAY_MS_MAX: u64 = 10;
/// Of 1,000 calls, how many fail; a write may have been made then, or not.
const FAILURES: u64 = 20;
/// How long after it was said to be durable a change is written, where that is broken.
const LATE: Duration = Duration::from_secs(2);

/// What is broken; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreFlaws {
    /// Messages of inboxes are said to be durable and never written.
    pub forgets_messages: bool,
    /// Changes are said to be durable when they come, and written later.
    pub answers_before: bool,
    /// Sessions that were left are not found by the next life of their node.
    pub forgets_sessions: bool,
    /// Sessions are known by their clients' ids alone, whatever tenant they are of.
    pub ignores_tenants: bool,
}

/// After the line is severed no call begins, and none that has begun ends.
pub struct SeverableSessions {
    pub inner: NodeSessions,
    pub severed: CancellationToken,
    pub random: Arc<SeededRandom>,
    pub flaws: StoreFlaws,
}

impl SeverableSessions {
    /// A call that takes its time, and may fail.
    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let slowly = async {
            tokio::time::sleep(Duration::from_millis(self.random.below(DELAY_MS_MAX + 1))).await;
            self.failure("asked")?;
            let answer = call.await?;
            self.failure("answered")?;
            Ok::<T, StoreError>(answer)
        };
        through(&self.severed, slowly).await
    }

    fn failure(&self, when: &str) -> Result<(), StoreError> {
        if self.random.chance(FAILURES / 2) {
            return Err(StoreError::Unavailable { reason: format!("simulated, when it was {when}") });
        }
        Ok(())
    }

    /// Writes after a while, if this life lasts so long. Later changes follow in their order.
    fn write_late(&self, changes: Arc<[Change]>) {
        let (inner, severed) = (self.inner.clone(), self.severed.clone());
        tokio::spawn(async move {
            let late = async {
                tokio::time::sleep(LATE).await;
                inner.write(changes).await
            };
            drop(severed.run_until_cancelled(late).await); // nobody waits for it
        });
    }
}

impl StoreFlaws {
    /// What is to be written instead.
    fn changes(self, changes: Arc<[Change]>) -> Arc<[Change]> {
        if !self.forgets_messages && !self.ignores_tenants {
            return changes;
        }
        let kept = changes.iter().filter(|change| !(self.forgets_messages && matches!(change.what, What::Put(_))));
        kept.map(|change| Change { key: Arc::new(self.key(&change.key)), ..change.clone() }).collect()
    }

    /// The key under which a session is kept.
    fn key(self, key: &Key) -> Key {
        if self.ignores_tenants { (TenantId::default_tenant(), key.1.clone()) } else { key.clone() }
    }
}

#[async_trait]
impl SessionStore for SeverableSessions {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        let changes = self.flaws.changes(changes);
        if self.flaws.answers_before {
            self.write_late(changes);
            return Ok(());
        }
        self.call(self.inner.write(changes)).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.call(self.inner.read(&self.flaws.key(key))).await
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        self.call(self.inner.inbox(&self.flaws.key(key), after, rows_max)).await
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        if self.flaws.forgets_sessions {
            return Ok(Vec::new());
        }
        self.call(self.inner.own(after, sessions_max)).await
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.call(self.inner.left_by(node, after, sessions_max)).await
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        self.call(self.inner.nodes()).await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}
