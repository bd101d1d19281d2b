//! The row of a retained message.

use bytes::Bytes;
use drover_types::{ClientId, DeviceId, RecordId, TenantId, TopicName};
use prost::Message as _;

use super::{corrupt, parts, qos};
use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::ports::StoreError;

/// How long a removal is remembered, milliseconds: longer than a message takes from its receipt to the store.
pub const REMOVAL_MS: u64 = 10 * 60 * 1_000;

/// A retained message, or that there was one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    /// Of the message that was kept, or removed another; what came later has the higher (time, id).
    #[prost(uint64, tag = "1")]
    pub time_ms: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Absent: removed.
    #[prost(message, optional, tag = "3")]
    pub kept: Option<Kept>,
}

/// What is kept of a message besides its topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kept {
    #[prost(string, tag = "1")]
    pub device: String,
    #[prost(string, tag = "2")]
    pub client: String,
    #[prost(uint32, tag = "3")]
    pub qos: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub payload: Bytes,
    /// MQTT 5 properties that travel, as encoded in a PUBLISH, without their length.
    #[prost(bytes = "vec", tag = "5")]
    pub properties: Vec<u8>,
    /// Message expiry interval, seconds from `time_ms` on.
    #[prost(uint32, optional, tag = "6")]
    pub expiry_s: Option<u32>,
}

impl Row {
    /// What is to be kept of `message`: without payload, that there is none any more.
    pub fn of(message: &Message) -> Self {
        let telemetry = &message.telemetry;
        let (properties, expiry_s) = parts(message.properties.as_deref());
        let kept = (!telemetry.payload.is_empty()).then(|| Kept {
            device: telemetry.device.to_string(),
            client: telemetry.client.to_string(),
            qos: telemetry.qos as u32,
            payload: telemetry.payload.clone(),
            properties,
            expiry_s,
        });
        Self { time_ms: telemetry.time_ms, id: telemetry.id.0.to_vec(), kept }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        Self::decode(bytes).map_err(corrupt)
    }

    /// Whether it came later than `other`.
    pub fn is_after(&self, other: &Self) -> bool {
        (self.time_ms, &self.id) > (other.time_ms, &other.id)
    }

    /// Bytes it takes of its tenant's room; none if it is a removal.
    pub fn bytes(&self, topic: &str) -> Option<usize> {
        self.kept.as_ref().map(|kept| topic.len() + kept.payload.len() + kept.properties.len())
    }

    /// Whether nobody may get it any more.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms().is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    /// Whether nothing has to be kept of it any more.
    pub fn is_over(&self, now_ms: u64) -> bool {
        let is_forgotten = self.kept.is_none() && self.time_ms.saturating_add(REMOVAL_MS) <= now_ms;
        is_forgotten || self.has_expired(now_ms)
    }

    /// From when on nobody may get it, milliseconds since the Unix epoch.
    pub fn expires_ms(&self) -> Option<u64> {
        let expiry_s = self.kept.as_ref()?.expiry_s?;
        Some(self.time_ms.saturating_add(u64::from(expiry_s) * 1_000))
    }

    /// The message as it was published; `None` if it was removed.
    pub fn message(self, tenant: TenantId, topic: TopicName) -> Result<Option<Message>, StoreError> {
        let Some(kept) = self.kept else { return Ok(None) };
        let publication = Publication {
            topic,
            payload: kept.payload,
            qos: qos(kept.qos)?,
            retain: true,
            dup: false,
            packet_id: 0,
            properties: Forwarded::from_parts(kept.properties, kept.expiry_s).map_err(corrupt)?,
        };
        let publisher = Publisher {
            tenant,
            device: DeviceId::new(kept.device).map_err(corrupt)?,
            client: ClientId::new(kept.client).map_err(corrupt)?,
            epoch: 0,
        };
        let id = self.id.try_into().map_err(|_| corrupt("an id that has not 16 bytes"))?;
        let stamp = Stamp { id: RecordId(id), time_ms: self.time_ms, traceparent: None };
        Ok(Some(publication.stamp(publisher, stamp)))
    }
}

/// The text that every topic of a filter begins with: its levels before the first wildcard. `a/#` matches `a` as well.
pub fn literal(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let before = &filter[..end];
    if filter[end..].starts_with('#') { before.strip_suffix('/').unwrap_or(before) } else { before }
}
