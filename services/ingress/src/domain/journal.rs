//! Changes of sessions on their way into the store, in one order for the whole node.
//!
//! Domain layer over the port SessionStore. All that has gathered is written at once, one write after the other: many who
//! wait share one. A write that fails is made again until it is done: whoever waits for it waits, nothing is skipped, and
//! no message is acknowledged meanwhile. A session of which the store cannot take something at all is left out, and ends. What
//! nobody waits for goes with what somebody does, or after a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use drover_types::Clock;
use tokio::sync::{Notify, watch};

use crate::domain::link::Link;
use crate::domain::sessions::Key;
use crate::ports::StoreError;
use crate::ports::sessions::{Change, SessionStore, What};
use crate::telemetry::Telemetry;

/// Bytes of messages that wait to be written beyond which no further message is routed.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes that wait beyond which no further message is routed.
const WAITING_MAX: usize = 50_000;
/// How long what nobody waits for may wait.
const LAZY: Duration = Duration::from_millis(100);
/// Wait before a write that failed is made again.
const RETRY: Duration = Duration::from_millis(500);

/// The way into the store.
pub struct Journal {
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held by those who are in the middle of changes that belong together, and by the writer while it takes what waits.
    gate: RwLock<()>,
    /// Something waits here.
    any: Notify,
    /// Somebody waits for it.
    more: Notify,
    /// All up to this position are durable.
    durable: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Change>,
    bytes: usize,
    /// Position of the last of them; the first ever is 1.
    last: u64,
    /// Connections to be woken when a position is durable.
    wakes: Vec<(u64, Arc<Link>)>,
    /// Sessions that the store cannot take, until they are asked for: a node ends them within a second.
    unwritable: HashSet<Arc<Key>>,
}

impl State {
    fn has_room(&self) -> bool {
        self.bytes <= WAITING_BYTES_MAX && self.waiting.len() <= WAITING_MAX
    }
}

/// Changes made while it is there are written together.
pub struct Together<'j> {
    _gate: RwLockReadGuard<'j, ()>,
}

