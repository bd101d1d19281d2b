//! Lifecycle events as their subscribers get them: `$events/presence/(connected|disconnected)/{device}`.
//!
//! Domain layer, pure. The payload is the value of the record in `drover.events`, byte for byte: one shape for whoever
//! reads the log and whoever subscribes.

use drover_bus::Record;
use drover_types::{ClientId, DeviceId, InvalidTopic, RecordId, TenantId, TopicName, header};
use serde::Deserialize;

use crate::domain::message::{Message, Stamp};

pub use drover_types::EVENTS_TOPIC;
/// First levels of the topics of presence.
const PRESENCE: &str = "$events/presence";

/// What is read of an event; the rest is the subscribers' business.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub event_type: EventType,
    pub tenant: TenantId,
    device: DeviceId,
    pub client_id: ClientId,
    pub epoch: u64,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    Connected,
    Disconnected,
}

impl EventType {
    fn level(self) -> &'static str {
        match self {
            EventType::Connected => "connected",
            EventType::Disconnected => "disconnected",
        }
    }
}

/// Why a record is not an event.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    #[error("record has no value")]
    Empty,
    #[error("value is not an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("event has no topic: {0}")]
    Topic(#[from] InvalidTopic),
}

/// The event in `record`, and the message that tells of it.
pub fn read(record: &Record) -> Result<(Event, Message), InvalidEvent> {
    let payload = record.value.clone().ok_or(InvalidEvent::Empty)?;
    let event: Event = serde_json::from_slice(&payload)?;
    let topic = TopicName::new(format!("{PRESENCE}/{}/{}", event.event_type.level(), event.device))?;
    let id = record.header(header::ID).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let time_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
    let stamp = Stamp { id: RecordId(id), time_ms, traceparent: None };
    let (tenant, device) = (event.tenant.clone(), event.device.clone());
    let message = Message::of_platform(tenant, device, topic, payload, stamp);
    Ok((event, message))
}

#[cfg(test)]
mod tests {
    use drover_types::Qos;

    use super::*;

    fn record(value: &'static str) -> Record {
        Record { value: Some(value.into()), timestamp_ms: 7, ..Record::default() }
    }

    #[test]
    fn an_event_becomes_a_message_with_its_own_value_as_payload() {
        let value =
            r#"{"eventType":"disconnected","tenant":"home","device":"d","clientId":"c","timestamp":7,"epoch":1}"#;
        let (event, Message { telemetry, .. }) = read(&record(value)).expect("an event");
        assert_eq!(telemetry.topic.as_str(), "$events/presence/disconnected/d");
        assert_eq!((telemetry.tenant.as_str(), &*telemetry.payload), ("home", value.as_bytes()));
        assert_eq!((telemetry.qos, telemetry.time_ms), (Qos::AtLeastOnce, 7));
        assert_eq!((event.client_id.as_str(), event.epoch), ("c", 1));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for value in ["", "{}", r#"{"eventType":"moved","tenant":"home","device":"d"}"#] {
            assert!(matches!(read(&record(value)), Err(InvalidEvent::Json(_))), "{value}");
        }
        let foreign = r#"{"eventType":"connected","tenant":"home","device":"a/+","clientId":"c","epoch":1}"#;
        assert!(read(&record(foreign)).is_err(), "an id adds no level");
        assert!(matches!(read(&Record::default()), Err(InvalidEvent::Empty)));
    }
}
