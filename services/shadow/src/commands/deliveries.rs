//! Commands on their way to the ingress: those of a device one after the other, those of different devices side by side.
//!
//! What the ingress does not take now waits by itself until the command's time is over; nothing else waits for it but later
//! commands of its device.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Offset, Partition};
use drover_types::{Clock, DeviceKey};
use futures::FutureExt;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

use crate::domain::command::Head;
use crate::ports::{CommandRequest, CommandSender, Store, StoreError, Unsent};
use crate::telemetry::Telemetry;

/// Commands that wait for the ingress; beyond it no more are read. With what one poll brings on top 23 MB at most.
pub const WAITING_MAX: usize = 256;
/// Commands that are with the ingress at a time.
const UNDER_WAY_MAX: usize = 32;
/// First wait before another try.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait before another try.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Where the record of a command is.
pub type Place = (Partition, Offset);

/// A command that is to be sent.
#[derive(Clone, Debug)]
pub struct Due {
    pub head: Head,
    pub request: CommandRequest,
}

/// What sending needs. Shared by all that are under way.
#[derive(Clone)]
pub struct Way {
    pub sender: Arc<dyn CommandSender>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
}

/// An attempt that has ended.
#[derive(Debug)]
pub struct Ended {
    place: Place,
    outcome: Result<(), NotSent>,
}

