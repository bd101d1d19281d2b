//! Commands in the embedded store: for each place of a device one small row and one large one.
//!
//! Adapter layer. In the keyspace of the shadows; a batch holds the rows and the offset of the next record.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::{DeviceId, DeviceKey, RecordId, TenantId};
use prost::Message as _;

use super::{Embedded, Open, Shared, corrupt, number, store_error};
use crate::domain::command::{Answered, Body, Change, Head, SLOTS, Slot};
use crate::ports::{CommandStore, StoreError};

/// First byte of the keys of what is small and of what is large.
const HEAD: &[u8] = b"h";
const BODY: &[u8] = b"b";
/// Small rows that are looked at, and large ones that are forgotten, while no other write goes on.
const ROWS_LOOKED_AT: usize = 1_000;

/// What is small of a command.
#[derive(Clone, PartialEq, prost::Message)]
struct HeadRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    created_at: u64,
    #[prost(uint64, tag = "3")]
    created_ms: u64,
    #[prost(uint64, tag = "4")]
    expires_ms: u64,
    #[prost(uint64, optional, tag = "5")]
    sent_ms: Option<u64>,
    /// 0: not answered.
    #[prost(uint32, tag = "6")]
    code: u32,
    #[prost(uint64, tag = "7")]
    answered_ms: u64,
}

/// What is large of a command.
#[derive(Clone, PartialEq, prost::Message)]
struct BodyRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", tag = "3")]
    payload: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    response: bytes::Bytes,
}

impl HeadRow {
    fn of(head: &Head) -> Self {
        Self {
            id: head.id.0.to_vec(),
            created_at: head.created_at,
            created_ms: head.created_ms,
            expires_ms: head.expires_ms,
            sent_ms: head.sent_ms,
            code: head.answered.map_or(0, |answered| answered.code.into()),
            answered_ms: head.answered.map_or(0, |answered| answered.time_ms),
        }
    }

    fn head(self, slot: Slot) -> Result<Head, StoreError> {
        let code = u16::try_from(self.code).map_err(corrupt)?;
        Ok(Head {
            id: RecordId(self.id.try_into().map_err(|_| corrupt("an id has 16 bytes"))?),
            slot,
            created_at: self.created_at,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            sent_ms: self.sent_ms,
            answered: (code > 0).then_some(Answered { code, time_ms: self.answered_ms }),
        })
    }
}

impl BodyRow {
    fn of(id: RecordId, body: &Body) -> Self {
        let Body { name, payload, response } = body.clone();
        Self { id: id.0.to_vec(), name, payload, response }
    }
}

impl Open {
    fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        let row = self.rows.get(next_key(partition)).map_err(store_error)?;
        row.map(|row| number(&row)).transpose()
    }

    fn head_row(&self, device: &DeviceKey, slot: Slot) -> Result<Option<HeadRow>, StoreError> {
        let row = self.rows.get(key(HEAD, device, slot)).map_err(store_error)?;
        row.map(|row| HeadRow::decode(&*row).map_err(corrupt)).transpose()
    }

    fn body_row(&self, device: &DeviceKey, slot: Slot) -> Result<Option<BodyRow>, StoreError> {
        let row = self.rows.get(key(BODY, device, slot)).map_err(store_error)?;
        row.map(|row| BodyRow::decode(&*row).map_err(corrupt)).transpose()
    }

    fn heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError> {
        let prefix = prefix(HEAD, device);
        let mut heads = Vec::new();
        for row in self.rows.range(prefix.clone()..) {
            let (key, row) = row.into_inner().map_err(store_error)?;
            let Some(slot) = key.strip_prefix(prefix.as_slice()) else { break };
            let &[slot] = slot else { return Err(corrupt("a place has one byte")) };
            heads.push(HeadRow::decode(&*row).map_err(corrupt)?.head(slot)?);
        }
        Ok(heads)
    }

    /// What is in a place.
    fn whole(&self, device: &DeviceKey, slot: Slot) -> Result<Option<(Head, Body)>, StoreError> {
        let (Some(head), Some(body)) = (self.head_row(device, slot)?, self.body_row(device, slot)?) else {
            return Ok(None);
        };
        let BodyRow { name, payload, response, .. } = body;
        Ok(Some((head.head(slot)?, Body { name, payload, response })))
    }
}

