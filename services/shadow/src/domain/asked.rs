//! A record of the request topic: who asks what of which shadow.

use drover_bus::Stored;
use drover_types::shadow::{ShadowOperation, ShadowRequest};
use drover_types::{DeviceKey, InvalidTelemetry, Telemetry};

use super::key::ShadowKey;

/// One request.
#[derive(Debug)]
pub struct Asked {
    /// The message as it was received; its device is the one that asks.
    pub message: Telemetry,
    pub key: ShadowKey,
    pub operation: ShadowOperation,
}

/// A record that is no request; it is passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error(transparent)]
    Message(#[from] InvalidTelemetry),
    #[error("topic {topic:?} is not that of a request to a shadow")]
    Topic { topic: String },
    #[error("{text:?} is not a time in milliseconds since the Unix epoch")]
    Time { text: String },
}

impl Asked {
    /// Reads a record.
    pub fn read(stored: &Stored) -> Result<Self, Malformed> {
        let record = &stored.record;
        let headers = record.headers.iter().map(|h| (h.name.as_ref(), h.value.as_ref()));
        let message = Telemetry::from_parts(record.value.clone().unwrap_or_default(), headers)?;
        let topic = message.topic.as_str();
        let request = ShadowRequest::of_topic(topic).ok_or_else(|| Malformed::Topic { topic: topic.to_owned() })?;
        let ShadowRequest { device, name, operation } = request;
        let key = ShadowKey { device: DeviceKey { tenant: message.tenant.clone(), device }, name };
        Ok(Self { message, key, operation })
    }

    /// When it was received, in seconds since the Unix epoch.
    pub fn received_s(&self) -> u64 {
        self.message.time_ms / 1_000
    }
}