/// Why a command is not sent, or not known to be.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error(transparent)]
    Ingress(#[from] Unsent),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All that wait.
pub struct Deliveries {
    waiting: BTreeMap<Place, Waiting>,
    tasks: JoinSet<Ended>,
    telemetry: Telemetry,
}

struct Waiting {
    due: Arc<Due>,
    /// Not before.
    at: Instant,
    wait: Duration,
    /// Whether the ingress has it, and only the store does not know it yet.
    is_taken: bool,
    under_way: Option<AbortHandle>,
}

impl Way {
    /// Sends a command, unless the ingress has it, and remembers that it was sent.
    async fn go(self, due: Arc<Due>, is_taken: bool) -> Result<(), NotSent> {
        if !is_taken {
            self.sender.send(&due.request).await?;
        }
        Ok(self.store.command_sent(&due.request.device, &due.head, self.clock.now_ms()).await?)
    }
}

impl Deliveries {
    /// None yet.
    pub fn new(telemetry: Telemetry) -> Self {
        Self { waiting: BTreeMap::new(), tasks: JoinSet::new(), telemetry }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// The first record of a partition whose command is not sent yet.
    pub fn first(&self, partition: Partition) -> Option<Offset> {
        self.waiting.range((partition, 0)..).next().filter(|(place, _)| place.0 == partition).map(|(place, _)| place.1)
    }

    /// Takes a command, once.
    pub fn push(&mut self, place: Place, due: Due, now: Instant) {
        let due = Arc::new(due);
        let waiting = || Waiting { due, at: now, wait: FIRST_WAIT, is_taken: false, under_way: None };
        self.waiting.entry(place).or_insert_with(waiting);
    }

    /// Lets those of a partition go that is another member's.
    pub fn drop_partition(&mut self, partition: Partition) {
        self.drop_those(|place, _| place.0 == partition);
    }

    /// Lets those go that nobody waits for any more.
    pub fn drop_over(&mut self, is_over: impl Fn(&CommandRequest) -> bool) {
        self.drop_those(|_, request| is_over(request));
    }

    fn drop_those(&mut self, goes: impl Fn(&Place, &CommandRequest) -> bool) {
        for (_, gone) in self.waiting.extract_if(.., |place, waiting| goes(place, &waiting.due.request)) {
            if let Some(task) = gone.under_way {
                task.abort();
            }
        }
    }

    /// Begins what is due; when the next one will be.
    pub fn begin(&mut self, way: &Way, now: Instant) -> Option<Instant> {
        let (now_ms, mut seen, mut next, mut spent) = (way.clock.now_ms(), HashSet::new(), None::<Instant>, Vec::new());
        let Self { waiting, tasks, telemetry } = self;
        for (place, command) in &mut *waiting {
            let device: &DeviceKey = &command.due.request.device;
            if command.under_way.is_some() || seen.contains(device) {
                seen.insert(device.clone());
                continue;
            }
            if !command.due.head.is_due(now_ms) {
                telemetry.commands_expired.inc();
                spent.push(*place);
                continue;
            }
            seen.insert(device.clone());
            if command.at > now {
                next = Some(next.map_or(command.at, |next| next.min(command.at)));
            } else if tasks.len() < UNDER_WAY_MAX {
                let (place, due, is_taken, way) = (*place, Arc::clone(&command.due), command.is_taken, way.clone());
                let task = tasks.spawn(async move { Ended { place, outcome: way.go(due, is_taken).await } });
                command.under_way = Some(task);
            }
        }
        spent.iter().for_each(|place| drop(waiting.remove(place)));
        next
    }

    /// Waits for the end of an attempt; `None`: none is under way.
    pub async fn ended(&mut self) -> Option<Result<Ended, JoinError>> {
        loop {
            match self.tasks.join_next().await? {
                // It was let go.
                Err(error) if error.is_cancelled() => {}
                ended => return Some(ended),
            }
        }
    }

    /// An attempt that has ended by now.
    pub fn ended_already(&mut self) -> Option<Result<Ended, JoinError>> {
        self.ended().now_or_never().flatten()
    }

    /// Gives up what is under way: nobody uses the store when this returns.
    pub async fn end(&mut self) {
        self.tasks.shutdown().await;
    }

    /// What came of an attempt.
    pub fn settle(&mut self, ended: Ended, now: Instant) {
        let Ended { place, outcome } = ended;
        // It may have left with its partition.
        let Some(waiting) = self.waiting.get_mut(&place) else { return };
        match outcome {
            Ok(()) => {
                self.telemetry.commands_sent.inc();
                self.waiting.remove(&place);
            }
            Err(error @ NotSent::Ingress(Unsent::Refused { .. })) => {
                let id = waiting.due.request.id;
                tracing::warn!(%id, %error, "a command is not sent");
                self.telemetry.commands_unsent.inc();
                self.waiting.remove(&place);
            }
            Err(error @ (NotSent::Ingress(Unsent::Away { .. }) | NotSent::Store(_))) => {
                tracing::debug!(id = %waiting.due.request.id, %error, "a command waits");
                self.telemetry.command_retries.inc();
                waiting.is_taken |= matches!(error, NotSent::Store(_));
                waiting.under_way = None;
                waiting.at = now + waiting.wait;
                waiting.wait = (waiting.wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use drover_types::{DeviceId, FixedClock, RecordId, TenantId};

    use super::*;
    use crate::conformance::MemoryStore;

    const NOW_MS: u64 = 1_795_000_000_000;

    /// Remembers what it was given; is away for the devices named so.
    #[derive(Default)]
    struct Book(Mutex<Vec<(String, u8)>>);

    #[async_trait]
    impl CommandSender for Book {
        async fn send(&self, request: &CommandRequest) -> Result<(), Unsent> {
            let device = request.device.device.to_string();
            self.0.lock().expect("not poisoned").push((device.clone(), request.id.0[0]));
            let reason = String::new();
            match device.as_str() {
                "away" => Err(Unsent::Away { reason }),
                "refused" => Err(Unsent::Refused { reason }),
                _ => Ok(()),
            }
        }
    }

    fn due(device: &str, number: u8) -> Due {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(device).expect("valid") };
        let id = RecordId([number; 16]);
        let (sent_ms, answered) = (None, None);
        let (created_at, created_ms, expires_ms) = (number.into(), NOW_MS, NOW_MS + 60_000);
        let head = Head { id, slot: number, created_at, created_ms, expires_ms, sent_ms, answered };
        Due { head, request: CommandRequest { device, id, payload: Bytes::new(), hops: 0 } }
    }

    /// Until nothing is under way.
    async fn settle(deliveries: &mut Deliveries) {
        while let Some(ended) = deliveries.ended().await {
            deliveries.settle(ended.expect("no panic"), Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_waits_holds_up_those_of_its_device_alone_until_its_time_is_over() {
        let (book, clock) = (Arc::<Book>::default(), Arc::new(FixedClock::at(NOW_MS)));
        let way = Way { sender: book.clone(), store: Arc::<MemoryStore>::default(), clock: clock.clone() };
        let telemetry = Telemetry::register(&mut prometheus_client::registry::Registry::default());
        let mut deliveries = Deliveries::new(telemetry.clone());
        for (number, device) in (1..).zip(["away", "lamp", "refused", "away", "lamp"]) {
            deliveries.push((0, number.into()), due(device, number), Instant::now());
        }
        let next = deliveries.begin(&way, Instant::now());
        assert_eq!((next, deliveries.tasks.len()), (None, 3), "one of each device");
        settle(&mut deliveries).await;
        assert_eq!(deliveries.first(0), Some(1));
        let next = deliveries.begin(&way, Instant::now()).expect("the first of the device that is away");
        assert_eq!(next - Instant::now(), FIRST_WAIT);
        settle(&mut deliveries).await;
        let mut sent = book.0.lock().expect("not poisoned").clone();
        sent.sort();
        let expected = [("away", 1), ("lamp", 2), ("lamp", 5), ("refused", 3)];
        assert_eq!(sent, expected.map(|(device, number)| (device.to_owned(), number)));
        assert_eq!((telemetry.commands_sent.get(), telemetry.commands_unsent.get()), (2, 1));

        clock.advance(60_001);
        assert_eq!(deliveries.begin(&way, Instant::now()), None);
        assert_eq!((deliveries.first(0), telemetry.commands_expired.get()), (None, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_ingress_has_is_not_sent_again_while_only_the_store_does_not_know() {
        let book = Arc::<Book>::default();
        let clock = Arc::new(FixedClock::at(NOW_MS));
        let way = Way { sender: book.clone(), store: Arc::<MemoryStore>::default(), clock };
        let telemetry = Telemetry::register(&mut prometheus_client::registry::Registry::default());
        let mut deliveries = Deliveries::new(telemetry.clone());
        deliveries.push((0, 1), due("lamp", 1), Instant::now());
        deliveries.begin(&way, Instant::now());
        let sent = deliveries.ended().await.expect("one is under way").expect("no panic");
        let full = NotSent::Store(StoreError::Full { reason: String::new() });
        deliveries.settle(Ended { place: sent.place, outcome: Err(full) }, Instant::now());
        assert_eq!(deliveries.first(0), Some(1), "it is not known to be sent");

        tokio::time::advance(FIRST_WAIT).await;
        deliveries.begin(&way, Instant::now());
        settle(&mut deliveries).await;
        assert_eq!((deliveries.first(0), telemetry.commands_sent.get()), (None, 1));
        assert_eq!(book.0.lock().expect("not poisoned").len(), 1, "the device gets it once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_not_sent_any_more() {
        let book = Arc::<Book>::default();
        let clock = Arc::new(FixedClock::at(NOW_MS));
        let way = Way { sender: book.clone(), store: Arc::<MemoryStore>::default(), clock };
        let telemetry = Telemetry::register(&mut prometheus_client::registry::Registry::default());
        let mut deliveries = Deliveries::new(telemetry);
        for (number, device) in [(1, "lamp"), (2, "lamp"), (3, "fan")] {
            deliveries.push((0, number.into()), due(device, number), Instant::now());
        }
        deliveries.drop_over(|request| request.device.device.as_str() == "lamp");
        deliveries.begin(&way, Instant::now());
        settle(&mut deliveries).await;
        assert_eq!(*book.0.lock().expect("not poisoned"), [("fan".to_owned(), 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_and_so_many_are_under_way() {
        let way = Way {
            sender: Arc::<Book>::default(),
            store: Arc::<MemoryStore>::default(),
            clock: Arc::new(FixedClock::at(NOW_MS)),
        };
        let telemetry = Telemetry::register(&mut prometheus_client::registry::Registry::default());
        let mut deliveries = Deliveries::new(telemetry);
        for number in 0..WAITING_MAX as u64 {
            assert!(!deliveries.is_full());
            deliveries.push((1, number), due(&format!("d{number}"), 1), Instant::now());
        }
        assert!(deliveries.is_full());
        deliveries.begin(&way, Instant::now());
        assert_eq!(deliveries.tasks.len(), UNDER_WAY_MAX);
        assert_eq!((deliveries.first(0), deliveries.first(1), deliveries.first(2)), (None, Some(0), None));
        deliveries.drop_partition(1);
        settle(&mut deliveries).await;
        assert!(!deliveries.is_full() && deliveries.first(1).is_none());
    }
}
