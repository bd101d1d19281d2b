//! Which batches are on their way, and since when: what metrics tell while a cluster hangs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Batches that are taken and not settled; as many as the bounded queue before the producer has room for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    batches: Mutex<Batches>,
    callers: AtomicUsize,
}

#[derive(Debug, Default)]
struct Batches {
    since: BTreeMap<u64, Instant>,
    taken: u64,
}

/// A batch's room in the queue, held until its receipt is resolved.
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    number: u64,
    _room: [OwnedSemaphorePermit; 2],
}

/// A caller who waits in line for room.
pub(crate) struct InLine<'w>(&'w Waiting);

impl Waiting {
    /// A batch is taken.
    pub fn take(self: &Arc<Self>, room: [OwnedSemaphorePermit; 2]) -> Place {
        let mut batches = self.lock();
        let number = batches.taken;
        batches.taken += 1;
        batches.since.insert(number, Instant::now());
        drop(batches);
        Place { waiting: self.clone(), number, _room: room }
    }

    /// Counts the caller until it has room.
    pub fn line_up(&self) -> InLine<'_> {
        self.callers.fetch_add(1, Ordering::Relaxed);
        InLine(self)
    }

    /// Callers in line.
    pub fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }

    /// Age of the oldest batch.
    pub fn oldest(&self) -> Option<Duration> {
        self.lock().since.first_key_value().map(|(_, since)| since.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.lock().since.remove(&self.number);
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_told_until_it_is_settled_in_whatever_order() {
        let (waiting, room) = (Arc::new(Waiting::default()), Arc::new(Semaphore::new(100)));
        let take = async || {
            let one = || room.clone().acquire_many_owned(1);
            waiting.take([one().await.expect("room"), one().await.expect("room")])
        };
        assert_eq!(waiting.oldest(), None);
        let first = take().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        let second = take().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((waiting.oldest(), room.available_permits()), (Some(Duration::from_secs(5)), 96));
        drop(first);
        assert_eq!(waiting.oldest(), Some(Duration::from_secs(2)));
        drop(second);
        assert_eq!((waiting.oldest(), room.available_permits()), (None, 100));
        let in_line = waiting.line_up();
        assert_eq!(waiting.callers(), 1);
        drop(in_line);
        assert_eq!(waiting.callers(), 0);
    }
}