impl Journal {
    /// Nothing is written before [`Journal::run`].
    pub fn new(store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>) -> Self {
        let (any, more, durable) = (Notify::new(), Notify::new(), watch::Sender::new(0));
        Self { store, clock, state: Mutex::default(), gate: RwLock::default(), any, more, durable }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked for what was written.
    pub fn store(&self) -> &dyn SessionStore {
        &*self.store
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Adds a change that somebody is going to wait for; its position.
    pub fn push(&self, change: Change) -> u64 {
        let position = self.push_lazily(change);
        self.more.notify_one();
        position
    }

    /// Adds a change that nobody waits for; its position.
    pub fn push_lazily(&self, change: Change) -> u64 {
        let mut state = self.state();
        if state.waiting.is_empty() {
            self.any.notify_one();
        }
        state.bytes += bytes(&change);
        state.waiting.push(change);
        state.last += 1;
        state.last
    }

    /// What is changed until the answer is dropped is written together, or not at all where the store can do that. To be
    /// asked for before any lock is taken, and once.
    pub fn together(&self) -> Together<'_> {
        Together { _gate: self.gate.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The position of all changes so far, to be waited for.
    pub fn position(&self) -> u64 {
        self.more.notify_one();
        self.state().last
    }

    /// Whether all up to `position` are durable.
    pub fn is_durable(&self, position: u64) -> bool {
        *self.durable.borrow() >= position
    }

    /// Returns when all up to `position` are durable; however long the store is away.
    pub async fn durable(&self, position: u64) {
        if !self.is_durable(position) {
            // The sender lives as long as this.
            self.durable.subscribe().wait_for(|durable| *durable >= position).await.ok();
        }
    }

    /// Wakes the connection when all up to `position` are durable.
    pub fn wake_at(&self, position: u64, link: Arc<Link>) {
        self.state().wakes.push((position, link));
        if self.is_durable(position) {
            self.wake(position); // it was written just now, and nobody might write again
        }
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.state().has_room()
    }

    /// Returns when there is room for more.
    pub async fn room(&self) {
        loop {
            let last = {
                let state = self.state();
                if state.has_room() {
                    return;
                }
                state.last
            };
            self.durable(last).await;
        }
    }

    /// Sessions that the store cannot take, since the last call: they have to end.
    pub fn take_unwritable(&self) -> HashSet<Arc<Key>> {
        std::mem::take(&mut self.state().unwritable)
    }

    /// Writes what comes, as long as this process runs.
    pub async fn run(&self, telemetry: &Telemetry) {
        loop {
            self.any.notified().await;
            // An error means that nobody waits for what there is.
            tokio::time::timeout(LAZY, self.more.notified()).await.ok();
            let Some((mut changes, position)) = self.take() else { continue };
            while let Err(error) = self.store.write(changes.clone()).await {
                if let StoreError::Unwritable { whose, .. } = &error {
                    telemetry.session_not_kept(&whose.1, &error);
                    changes = changes.iter().filter(|change| change.key != *whose).cloned().collect();
                    self.state().unwritable.insert(whose.clone());
                    continue;
                }
                telemetry.sessions_not_written(&error);
                tokio::time::sleep(RETRY).await;
            }
            telemetry.sessions_written(changes.len());
            self.durable.send_replace(position);
            self.wake(position);
        }
    }

    /// All that waits, and its last position.
    fn take(&self) -> Option<(Arc<[Change]>, u64)> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        state.bytes = 0;
        Some((std::mem::take(&mut state.waiting).into(), state.last))
    }

    fn wake(&self, durable: u64) {
        let due: Vec<_> = self.state().wakes.extract_if(.., |(position, _)| *position <= durable).collect();
        due.iter().for_each(|(_, link)| link.wake());
    }
}

/// What a change counts for in the queue.
fn bytes(change: &Change) -> usize {
    match &change.what {
        What::Put(row) => row.delivery.as_ref().map_or(0, |delivery| delivery.message.bytes()),
        What::Head(head) => head.will.as_ref().map_or(0, |will| will.publication.payload.len()),
        What::Subscriptions(_)
        | What::Received(_)
        | What::Remove(_)
        | What::Passed { .. }
        | What::End
        | What::Left(_) => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use async_trait::async_trait;
    use drover_host::Metrics;
    use drover_types::{ClientId, FixedClock, TenantId};

    use super::*;
    use crate::ports::sessions::{Listed, Place, Row, Stored};

    /// Remembers what it was told, and fails as often as it shall.
    #[derive(Default)]
    pub struct Told {
        pub changes: Mutex<Vec<Vec<Change>>>,
        failures: Mutex<usize>,
        /// The client of a session that it cannot take.
        unwritable: Option<ClientId>,
    }

    #[async_trait]
    impl SessionStore for Told {
        async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
            let mut failures = self.failures.lock().expect("no panic");
            if *failures > 0 {
                *failures -= 1;
                return Err(StoreError::Unavailable { reason: "as told".to_owned() });
            }
            let refused = changes.iter().find(|change| Some(&change.key.1) == self.unwritable.as_ref());
            if let Some(change) = refused {
                return Err(change.failed(StoreError::Corrupt { reason: "as told".to_owned() }));
            }
            self.changes.lock().expect("no panic").push(changes.to_vec());
            Ok(())
        }

        async fn read(&self, _: &Key) -> Result<Option<Stored>, StoreError> {
            Ok(None)
        }

        async fn inbox(&self, _: &Key, _: Option<Place>, _: usize) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }

        async fn own(&self, _: Option<&Key>, _: usize) -> Result<Vec<Listed>, StoreError> {
            Ok(Vec::new())
        }

        async fn left_by(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Vec<Listed>, StoreError> {
            Ok(Vec::new())
        }

        async fn nodes(&self) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }

        fn is_shared(&self) -> bool {
            false
        }
    }

    impl Told {
        /// All changes so far, in order.
        pub fn whats(&self) -> Vec<What> {
            let changes = self.changes.lock().expect("no panic");
            changes.iter().flatten().map(|change| change.what.clone()).collect()
        }
    }

    fn removal(number: u32) -> Change {
        removal_of("c", number)
    }

    fn removal_of(client: &str, number: u32) -> Change {
        let key = (TenantId::default_tenant(), ClientId::new(client).expect("valid"));
        let what = What::Remove(Place { epoch: 1, number });
        Change { key: Arc::new(key), stamp: u64::from(number), what }
    }

    /// A journal that runs, and what it tells.
    pub fn journal(failures: usize) -> (Arc<Told>, Arc<Journal>) {
        journal_over(Told { failures: Mutex::new(failures), ..Told::default() })
    }

    fn journal_over(told: Told) -> (Arc<Told>, Arc<Journal>) {
        let store = Arc::new(told);
        let journal = Arc::new(Journal::new(store.clone(), Arc::new(FixedClock::at(0))));
        let running = journal.clone();
        tokio::spawn(async move { running.run(&Telemetry::new(&Metrics::default())).await });
        (store, journal)
    }

    fn stamps(store: &Told) -> Vec<Vec<u64>> {
        let changes = store.changes.lock().expect("no panic");
        changes.iter().map(|write| write.iter().map(|change| change.stamp).collect()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_gathers_is_written_together_in_order_and_again_until_it_is_done() {
        let (store, journal) = journal(2);
        let positions = [1, 2, 3].map(|n| journal.push(removal(n)));
        assert_eq!(positions, [1, 2, 3]);
        assert!(!journal.is_durable(1));
        journal.durable(3).await;
        assert_eq!(stamps(&store), [[1, 2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_the_store_cannot_take_holds_no_other_up_and_is_to_end() {
        let refused = ClientId::new("bad").expect("valid");
        let (store, journal) = journal_over(Told { unwritable: Some(refused.clone()), ..Told::default() });
        journal.push(removal(1));
        journal.push(removal_of("bad", 2));
        let last = journal.push(removal(3));
        journal.durable(last).await;
        assert_eq!(stamps(&store), [[1, 3]]);
        let unwritable: Vec<_> = journal.take_unwritable().into_iter().map(|key| key.1.clone()).collect();
        assert_eq!(unwritable, [refused]);
        assert!(journal.take_unwritable().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_written_after_a_while() {
        let (store, journal) = journal(0);
        let began = tokio::time::Instant::now();
        let position = journal.push_lazily(removal(1));
        journal.durable(position).await;
        assert!(began.elapsed() <= 2 * LAZY);
        assert_eq!(stamps(&store), [[1]]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_that_belong_together_are_not_parted() {
        let (store, journal) = journal(0);
        for pair in 0..2_000 {
            let _together = journal.together();
            journal.push(removal(2 * pair));
            journal.push(removal(2 * pair + 1));
        }
        journal.durable(journal.position()).await;
        let writes = stamps(&store);
        assert_eq!(writes.concat(), (0..4_000).collect::<Vec<u64>>());
        assert!(writes.iter().all(|write| write.len() % 2 == 0), "a pair was parted");
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_the_queue_full_waits_for_room() {
        let (store, journal) = journal(1);
        let last = (0..=WAITING_MAX).fold(0, |_, n| journal.push(removal(n as u32)));
        assert!(!journal.has_room());
        journal.room().await;
        assert!(journal.has_room() && journal.is_durable(last));
        assert_eq!(stamps(&store).concat().len(), WAITING_MAX + 1);
    }
}
