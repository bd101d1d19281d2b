//! Reading partitions without a group, each from where the caller says.
//!
//! Whoever follows a partition asks again and again for what comes next. So a [`Cursor`] stays where its last read
//! ended, fetching ahead a little, and the next read goes on there; only a read from elsewhere moves one. One that nobody
//! goes on with is given up. A lane is one client: it can hold each partition once, so several who read the same partition
//! at different places need several.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_bus::{Bounds, Offset, ReadError, Stored, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ask::{Asker, PATIENCE, blocking};
use crate::clients::Clients;
use crate::cursor::{Cursor, Took};
use crate::options::{KafkaOptions, OptionsError};
use crate::voice::Plain;

/// Clients for reading, and so cursors on one partition.
const LANES_MAX: usize = 8;
/// Cursors that nobody reads by just now; each may hold 1 MiB that was fetched ahead.
const CURSORS_MAX: usize = 512;
/// A cursor nobody used for this long is moved rather than another client opened.
const RESTED: Duration = Duration::from_secs(1);
/// A cursor nobody used for this long is given up: it would keep what it has fetched ahead. Longer than those pause who take
/// what they read somewhere else before they read on.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// Between two looks for such cursors.
const SWEPT: Duration = Duration::from_secs(5);
/// Whoever reads so many bytes at most looks at one record and does not go on from it: it takes nobody's cursor, and its own
/// is not kept. In a partition where much comes that one would fetch on, for nobody.
const LOOK_BYTES: usize = 1;
/// Wait for a record that is known to be there and should be under way.
const GRACE: Duration = Duration::from_millis(50);

/// All cursors.
pub(crate) struct Readers {
    options: KafkaOptions,
    asker: Arc<Asker>,
    state: Mutex<State>,
    /// A cursor has come back, or was given up.
    freed: Notify,
}

struct State {
    lanes: Vec<Arc<Lane>>,
    /// Cursors nobody reads by now, the one used longest ago first.
    idle: Vec<Cursor>,
}

/// One client and the partitions it holds.
pub(crate) struct Lane {
    pub client: Arc<StreamConsumer<Plain>>,
    taken: Mutex<HashSet<TopicPartition>>,
    events: JoinHandle<()>,
}

impl Lane {
    /// Opens a client; it connects by itself.
    pub fn open(config: &ClientConfig, clients: &Clients) -> Result<Arc<Self>, OptionsError> {
        let client: Arc<StreamConsumer<Plain>> = clients.open(config, Plain)?;
        let served = client.clone();
        // Errors of the client as such come here, and want to be taken.
        let events = tokio::spawn(async move {
            loop {
                if let Err(error) = served.recv().await {
                    served.context().0.error(&error, &error.to_string());
                }
            }
        });
        Ok(Arc::new(Self { client, taken: Mutex::default(), events }))
    }

