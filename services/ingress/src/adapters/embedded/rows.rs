//! The rows of the embedded store: their keys, and their values as bytes.
//!
//! A key is a tenant's id, a zero byte, which no part may hold, and a topic: the order of bytes is that of topics. Values
//! are protobuf messages whose fields keep their numbers for ever.

use drover_types::{ClientId, DeviceId, Qos, RecordId, TenantId, TopicName};
use prost::Message as _;

use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::ports::StoreError;

/// The row of a topic; of what topics begin with, the prefix of their rows.
pub fn topic(tenant: &TenantId, topic: &str) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], topic.as_bytes()].concat()
}

/// Tenant and topic of a row.
pub fn read_key(key: &[u8]) -> Result<(TenantId, TopicName), StoreError> {
    let text = std::str::from_utf8(key).map_err(corrupt)?;
    let (tenant, topic) = text.split_once('\0').ok_or_else(|| corrupt("key without a topic"))?;
    Ok((TenantId::new(tenant).map_err(corrupt)?, TopicName::new(topic).map_err(corrupt)?))
}

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
    #[prost(bytes = "vec", tag = "4")]
    pub payload: Vec<u8>,
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
        let forwarded = message.properties.as_deref();
        let kept = (!telemetry.payload.is_empty()).then(|| Kept {
            device: telemetry.device.to_string(),
            client: telemetry.client.to_string(),
            qos: telemetry.qos as u32,
            payload: telemetry.payload.to_vec(),
            properties: forwarded.map(|f| f.properties().as_bytes().to_vec()).unwrap_or_default(),
            expiry_s: forwarded.and_then(|f| f.expiry_s),
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
        let expiry_s = self.kept.as_ref().and_then(|kept| kept.expiry_s);
        expiry_s.is_some_and(|s| self.time_ms.saturating_add(u64::from(s) * 1_000) <= now_ms)
    }

    /// The message as it was published; `None` if it was removed.
    pub fn message(self, tenant: TenantId, topic: TopicName) -> Result<Option<Message>, StoreError> {
        let Some(kept) = self.kept else { return Ok(None) };
        let qos = u8::try_from(kept.qos).map_err(corrupt)?;
        let publication = Publication {
            topic,
            payload: kept.payload.into(),
            qos: Qos::try_from(qos).map_err(corrupt)?,
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
        Ok(Some(publication.stamp(&publisher, stamp)))
    }
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}
