//! The bounded queue in front of the writer.
//!
//! Places in it are given in the order they were asked for, so commands keep the order of their calls; a call dropped
//! while it waits leaves nothing behind.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::command::Command;

/// Bytes of records that take up one more place in the queue.
const BYTES_PER_PLACE: usize = 1_024;

/// A command and its places in the queue, given back when they are dropped.
pub(super) struct Queued {
    command: Command,
    places: OwnedSemaphorePermit,
}

impl Queued {
    /// The command, and the places to drop when it is done.
    pub fn split(self) -> (Command, OwnedSemaphorePermit) {
        (self.command, self.places)
    }
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<Queued>,
    closed: bool,
}

/// The queue.
pub(super) struct Queue {
    places: Arc<Semaphore>,
    places_max: u32,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// The bus is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed;

impl Queue {
    /// A queue for about `records_max` records, and as many KiB.
    pub fn new(records_max: usize) -> Self {
        let places_max = u32::try_from(records_max.max(1)).unwrap_or(u32::MAX);
        Self {
            places: Arc::new(Semaphore::new(places_max as usize)),
            places_max,
            waiting: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Waits for room, then queues the command.
    pub async fn push(&self, records: usize, bytes: usize, command: Command) -> Result<(), Closed> {
        let wanted = u32::try_from(records + bytes / BYTES_PER_PLACE).unwrap_or(u32::MAX).clamp(1, self.places_max);
        let places = self.places.clone().acquire_many_owned(wanted).await.map_err(|_| Closed)?;
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Closed);
        }
        waiting.commands.push_back(Queued { command, places });
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Refuses what comes from now on; what is queued is still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.places.close();
        self.arrived.notify_one();
    }

    /// Nobody takes commands any more: those that wait are dropped, which tells their callers.
    pub fn abandon(&self) {
        self.close();
        self.lock().commands.clear();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits up to `patience` for commands and takes them all. `None`: closed and empty.
    pub fn take(&self, patience: Duration) -> Option<VecDeque<Queued>> {
        let mut waiting = self.lock();
        if waiting.commands.is_empty() && !waiting.closed {
            let woken = self.arrived.wait_timeout_while(waiting, patience, |w| w.commands.is_empty() && !w.closed);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if waiting.commands.is_empty() && waiting.closed { None } else { Some(std::mem::take(&mut waiting.commands)) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
