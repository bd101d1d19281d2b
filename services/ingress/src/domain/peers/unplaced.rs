//! Messages of shared subscriptions that a peer could not give to a member, or has taken with it: somebody else is to be
//! found for them.
//!
//! No more than the queues to peers, and what is held of theirs, have room for.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::held::Unplaced;

/// Those that wait for that.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Vec<Unplaced>>,
    more: Notify,
}

impl Queue {
    /// More of them.
    pub fn add(&self, unplaced: impl IntoIterator<Item = Unplaced>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(unplaced);
        if !waiting.is_empty() {
            self.more.notify_one();
        }
    }

    /// All of them, as soon as there are any.
    pub async fn next(&self) -> Vec<Unplaced> {
        loop {
            let more = self.more.notified();
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting;
            }
            more.await;
        }
    }
}
