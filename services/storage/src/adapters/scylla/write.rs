//! A batch of the log as writes of single partitions, many at a time.

use std::collections::{BTreeMap, BTreeSet};

use drover_scylla_kit::Batch;
use drover_types::DeviceKey;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::listed::Listing;
use super::schema::DAY_MS;
use super::slices::{Kind, Slice};
use super::{Scylla, day, devices, store_error};
use crate::adapters::rows;
use crate::ports::StoreError;
use crate::series::{Entry, Field, Place};

/// Writes under way at once.
const IN_FLIGHT: usize = 64;
/// Rows written by one statement batch.
const ROWS_MAX: usize = 100;
/// Bytes of the rows of one statement batch, passed by one row at most: servers warn beyond 5 KiB and refuse beyond 50.
const BYTES_MAX: usize = 4 * 1024;
/// Seconds that lists of slices and days live longer than what they lead to.
const DAY_S: i32 = (DAY_MS / 1_000) as i32;

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
        let (mut sending, mut slices) = (Sending::new(), BTreeSet::new());
        self.messages(entries, &mut slices, &mut sending);
        self.points(entries, &mut slices, &mut sending);
        self.newest_points(entries, &mut sending);
        self.times_heard(entries, &mut sending);
        let unlisted = self.listed.missing(slices, Instant::now());
        unlisted.iter().for_each(|slice| self.list(slice, &mut sending));
        stream::iter(sending).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        self.listed.add(unlisted);
        Ok(())
    }

    fn list<'s>(&'s self, (device, kind, slice): &Listing, sending: &mut Sending<'s>) {
        let ttl_s = if self.ttl_s == 0 { 0 } else { self.ttl_s.saturating_add(DAY_S) };
        let ((tenant, name), (slice_ms, start_ms)) = (names(device), columns(*slice));
        if *kind == Kind::Messages {
            sending.push(self.device_row(device, ttl_s));
        }
        let (kind, day) = (kind.name(), day(slice.start_ms));
        let day_row = (tenant.clone(), name.clone(), kind, slice_ms, day, ttl_s);
        let row = (tenant, name, kind, slice_ms, day, start_ms, ttl_s);
        sending.push(Box::pin(async move {
            self.store.write(&self.statements.put_day, day_row).await.map_err(store_error)?;
            self.store.write(&self.statements.put_slice, row).await.map_err(store_error)
        }));
    }

    /// The device's row in the list of its tenant's, written anew with each slice: it lives as long as that.
    fn device_row<'s>(&'s self, device: &DeviceKey, ttl_s: i32) -> BoxFuture<'s, Result<(), StoreError>> {
        let (shard, (tenant, name)) = (i32::from(devices::shard(&device.device)), names(device));
        let row = (tenant, shard, name, ttl_s);
        Box::pin(async move { self.store.write(&self.statements.put_device, row).await.map_err(store_error) })
    }

    fn messages<'s>(&'s self, entries: &[Entry], slices: &mut BTreeSet<Listing>, sending: &mut Sending<'s>) {
        let mut partitions: BTreeMap<(&DeviceKey, Slice), Rows> = BTreeMap::new();
        for Entry { device, message, .. } in entries {
            let (at, row) = (message.at, rows::write_message(message));
            let slice = Slice::of(at.time_ms, row.len());
            let rows = partitions.entry((device, slice)).or_default();
            rows.grow(self, row.len(), at, sending);
            let ((tenant, name), (slice_ms, start_ms)) = (names(device), columns(slice));
            let (time_ms, id) = (at.time_ms.cast_signed(), at.id.0.to_vec());
            let row = (tenant, name, slice_ms, start_ms, time_ms, id, row, self.ttl_s);
            rows.batch.push(&self.statements.put_message, row);
        }
        for ((device, slice), rows) in partitions {
            slices.insert((device.clone(), Kind::Messages, slice));
            sending.push(self.send(rows));
        }
    }

    fn points<'s>(&'s self, entries: &[Entry], slices: &mut BTreeSet<Listing>, sending: &mut Sending<'s>) {
        let mut partitions: BTreeMap<(&DeviceKey, &Field, Slice), Rows> = BTreeMap::new();
        for Entry { device, message, values } in entries {
            let at = message.at;
            for (field, value) in values {
                let row = rows::write_point(&message.topic, value);
                let slice = Slice::of(at.time_ms, row.len());
                let rows = partitions.entry((device, field, slice)).or_default();
                rows.grow(self, row.len(), at, sending);
                let ((tenant, name), (slice_ms, start_ms)) = (names(device), columns(slice));
                let (field, time_ms, id) = (field.as_str().to_owned(), at.time_ms.cast_signed(), at.id.0.to_vec());
                let row = (tenant, name, field, slice_ms, start_ms, time_ms, id, row, self.ttl_s);
                rows.batch.push(&self.statements.put_point, row);
            }
        }
        for ((device, _, slice), rows) in partitions {
            slices.insert((device.clone(), Kind::Points, slice));
            sending.push(self.send(rows));
        }
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

/// `slice_ms` and `start_ms` of a slice.
fn columns(slice: Slice) -> (i64, i64) {
    (slice.slice_ms.cast_signed(), slice.start_ms.cast_signed())
}