impl Shared {
    fn put_commands(
        &self,
        open: &Arc<Open>,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = open.commands_next(partition)?.unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        let mut places: BTreeMap<(DeviceKey, Slot), Option<(Head, Body)>> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.offset >= kept) {
            let place = (change.device.clone(), change.slot);
            let former = match places.remove(&place) {
                Some(former) => former,
                None => open.whole(&change.device, change.slot)?,
            };
            places.insert(place, change.applied(former));
        }
        let mut batch = open.database.batch();
        for ((device, slot), place) in places {
            let (head_key, body_key) = (key(HEAD, &device, slot), key(BODY, &device, slot));
            match place {
                Some((head, body)) => {
                    batch.insert(&open.rows, body_key, BodyRow::of(head.id, &body).encode_to_vec());
                    batch.insert(&open.rows, head_key, HeadRow::of(&head).encode_to_vec());
                }
                None => {
                    batch.remove(&open.rows, body_key);
                    batch.remove(&open.rows, head_key);
                }
            }
        }
        if kept < next {
            batch.insert(&open.rows, next_key(partition), next.to_be_bytes());
        }
        Ok(self.database.commit(open, batch)?)
    }

    fn command_sent(&self, open: &Arc<Open>, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let there = open.head_row(device, head.slot)?.map(|row| row.head(head.slot)).transpose()?;
        let Some(there) = there.filter(|there| there.is_same(head)) else { return Ok(()) };
        let row = HeadRow::of(&Head { sent_ms: Some(sent_ms), ..there });
        let mut batch = open.database.batch();
        batch.insert(&open.rows, key(HEAD, device, head.slot), row.encode_to_vec());
        Ok(self.database.commit(open, batch)?)
    }

    fn forget_commands(
        &self,
        open: &Arc<Open>,
        before_ms: u64,
        after: Option<&DeviceKey>,
    ) -> Result<Option<DeviceKey>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut looked_at, mut last) = (open.database.batch(), 0, None);
        for row in open.rows.range(after.map_or_else(|| HEAD.to_vec(), |device| behind(HEAD, device))..) {
            let (row_key, row) = row.into_inner().map_err(store_error)?;
            let Some(place) = row_key.strip_prefix(HEAD) else { break };
            let (device, slot) = place_of(place)?;
            if looked_at >= ROWS_LOOKED_AT && last.as_ref() != Some(&device) {
                self.database.commit(open, batch)?;
                return Ok(last);
            }
            if HeadRow::decode(&*row).map_err(corrupt)?.expires_ms < before_ms {
                batch.remove(&open.rows, key(BODY, &device, slot));
                batch.remove(&open.rows, key(HEAD, &device, slot));
            }
            (looked_at, last) = (looked_at + 1, Some(device));
        }
        self.database.commit(open, batch)?;
        Ok(None)
    }
}

#[async_trait]
impl CommandStore for Embedded {
    async fn command_heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError> {
        let device = device.clone();
        self.blocking(move |_, open| open.heads(&device)).await
    }

    async fn command_body(&self, device: &DeviceKey, head: &Head) -> Result<Option<Body>, StoreError> {
        let (device, id, slot) = (device.clone(), head.id, head.slot);
        let row = self.blocking(move |_, open| open.body_row(&device, slot)).await?;
        let row = row.filter(|row| row.id == id.0);
        Ok(row.map(|BodyRow { name, payload, response, .. }| Body { name, payload, response }))
    }

    async fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        self.blocking(move |_, open| open.commands_next(partition)).await
    }

    async fn put_commands(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        self.blocking(move |shared, open| shared.put_commands(&open, partition, from, next, changes)).await
    }

    async fn command_sent(&self, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError> {
        let (device, head) = (device.clone(), head.clone());
        self.blocking(move |shared, open| shared.command_sent(&open, &device, &head, sent_ms)).await
    }

    async fn forget_commands(
        &self,
        before_ms: u64,
        after: Option<&DeviceKey>,
    ) -> Result<Option<DeviceKey>, StoreError> {
        let after = after.cloned();
        self.blocking(move |shared, open| shared.forget_commands(&open, before_ms, after.as_ref())).await
    }
}

