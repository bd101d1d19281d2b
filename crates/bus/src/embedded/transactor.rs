//! The producer of one transactional id: gathers nothing, sends each transaction to the writer as one command.

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::command::{Command, Commit, CommitError, Committer};
use super::{CLOSED, EmbeddedBus};
use crate::{AppendError, Position, TransactError, Transaction, Transactor};

/// A transactor of the embedded log. Fences live in memory: the lock on the directory keeps other processes out, and a
/// restart ends every holder.
pub(super) struct EmbeddedTransactor {
    bus: EmbeddedBus,
    id: String,
    number: u64,
}

impl EmbeddedTransactor {
    /// Takes the id over; returns when every commit of earlier holders is decided.
    pub async fn open(bus: EmbeddedBus, id: &str) -> Result<Self, TransactError> {
        let (answer, answered) = oneshot::channel();
        let aborted = |reason| TransactError::Aborted { reason };
        bus.send(1, 0, Command::Hold(id.to_owned(), answer)).await.map_err(aborted)?;
        let number = answered.await.map_err(|_| aborted(CLOSED.into()))?;
        Ok(Self { bus, id: id.to_owned(), number })
    }
}

#[async_trait]
impl Transactor for EmbeddedTransactor {
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        let batch = Batch::encode(self.bus.shared(), &transaction.records)?;
        self.bus.admit().map_err(|reason| TransactError::Aborted { reason })?;
        let group = transaction.offsets.as_ref().map(|(membership, _)| membership.group.clone()).unwrap_or_default();
        let offsets = transaction.offsets.map(|(membership, next)| Committer::Member(membership, next));
        let (answer, answered) = oneshot::channel();
        let transactor = Some((self.id.clone(), self.number));
        let command = Command::Commit(Commit { transactor, topics: batch.topics, offsets, answer });
        let sent = self.bus.send(batch.records, batch.bytes, command).await;
        sent.map_err(|reason| TransactError::Aborted { reason })?;
        match answered.await.unwrap_or_else(|_| Err(CommitError::Unknown(CLOSED.into()))) {
            Ok(offsets) => Ok(batch.places.positions(&offsets)),
            Err(CommitError::Superseded) => Err(TransactError::Fenced { transactional_id: self.id.clone() }),
            Err(CommitError::Rebalanced) => Err(TransactError::Rebalanced { group }),
            Err(CommitError::TopicGone(topic)) => Err(TransactError::Refused(AppendError::UnknownTopic { topic })),
            Err(CommitError::Undone(reason)) => Err(TransactError::Aborted { reason }),
            Err(CommitError::Unknown(reason)) => Err(TransactError::Unknown { reason }),
        }
    }
}

impl Drop for EmbeddedTransactor {
    fn drop(&mut self) {
        self.bus.shared().holders().release(&self.id, self.number);
    }
}
