//! What the stores hold, as bytes: protobuf messages whose fields keep their numbers for ever.
//!
//! Adapter layer. All stores have the same values; keys are each store's own.

pub mod retained;
pub mod sessions;

use bytes::Bytes;
use drover_types::{ClientId, DeviceId, Qos, RecordId, TenantId, TopicName};

use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::ports::StoreError;

/// A message, but for its tenant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageRow {
    /// Of its receipt, milliseconds since the Unix epoch.
    #[prost(uint64, tag = "1")]
    pub time_ms: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(string, tag = "4")]
    pub device: String,
    #[prost(string, tag = "5")]
    pub client: String,
    #[prost(uint32, tag = "6")]
    pub qos: u32,
    #[prost(bool, tag = "7")]
    pub retain: bool,
    #[prost(bytes = "bytes", tag = "8")]
    pub payload: Bytes,
    /// MQTT 5 properties that travel, as encoded in a PUBLISH, without their length.
    #[prost(bytes = "vec", tag = "9")]
    pub properties: Vec<u8>,
    /// Message expiry interval, seconds from `time_ms` on.
    #[prost(uint32, optional, tag = "10")]
    pub expiry_s: Option<u32>,
}

impl MessageRow {
    /// What is kept of `message`.
    pub fn of(message: &Message) -> Self {
        let telemetry = &message.telemetry;
        let (properties, expiry_s) = parts(message.properties.as_deref());
        Self {
            time_ms: telemetry.time_ms,
            id: telemetry.id.0.to_vec(),
            topic: telemetry.topic.to_string(),
            device: telemetry.device.to_string(),
            client: telemetry.client.to_string(),
            qos: telemetry.qos as u32,
            retain: telemetry.retain,
            payload: telemetry.payload.clone(),
            properties,
            expiry_s,
        }
    }

    /// The message as it was published by a client of `tenant`.
    pub fn message(self, tenant: TenantId) -> Result<Message, StoreError> {
        let publication = Publication {
            topic: TopicName::new(self.topic).map_err(corrupt)?,
            payload: self.payload,
            qos: qos(self.qos)?,
            retain: self.retain,
            dup: false,
            packet_id: 0,
            properties: Forwarded::from_parts(self.properties, self.expiry_s).map_err(corrupt)?,
        };
        let publisher = Publisher {
            tenant,
            device: DeviceId::new(self.device).map_err(corrupt)?,
            client: ClientId::new(self.client).map_err(corrupt)?,
            epoch: 0,
        };
        let id = self.id.try_into().map_err(|_| corrupt("an id that has not 16 bytes"))?;
        let stamp = Stamp { id: RecordId(id), time_ms: self.time_ms, traceparent: None };
        Ok(publication.stamp(publisher, stamp))
    }
}

/// Properties as bytes, and the expiry.
fn parts(forwarded: Option<&Forwarded>) -> (Vec<u8>, Option<u32>) {
    let properties = forwarded.map(|forwarded| forwarded.properties().as_bytes().to_vec()).unwrap_or_default();
    (properties, forwarded.and_then(|forwarded| forwarded.expiry_s))
}

fn qos(number: u32) -> Result<Qos, StoreError> {
    Qos::try_from(u8::try_from(number).map_err(corrupt)?).map_err(corrupt)
}

/// What is stored is nothing this version has written.
pub fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}
