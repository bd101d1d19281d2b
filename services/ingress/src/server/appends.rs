//! One connection's batches on their way into the log and to their subscribers, one after the other.
//!
//! Server layer. One batch at a time: after a batch that failed nothing of this connection may be in the log, or what
//! the device then sends again would come out behind it (P2). The connection is not read meanwhile, which bounds
//! everything behind it, and what arrives while it waits becomes the next batch.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use drover_bus::Outgoing;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::session::Session;

/// What became of a batch.
pub enum Settled {
    /// It is durable, and with all subscribers that a message waits for; so many messages.
    Stored(usize),
    /// It is not in the log, or may be.
    Failed(String),
}

/// The batches of one connection.
pub struct Appends {
    node: Arc<Node>,
    under_way: Option<BoxFuture<'static, Settled>>,
}

impl Appends {
    /// No batches yet.
    pub fn new(node: Arc<Node>) -> Self {
        Self { node, under_way: None }
    }

    /// Whether nothing is on its way, so that a batch may be pushed.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_none()
    }

    /// Starts an append of messages that session `publisher` sent. To be called only while nothing is on its way.
    pub fn push(&mut self, messages: Vec<Arc<Message>>, publisher: Option<Arc<Session>>) {
        debug_assert!(self.is_empty());
        let records = messages.iter().map(|message| message.outgoing(&self.node.topics)).collect();
        let mut append = append(self.node.clone(), messages, records, publisher).boxed();
        // Polled at once, so that its place is taken before another connection of this client comes to append.
        if let Poll::Ready(done) = append.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            append = std::future::ready(done).boxed();
        }
        self.under_way = Some(append);
    }

    /// What becomes of the batch on its way; never returns while there is none. Cancel-safe.
    pub async fn next(&mut self) -> Settled {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Settled> {
        let Some(append) = &mut self.under_way else { return Poll::Pending };
        let settled = std::task::ready!(append.poll_unpin(cx));
        self.under_way = None;
        Poll::Ready(settled)
    }
}

async fn append(
    node: Arc<Node>,
    messages: Vec<Arc<Message>>,
    records: Vec<Outgoing>,
    publisher: Option<Arc<Session>>,
) -> Settled {
    let since = Instant::now();
    if let Err(error) = node.store(&messages, records).await {
        return Settled::Failed(error.to_string());
    }
    node.telemetry.stored_after(since.elapsed());
    node.route_all(&messages, publisher.as_deref()).await;
    Settled::Stored(messages.len())
}
