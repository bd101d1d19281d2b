//! The shell of the group state machine: it owns the groups, the clock and the requests that wait.
//!
//! Adapter layer: no decision about membership is made here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::exchange::{Answer, Join, Sync, Ticket};
use super::state::Group;

/// Most groups with members at a time.
pub const GROUPS_MAX: usize = 1_000;
/// How often time passes for the groups: a twentieth of the shortest session timeout.
const TICK: Duration = Duration::from_millis(50);

/// There are [`GROUPS_MAX`] groups with members already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {GROUPS_MAX} groups with members, no more are taken")]
pub struct TooManyGroups;

/// The groups of the Kafka protocol. Cheap to share by reference.
pub struct Coordinator {
    started: Instant,
    tickets: AtomicU64,
    seats: Mutex<BTreeMap<String, Seat>>,
}

/// A group with the requests that wait for it.
#[derive(Default)]
struct Seat {
    group: Group,
    waiters: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    /// Held from the check of a commit until it is stored, and while offsets are read: whoever takes over a partition
    /// sees every commit that was accepted before.
    commits: Arc<tokio::sync::Mutex<()>>,
}

impl Default for Coordinator {
    fn default() -> Self {
        Self { started: Instant::now(), tickets: AtomicU64::new(0), seats: Mutex::default() }
    }
}

impl Coordinator {
    /// A ticket no other request has.
    pub fn ticket(&self) -> Ticket {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Joins `group`, which comes into being if need be; the answer may take as long as a rebalance.
    pub fn join(&self, group: &str, join: Join) -> Result<oneshot::Receiver<Answer>, TooManyGroups> {
        let mut seats = self.seats();
        let count = seats.len();
        let seat = match seats.entry(group.to_owned()) {
            Entry::Occupied(seat) => seat.into_mut(),
            Entry::Vacant(_) if count >= GROUPS_MAX => return Err(TooManyGroups),
            Entry::Vacant(vacant) => vacant.insert(Seat::default()),
        };
        let receiver = seat.wait(join.ticket);
        let answers = seat.group.join(self.now_ms(), join);
        seat.deliver(answers);
        Ok(receiver)
    }

    /// Asks for the assignment of a member of `group`; `None`: there is no such group.
    pub fn sync(&self, group: &str, sync: Sync) -> Option<oneshot::Receiver<Answer>> {
        let mut seats = self.seats();
        let seat = seats.get_mut(group)?;
        let receiver = seat.wait(sync.ticket);
        let answers = seat.group.sync(self.now_ms(), sync);
        seat.deliver(answers);
        Some(receiver)
    }

    /// Runs `act` on `group` with the time, and delivers the answers it returns; `None`: there is no such group.
    pub fn act<R>(&self, group: &str, act: impl FnOnce(&mut Group, u64) -> (R, Vec<Answer>)) -> Option<R> {
        let mut seats = self.seats();
        let seat = seats.get_mut(group)?;
        let (result, answers) = act(&mut seat.group, self.now_ms());
        seat.deliver(answers);
        Some(result)
    }

    /// The lock of `group`'s commits; a group without members needs none.
    pub fn commits(&self, group: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.seats().get(group).map(|seat| seat.commits.clone()).unwrap_or_default()
    }

    /// What `look` sees in each group that has members, by name.
    pub fn survey<R>(&self, mut look: impl FnMut(&str, &Group) -> R) -> Vec<R> {
        self.seats().iter().map(|(name, seat)| look(name, &seat.group)).collect()
    }

    /// Lets time pass, until dropped.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }

    fn tick(&self) {
        let now_ms = self.now_ms();
        self.seats().retain(|_, seat| {
            seat.forget_the_gone(now_ms);
            let answers = seat.group.tick(now_ms);
            seat.deliver(answers);
            !seat.group.is_vacant()
        });
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<String, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn wait(&mut self, ticket: Ticket) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.insert(ticket, sender);
        receiver
    }

    fn deliver(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = &answer;
            if let Some(waiter) = self.waiters.remove(ticket) {
                // A receiver that is gone needs no answer; its member falls silent and is removed.
                drop(waiter.send(answer));
            }
        }
    }

    fn forget_the_gone(&mut self, now_ms: u64) {
        let gone: Vec<Ticket> = self.waiters.iter().filter(|(_, w)| w.is_closed()).map(|(t, _)| *t).collect();
        for ticket in gone {
            self.waiters.remove(&ticket);
            self.group.abandon(now_ms, ticket);
        }
    }
}