fn prefix(kind: &[u8], device: &DeviceKey) -> Vec<u8> {
    [kind, device.tenant.as_str().as_bytes(), &[0], device.device.as_str().as_bytes(), &[0]].concat()
}

/// A place of a device: its number is the last byte.
fn key(kind: &[u8], device: &DeviceKey, slot: Slot) -> Vec<u8> {
    [prefix(kind, device).as_slice(), &[slot]].concat()
}

/// What is behind all places of a device and before those of all others.
fn behind(kind: &[u8], device: &DeviceKey) -> Vec<u8> {
    key(kind, device, SLOTS)
}

/// Whose place a key is, without its kind.
fn place_of(key: &[u8]) -> Result<(DeviceKey, Slot), StoreError> {
    let mut parts = key.splitn(3, |byte| *byte == 0);
    let (Some(tenant), Some(device), Some(&[slot])) = (parts.next(), parts.next(), parts.next()) else {
        return Err(corrupt("a place has a tenant, a device and one byte"));
    };
    let (tenant, device) =
        (std::str::from_utf8(tenant).map_err(corrupt)?, std::str::from_utf8(device).map_err(corrupt)?);
    let device =
        DeviceKey { tenant: TenantId::new(tenant).map_err(corrupt)?, device: DeviceId::new(device).map_err(corrupt)? };
    Ok((device, slot))
}

/// Offset of the next record of a partition of the log of commands.
fn next_key(partition: Partition) -> Vec<u8> {
    [b"c".as_slice(), &partition.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmbeddedLimits;
    use crate::domain::command::{Execution, What};

    fn device(number: usize) -> DeviceKey {
        DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(format!("d{number}")).expect("valid") }
    }

    /// A command that is over one millisecond after that of the place before it.
    fn create(device: &DeviceKey, slot: Slot, offset: Offset) -> Change {
        let (id, created_ms, expires_ms) = (RecordId([slot; 16]), 1_000, 2_000 + u64::from(slot));
        let head = Head { id, slot, created_at: offset, created_ms, expires_ms, sent_ms: None, answered: None };
        let what = What::Create(Box::new(Execution { head, body: Body::default() }));
        Change { device: device.clone(), offset, slot, what }
    }

    #[tokio::test]
    async fn what_is_long_over_is_forgotten_of_all_devices_one_part_after_the_other() {
        const DEVICES: usize = 12;
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
        let places = (0..DEVICES).flat_map(|number| (0..SLOTS).map(move |slot| (device(number), slot)));
        let changes: Vec<Change> =
            (0..).zip(places).map(|(offset, (device, slot))| create(&device, slot, offset)).collect();
        store.put_commands(0, 0, changes.len() as u64, changes).await.expect("put");
        let (mut after, mut calls) = (None, 0);
        loop {
            let last = store.forget_commands(2_000 + 150, after.as_ref()).await.expect("forgotten");
            calls += 1;
            assert!(last.is_none() || last > after, "it goes on");
            let Some(last) = last else { break };
            after = Some(last);
        }
        assert_eq!(calls, 3, "of 1,000 rows or a few more each");
        for number in 0..DEVICES {
            let heads = store.command_heads(&device(number)).await.expect("readable");
            assert_eq!(heads.iter().map(|head| head.slot).collect::<Vec<_>>(), (150..SLOTS).collect::<Vec<_>>());
        }
        let open = store.0.database.opened().expect("open");
        assert!(open.body_row(&device(1), 149).expect("readable").is_none(), "what is large is gone, too");
        assert!(open.body_row(&device(1), 150).expect("readable").is_some());
        assert_eq!(store.commands_next(0).await, Ok(Some(u64::from(SLOTS) * DEVICES as u64)));
    }
}
