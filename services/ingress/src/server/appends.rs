//! One connection's batches on their way into the log, in order.
//!
//! Server layer. At most one batch waits for its place in the log; its connection is not read meanwhile, which bounds
//! everything behind it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use drover_bus::{AppendError, Bus, Receipt, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::domain::message::Message;

/// Messages appended together.
pub struct Batch {
    pub messages: Vec<Arc<Message>>,
    /// When they were read.
    pub since: Instant,
}

/// What became of a batch.
pub enum Settled {
    /// It has its place in the log; the next may follow.
    Placed,
    /// It is durable, and so are all before it.
    Stored(Batch),
    /// It is not in the log, or may be.
    Failed(String),
}

/// The batches of one connection.
pub struct Appends {
    bus: Arc<dyn Bus>,
    topic: Topic,
    placing: Option<(BoxFuture<'static, Result<Receipt, AppendError>>, Batch)>,
    placed: VecDeque<(Receipt, Batch)>,
}

impl Appends {
    /// No batches yet.
    pub fn new(bus: Arc<dyn Bus>, topic: Topic) -> Self {
        Self { bus, topic, placing: None, placed: VecDeque::new() }
    }

    /// Whether another batch may be pushed.
    pub fn has_room(&self) -> bool {
        self.placing.is_none()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.placing.is_none() && self.placed.is_empty()
    }

    /// Starts an append. To be called only while there is room, so that batches keep their order.
    pub fn push(&mut self, messages: Vec<Arc<Message>>) {
        debug_assert!(self.has_room());
        let records = messages.iter().map(|message| message.outgoing(&self.topic)).collect();
        let bus = self.bus.clone();
        let append = async move { bus.append(records).await }.boxed();
        self.placing = Some((append, Batch { messages, since: Instant::now() }));
    }

    /// What happens next; never returns while nothing is on its way. Cancel-safe.
    pub async fn next(&mut self) -> Settled {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Settled> {
        if let Some((receipt, _)) = self.placed.front_mut()
            && let Poll::Ready(outcome) = receipt.poll_unpin(cx)
        {
            let batch = self.placed.pop_front().map(|(_, batch)| batch);
            return Poll::Ready(match (outcome, batch) {
                (Ok(_), Some(batch)) => Settled::Stored(batch),
                (Err(error), _) => Settled::Failed(error.to_string()),
                (Ok(_), None) => Settled::Placed,
            });
        }
        if let Some((append, _)) = &mut self.placing
            && let Poll::Ready(outcome) = append.poll_unpin(cx)
        {
            let batch = self.placing.take().map(|(_, batch)| batch);
            return Poll::Ready(match outcome {
                Ok(receipt) => {
                    self.placed.extend(batch.map(|batch| (receipt, batch)));
                    Settled::Placed
                }
                Err(error) => Settled::Failed(error.to_string()),
            });
        }
        Poll::Pending
    }
}
