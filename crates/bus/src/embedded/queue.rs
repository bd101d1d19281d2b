//! The bounded queue in front of the writer.
//!
//! Places in it are given in the order they were asked for, so commands keep the order of their calls; a call dropped
//! while it waits leaves nothing behind. So no caller keeps others waiting, however fast it calls: a command comes behind
//! what was queued or waited when it was called, and at most one more filling of the queue. How much waits is bounded by
//! the callers: a connection of the ingress has one batch under way, one of the Kafka listener five requests.

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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    const PLACES: usize = 8;

    fn command(caller: &str) -> Command {
        Command::Hold(caller.to_owned(), oneshot::channel().0)
    }

    fn call(queue: &Arc<Queue>, caller: &'static str, times: usize) -> tokio::task::JoinHandle<()> {
        let queue = queue.clone();
        tokio::spawn(async move {
            for _ in 0..times {
                if queue.push(1, 0, command(caller)).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Who is in the next round; as the writer does, all of it is taken, and its places are given back at the end.
    fn round(queue: &Queue) -> Vec<String> {
        let (commands, places): (Vec<_>, Vec<_>) =
            queue.take(Duration::ZERO).expect("is open").into_iter().map(Queued::split).unzip();
        drop(places);
        let caller = |command: Command| if let Command::Hold(caller, _) = command { Some(caller) } else { None };
        commands.into_iter().filter_map(caller).collect()
    }

    #[tokio::test]
    async fn a_caller_waits_for_what_is_queued_and_one_more_filling_however_fast_another_calls() {
        let queue = Arc::new(Queue::new(PLACES));
        let greedy = call(&queue, "greedy", usize::MAX);
        yield_now().await;
        for _ in 0..50 {
            let slow = call(&queue, "slow", 1);
            yield_now().await;
            let mut before = 0;
            loop {
                let callers = round(&queue);
                assert!(callers.len() <= PLACES, "the queue is bounded: {}", callers.len());
                if let Some(at) = callers.iter().position(|caller| caller == "slow") {
                    before += at;
                    break;
                }
                before += callers.len();
                yield_now().await;
            }
            assert!((1..=2 * PLACES).contains(&before), "{before} went before it");
            slow.await.expect("no panic");
        }
        queue.close();
        greedy.await.expect("no panic");
    }
}
