//! A batch of the log as writes of single partitions, many at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use drover_scylla_kit::Batch;
use drover_types::DeviceKey;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::schema::DAY_MS;
use super::{Scylla, day, store_error};
use crate::adapters::rows;
use crate::ports::StoreError;
use crate::series::{Entry, Field, Place};

/// Writes under way at once.
const IN_FLIGHT: usize = 64;
/// Rows written by one statement batch.
const ROWS_MAX: usize = 100;
/// Bytes of the rows of one statement batch, passed by one row at most: servers warn beyond 5 KiB and refuse beyond 50.
const BYTES_MAX: usize = 4 * 1024;
/// Seconds that the list of days lives longer than what it leads to.
const DAY_S: i32 = (DAY_MS / 1_000) as i32;
/// Days remembered as listed; when they are this many, all are forgotten and listed again.
const KNOWN_DAYS_MAX: usize = 100_000;

/// Days of devices that are known to be listed, so that each is written once.
#[derive(Default)]
pub struct KnownDays(Mutex<HashSet<(DeviceKey, i32)>>);

impl KnownDays {
    fn has(&self, day: &(DeviceKey, i32)) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(day)
    }

    fn add(&self, days: impl Iterator<Item = (DeviceKey, i32)>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for day in days {
            if known.len() >= KNOWN_DAYS_MAX {
                known.clear();
            }
            known.insert(day);
        }
    }
}

/// Rows of one partition on their way.
#[derive(Default)]
struct Rows {
    batch: Batch,
    rows: usize,
    bytes: usize,
    /// Of the last of them.
    time_ms: u64,
}

type Sending<'s> = Vec<BoxFuture<'s, Result<(), StoreError>>>;

impl Scylla {
    /// Writes all; what was written when it fails is written again by the next try.
    pub(super) async fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut sending = Sending::new();
        let days: HashSet<(DeviceKey, i32)> =
            entries.iter().map(|e| (e.device.clone(), day(e.message.at.time_ms))).collect();
        // A time to live is bound to the last write, so with retention days are listed each time.
        let unlisted = days.into_iter().filter(|day| self.ttl_s > 0 || !self.known_days.has(day));
        let unlisted: Vec<(DeviceKey, i32)> = unlisted.collect();
        unlisted.iter().for_each(|(device, day)| sending.push(self.send_day(device, *day)));
        self.messages(entries, &mut sending);
        self.points(entries, &mut sending);
        self.newest_points(entries, &mut sending);
        self.times_heard(entries, &mut sending);
        stream::iter(sending).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        self.known_days.add(unlisted.into_iter());
        Ok(())
    }

    fn send_day(&self, device: &DeviceKey, day: i32) -> BoxFuture<'_, Result<(), StoreError>> {
        let ttl_s = if self.ttl_s == 0 { 0 } else { self.ttl_s.saturating_add(DAY_S) };
        let row = (device.tenant.as_str().to_owned(), device.device.as_str().to_owned(), day, ttl_s);
        let timestamp = i64::from(day) * DAY_MS.cast_signed();
        Box::pin(
            async move { self.store.write_at(timestamp, &self.statements.put_day, row).await.map_err(store_error) },
        )
    }

    fn messages<'s>(&'s self, entries: &[Entry], sending: &mut Sending<'s>) {
        let mut partitions: BTreeMap<(&DeviceKey, i32), Rows> = BTreeMap::new();
        for Entry { device, message, .. } in entries {
            let (at, row) = (message.at, rows::write_message(message));
            let rows = partitions.entry((device, day(at.time_ms))).or_default();
            rows.grow(self, row.len(), at, sending);
            let (tenant, name) = names(device);
            let row = (tenant, name, day(at.time_ms), at.time_ms.cast_signed(), at.id.0.to_vec(), row, self.ttl_s);
            rows.batch.push(&self.statements.put_message, row);
        }
        partitions.into_values().for_each(|rows| sending.push(self.send(rows)));
    }

    fn points<'s>(&'s self, entries: &[Entry], sending: &mut Sending<'s>) {
        let mut partitions: BTreeMap<(&DeviceKey, &Field, i32), Rows> = BTreeMap::new();
        for Entry { device, message, values } in entries {
            let at = message.at;
            for (field, value) in values {
                let row = rows::write_point(&message.topic, value);
                let rows = partitions.entry((device, field, day(at.time_ms))).or_default();
                rows.grow(self, row.len(), at, sending);
                let ((tenant, name), id) = (names(device), at.id.0.to_vec());
                let (field, time_ms) = (field.as_str().to_owned(), at.time_ms.cast_signed());
                let row = (tenant, name, field, day(at.time_ms), time_ms, id, row, self.ttl_s);
                rows.batch.push(&self.statements.put_point, row);
            }
        }
        partitions.into_values().for_each(|rows| sending.push(self.send(rows)));
    }

    fn newest_points<'s>(&'s self, entries: &[Entry], sending: &mut Sending<'s>) {
        let mut newest: BTreeMap<(&DeviceKey, &Field), (Place, Vec<u8>)> = BTreeMap::new();
        for Entry { device, message, values } in entries {
            for (field, value) in values {
                let known = newest.entry((device, field)).or_insert_with(|| (message.at, Vec::new()));
                if known.0 <= message.at {
                    let row = rows::write_point(&message.topic, value);
                    *known = (message.at, rows::write_newest(message.at, &row));
                }
            }
        }
        for ((device, field), (at, row)) in newest {
            let (tenant, name) = names(device);
            let row = (tenant, name, field.as_str().to_owned(), row, self.ttl_s);
            let timestamp = at.time_ms.cast_signed();
            sending.push(Box::pin(async move {
                self.store.write_at(timestamp, &self.statements.put_newest, row).await.map_err(store_error)
            }));
        }
    }

    /// When each device was last heard: of two times the later one stays, whichever is written last.
    fn times_heard<'s>(&'s self, entries: &[Entry], sending: &mut Sending<'s>) {
        let mut heard: BTreeMap<&DeviceKey, u64> = BTreeMap::new();
        for Entry { device, message, .. } in entries.iter().filter(|entry| entry.message.is_own()) {
            let last_ms = heard.entry(device).or_default();
            *last_ms = (*last_ms).max(message.at.time_ms);
        }
        for (device, time_ms) in heard {
            let ((tenant, name), timestamp) = (names(device), time_ms.cast_signed());
            let row = (tenant, name, timestamp, self.ttl_s);
            sending.push(Box::pin(async move {
                self.store.write_at(timestamp, &self.statements.put_heard, row).await.map_err(store_error)
            }));
        }
    }

    fn send(&self, rows: Rows) -> BoxFuture<'_, Result<(), StoreError>> {
        let timestamp = rows.time_ms.cast_signed();
        Box::pin(async move { self.store.write_all_at(timestamp, rows.batch).await.map_err(store_error) })
    }
}

impl Rows {
    /// Makes room for one more row of `bytes` at `at`: sends what there is if it is enough.
    fn grow<'s>(&mut self, store: &'s Scylla, bytes: usize, at: Place, sending: &mut Sending<'s>) {
        if self.rows >= ROWS_MAX || (self.rows > 0 && self.bytes + bytes > BYTES_MAX) {
            sending.push(store.send(std::mem::take(self)));
        }
        self.rows += 1;
        self.bytes += bytes;
        self.time_ms = self.time_ms.max(at.time_ms);
    }
}

fn names(device: &DeviceKey) -> (String, String) {
    (device.tenant.as_str().to_owned(), device.device.as_str().to_owned())
}
