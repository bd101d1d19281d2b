//! Lifecycle events as their subscribers get them: `$events/presence/(connected|disconnected)/{device}`.
//!
//! Domain layer, pure. The payload is the value of the record in `drover.events`, byte for byte: one shape for whoever
//! reads the log and whoever subscribes.

use drover_bus::Record;
use drover_types::{ClientId, DeviceId, InvalidTopic, Qos, RecordId, TenantId, TopicName, header};
use serde::Deserialize;

use crate::domain::message::{Message, PLATFORM, Publication, Publisher, Stamp};

/// Topic of lifecycle events; the registry writes it, key = `tenant/device`, value = JSON.
pub const EVENTS_TOPIC: &str = "drover.events";
/// First levels of the topics of presence.
const PRESENCE: &str = "$events/presence";

/// What is read of an event; the rest is the subscribers' business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event_type: EventType,
    tenant: TenantId,
    device: DeviceId,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventType {
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

/// The message that tells of the event in `record`.
pub fn message(record: &Record) -> Result<Message, InvalidEvent> {
    let payload = record.value.clone().ok_or(InvalidEvent::Empty)?;
    let Event { event_type, tenant, device } = serde_json::from_slice(&payload)?;
    let topic = TopicName::new(format!("{PRESENCE}/{}/{device}", event_type.level()))?;
    let qos = Qos::AtLeastOnce;
    let publication = Publication { topic, payload, qos, retain: false, dup: false, packet_id: 0, properties: None };
    let client = ClientId::new(PLATFORM).expect("a client id");
    let id = record.header(header::ID).and_then(|id| id.try_into().ok()).unwrap_or_default();
    let time_ms = u64::try_from(record.timestamp_ms).unwrap_or(0);
    let stamp = Stamp { id: RecordId(id), time_ms, traceparent: None };
    Ok(publication.stamp(&Publisher { tenant, device, client, epoch: 0 }, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &'static str) -> Record {
        Record { value: Some(value.into()), timestamp_ms: 7, ..Record::default() }
    }

    #[test]
    fn an_event_becomes_a_message_with_its_own_value_as_payload() {
        let value =
            r#"{"eventType":"disconnected","tenant":"home","device":"d","clientId":"c","timestamp":7,"epoch":1}"#;
        let telemetry = message(&record(value)).expect("an event").telemetry;
        assert_eq!(telemetry.topic.as_str(), "$events/presence/disconnected/d");
        assert_eq!((telemetry.tenant.as_str(), &*telemetry.payload), ("home", value.as_bytes()));
        assert_eq!((telemetry.qos, telemetry.time_ms), (Qos::AtLeastOnce, 7));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for value in ["", "{}", r#"{"eventType":"moved","tenant":"home","device":"d"}"#] {
            assert!(matches!(message(&record(value)), Err(InvalidEvent::Json(_))), "{value}");
        }
        let foreign = r#"{"eventType":"connected","tenant":"home","device":"a/+"}"#;
        assert!(message(&record(foreign)).is_err(), "an id adds no level");
        assert!(matches!(message(&Record::default()), Err(InvalidEvent::Empty)));
    }
}
