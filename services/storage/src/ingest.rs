//! The loop from the log to the store: records in, a durable batch, then the offsets.
//!
//! Offsets are committed only when the store has the batch, and storing again changes nothing, so a crash at any point
//! neither loses nor doubles. Whatever ends a session drops all in memory; the next begins at the committed offsets,
//! with windows rebuilt from the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Polled, Position, ReadError, Start, Stored,
    TopicPartition, repeats,
};
use drover_host::{Backoff, Ready, Shutdown};
use drover_types::repeat::RepeatWindow;
use drover_types::{Clock, DeviceKey, TELEMETRY_TOPIC};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::domain::{Batch, KnownFields};
use crate::ports::{Limit, SeriesStore, StoreError};
use crate::series::Field;
use crate::telemetry::Telemetry;

/// Consumer group of this service.
pub const GROUP: &str = "drover.storage";
/// Records of one poll.
const POLL_RECORDS: usize = 1_000;
/// How long the first record of a batch waits for others: one sync of the store serves them all.
const LINGER: Duration = Duration::from_millis(20);
/// How long a poll waits while there is nothing to store.
const IDLE: Duration = Duration::from_millis(500);
/// Devices whose fields are read at a time.
const READS_AT_ONCE: usize = 64;
/// Bytes of the newest points of one such read.
const READ_BYTES: usize = 256 * 1024;
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Telemetry into the store.
pub struct Ingest {
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn SeriesStore>,
    pub telemetry: Telemetry,
    pub ready: Ready,
    pub clock: Arc<dyn Clock>,
    pub member: String,
    pub fields_per_device_max: usize,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("{0}")]
    Consume(#[from] ConsumeError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("process is stopping")]
    Stopping,
}

/// One membership, from joining to leaving.
struct Session<'i> {
    ingest: &'i Ingest,
    consumer: Box<dyn Consumer>,
    windows: HashMap<TopicPartition, RepeatWindow>,
    fields: KnownFields,
    batch: Batch,
    /// When the first record of the batch came.
    since: Instant,
}

impl Ingest {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let mut backoff = Backoff::default();
        loop {
            let ended = match self.join().await {
                Ok(mut session) => session.work(&shutdown, &mut backoff).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) | Err(Interrupted::Stopping) => return,
                Err(interrupted @ (Interrupted::Consume(_) | Interrupted::Read(_))) => {
                    self.telemetry.restarted(&interrupted);
                    self.ready.waiting(interrupted.to_string());
                }
            }
            if !backoff.wait(&shutdown).await {
                return;
            }
        }
    }

    async fn join(&self) -> Result<Session<'_>, Interrupted> {
        let config = GroupConfig {
            group: GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![TELEMETRY_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        let consumer = self.bus.join(config).await?;
        let (windows, fields) = (HashMap::new(), KnownFields::new(self.fields_per_device_max));
        let (batch, since) = (Batch::default(), Instant::now());
        Ok(Session { ingest: self, consumer, windows, fields, batch, since })
    }
}

impl Session<'_> {
    async fn work(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), Interrupted> {
        self.ingest.ready.ready();
        loop {
            let wait = if self.batch.is_empty() { IDLE } else { LINGER.saturating_sub(self.since.elapsed()) };
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.store(shutdown, backoff).await,
                polled = self.consumer.poll(POLL_RECORDS, wait) => polled?,
            };
            match polled {
                Polled::Assigned(positions) => self.assigned(&positions).await?,
                Polled::Revoked(partitions) => {
                    self.store(shutdown, backoff).await?;
                    self.windows.retain(|at, _| !partitions.contains(at));
                    self.fields.forget();
                }
                Polled::Records(records) => self.take(&records),
                Polled::Idle => {}
            }
            if self.batch.is_full() || self.since.elapsed() >= LINGER {
                self.store(shutdown, backoff).await?;
            }
        }
    }

    async fn assigned(&mut self, positions: &[Position]) -> Result<(), Interrupted> {
        let windows = repeats::windows_before(&*self.ingest.bus, positions).await?;
        for (Position { at, offset }, window) in positions.iter().zip(windows) {
            tracing::info!(at.partition, offset, seen = window.len(), "assigned");
            self.windows.insert(at.clone(), window);
        }
        Ok(())
    }

    fn take(&mut self, records: &[Stored]) {
        if self.batch.is_empty() {
            self.since = Instant::now();
        }
        for stored in records {
            let window = self.windows.get_mut(&stored.position.at);
            if let Err(error) = self.batch.take(stored, window) {
                self.ingest.telemetry.malformed(&stored.position, &error);
            }
        }
    }

    /// Makes the batch durable, however long that takes, then commits its offsets.
    async fn store(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), Interrupted> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        while let Err(error) = self.try_store().await {
            self.ingest.telemetry.refused();
            self.ingest.ready.waiting(error.to_string());
            if !backoff.wait(shutdown).await {
                return Err(Interrupted::Stopping);
            }
        }
        let took = started.elapsed();
        self.consumer.commit(self.batch.offsets()).await?;
        self.ingest.telemetry.stored(&self.batch.tally, took);
        self.ingest.ready.ready();
        self.batch = Batch::default();
        backoff.reset();
        Ok(())
    }

    /// Makes the batch durable, without the points of fields that are more than a device may have.
    async fn try_store(&mut self) -> Result<(), StoreError> {
        let (store, entries, now_ms) = (&self.ingest.store, self.batch.entries(), self.ingest.clock.now_ms());
        if entries.is_empty() {
            return Ok(());
        }
        let limit = self.fields.limit();
        let unread = self.fields.unread(&entries, now_ms);
        drop(entries);
        let reading: Vec<_> = unread.into_iter().map(|device| fields_of(Arc::clone(store), device, limit)).collect();
        let read: Vec<_> = stream::iter(reading).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        for (device, fields) in read {
            self.fields.learn(device, &fields, now_ms);
        }
        self.batch.limit_fields(&mut self.fields);
        store.store(self.batch.entries()).await
    }
}

/// A device and its fields, up to `limit`.
pub async fn fields_of(
    store: Arc<dyn SeriesStore>,
    device: DeviceKey,
    limit: usize,
) -> Result<(DeviceKey, Vec<Field>), StoreError> {
    let (mut fields, mut from) = (Vec::new(), String::new());
    loop {
        let rows = limit - fields.len();
        let page = store.newest(&device, &from, Limit { rows, bytes: READ_BYTES }).await?;
        fields.extend(page.rows.into_iter().map(|point| point.field));
        match page.next {
            Some(next) if fields.len() < limit => from = next.as_str().to_owned(),
            Some(_) | None => return Ok((device, fields)),
        }
    }
}