    fn take(&self, at: &TopicPartition) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone())
    }

    /// The partition is free again.
    pub fn release(&self, at: &TopicPartition) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(at);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Readers {
    /// Opens no client yet.
    pub fn new(options: KafkaOptions, asker: Arc<Asker>) -> Self {
        let state = State { lanes: Vec::new(), idle: Vec::new() };
        Self { options, asker, state: Mutex::new(state), freed: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the port promises. No records means: when this was asked, the end was at `from`.
    pub async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        let deadline = Instant::now() + wait;
        let resumed = if bytes_max <= LOOK_BYTES { None } else { self.resume(at, from) };
        let (mut cursor, until) = match resumed {
            Some(cursor) => (cursor, deadline),
            None => {
                let bounds = self.asker.bounds(at).await?;
                within(bounds, from)?;
                if from == bounds.end && wait.is_zero() {
                    return Ok(Vec::new());
                }
                (self.place(at, from).await?, deadline.max(Instant::now() + GRACE))
            }
        };
        match cursor.take(bytes_max, until, false).await {
            Took::Records(records) => return Ok(self.keep(cursor, bytes_max, records)),
            Took::Nothing | Took::End => {}
            Took::Gone => return self.again(cursor, at, from, bytes_max).await,
        }
        let bounds = self.asker.bounds(at).await?;
        within(bounds, from)?;
        if cursor.is_clear_to(bounds.end) {
            return Ok(self.keep(cursor, bytes_max, Vec::new()));
        }
        match cursor.take(bytes_max, Instant::now() + GRACE, false).await {
            Took::Records(records) => Ok(self.keep(cursor, bytes_max, records)),
            Took::Nothing | Took::End | Took::Gone => self.again(cursor, at, from, bytes_max).await,
        }
    }

    /// Something was there that did not come: a new cursor finds out whether it is a record or a gap up to the end.
    async fn again(
        &self,
        cursor: Cursor,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.give_up(cursor);
        let bounds = self.asker.bounds(at).await?;
        within(bounds, from)?;
        let mut cursor = self.place(at, from).await?;
        match cursor.take(bytes_max, Instant::now() + PATIENCE, true).await {
            Took::Records(records) => Ok(self.keep(cursor, bytes_max, records)),
            Took::End => {
                cursor.note_clear_to(bounds.end);
                Ok(self.keep(cursor, bytes_max, Vec::new()))
            }
            Took::Nothing | Took::Gone => {
                let reason = self.asker.voice().explain(format!("no records of {}/{}", at.topic, at.partition));
                self.give_up(cursor);
                Err(ReadError::Unavailable { reason })
            }
        }
    }

    /// The cursor that stands there, if nobody else reads by it.
    fn resume(&self, at: &TopicPartition, from: Offset) -> Option<Cursor> {
        let mut state = self.state();
        let place = state.idle.iter().position(|cursor| cursor.stands_at(at, from))?;
        Some(state.idle.remove(place))
    }

    /// `records`, with the cursor that read at most `bytes_max` put aside for whoever goes on from there.
    fn keep(&self, mut cursor: Cursor, bytes_max: usize, records: Vec<Stored>) -> Vec<Stored> {
        if bytes_max <= LOOK_BYTES {
            self.give_up(cursor);
            return records;
        }
        cursor.rest();
        self.state().idle.push(cursor);
        self.freed.notify_waiters();
        records
    }

    fn give_up(&self, cursor: Cursor) {
        drop(cursor);
        self.freed.notify_waiters();
    }

    /// Gives up cursors that nobody has used for long, every now and then. Has no end of its own.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEPT).await;
            let readers = self.clone();
            blocking(move || readers.sweep(Instant::now())).await;
        }
    }

    fn sweep(&self, now: Instant) {
        self.give_up_first(|idle| idle.iter().take_while(|cursor| cursor.rested(now) > FORGOTTEN).count());
    }

    /// Gives up the first so many of those that nobody reads by.
    fn give_up_first(&self, how_many: impl FnOnce(&[Cursor]) -> usize) {
        let mut state = self.state();
        let count = how_many(&state.idle);
        let given_up: Vec<_> = state.idle.drain(..count).collect();
        drop(state);
        if !given_up.is_empty() {
            // Without the lock: each of them asks its client.
            drop(given_up);
            self.freed.notify_waiters();
        }
    }

    /// A cursor that stands there; waits while too many are in use.
    async fn place(&self, at: &TopicPartition, from: Offset) -> Result<Cursor, ReadError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Listening begins before looking.
            freed.as_mut().enable();
            if let Some(lane) = self.room(at).map_err(|error| unavailable(error.to_string()))? {
                return Cursor::open(lane, at, from).map_err(|error| self.asker.unreadable(at, &error));
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(unavailable(format!("kafka: more than {LANES_MAX} read {}/{}", at.topic, at.partition)));
            }
        }
    }

    /// A lane on which the partition was free and is now taken.
    fn room(&self, at: &TopicPartition) -> Result<Option<Arc<Lane>>, OptionsError> {
        self.give_up_first(|idle| (idle.len() + 1).saturating_sub(CURSORS_MAX));
        let (mut state, now) = (self.state(), Instant::now());
        if let Some(lane) = state.lanes.iter().find(|lane| lane.take(at)) {
            return Ok(Some(lane.clone()));
        }
        let full = state.lanes.len() >= LANES_MAX;
        let rested = state.idle.iter().position(|c| c.is_on(at) && (full || c.rested(now) > RESTED));
        if let Some(place) = rested {
            let cursor = state.idle.remove(place);
            let lane = cursor.lane();
            drop(cursor);
            return Ok(lane.take(at).then_some(lane));
        }
        if full {
            return Ok(None);
        }
        let lane = Lane::open(&self.options.reader(), self.asker.clients())?;
        lane.take(at);
        state.lanes.push(lane.clone());
        Ok(Some(lane))
    }
}

fn within(Bounds { earliest, end }: Bounds, from: Offset) -> Result<(), ReadError> {
    if (earliest..=end).contains(&from) { Ok(()) } else { Err(ReadError::OutOfRange { from, earliest, end }) }
}

fn unavailable(reason: String) -> ReadError {
    ReadError::Unavailable { reason }
}

#[cfg(test)]
mod tests {
    use drover_bus::{Bus, Outgoing, Record};
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::KafkaBus;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_looks_at_one_record_leaves_no_cursor_and_who_reads_leaves_one_for_a_while() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let brokers = vec![cluster.bootstrap_servers()];
        let options =
            KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() };
        let bus = KafkaBus::open(options).expect("opens");
        let record = || Outgoing::keyed("t", Record { value: Some("v".into()), ..Record::default() });
        bus.append(vec![record(), record()]).await.expect("taken").await.expect("acknowledged");
        let (at, readers) = (TopicPartition::new("t", 0), &bus.0.readers);
        // Cursors put aside, and whether the partition is taken.
        let left = || {
            let state = readers.state();
            (state.idle.len(), state.lanes.iter().any(|lane| lane.taken.lock().expect("no panic").contains(&at)))
        };

        let read = async |bytes_max| bus.read(&at, 0, bytes_max, Duration::ZERO).await.expect("reads").len();
        assert_eq!((read(LOOK_BYTES).await, left()), (1, (0, false)));
        assert_eq!((read(1024).await, left()), (2, (1, true)));
        readers.sweep(Instant::now() + FORGOTTEN / 2);
        assert_eq!(left(), (1, true));
        readers.sweep(Instant::now() + FORGOTTEN * 2);
        assert_eq!(left(), (0, false));
    }
}
