//! Which records a live stream shows, and how one is shown.
//!
//! Domain layer, no I/O. The wall between tenants stands here: a record of another tenant is never shown.

use drover_bus::{Record, Stored};
use drover_types::{ApiError, DeviceId, TELEMETRY_TOPIC, TenantId, TopicFilter, header};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::declared::iso;
use super::place::Place;

/// The header by which a client that comes again names the last event it got (HTML Living Standard, section 9.2).
pub const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Topics that only the platform reads.
const INTERNAL_PREFIX: &str = "drover.";

/// What a stream is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Messages of a tenant's devices, or of one of them, whose MQTT topic matches one of the filters.
    Messages { tenant: TenantId, filters: Vec<TopicFilter>, device: Option<DeviceId> },
    /// Records of an output topic of the tenant.
    Outputs { topic: String },
}

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record kept.
    Earliest,
    /// With what comes from now on.
    Now,
    /// At the first record of that time or later, milliseconds since the Unix epoch.
    At(i64),
    /// Behind an event of an earlier stream.
    Behind(Place),
}

/// One shown record. `payload` is the text exactly as sent; what is no UTF-8 is in `payloadBase64` instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// ISO 8601.
    pub time: String,
    /// MQTT topic of a device message, else the output topic.
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Key of an output record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The rule that made an output record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    pub partition: u32,
    pub offset: u64,
}

impl Start {
    /// Where a stream of `topic` begins: behind the event `last_event_id`, which a client shows that comes again by itself;
    /// else at `from`: `earliest`, `now`, an ISO 8601 time with its offset or the id of an event; absent: now.
    pub fn parse(last_event_id: Option<&str>, from: Option<&str>, topic: &str) -> Result<Self, ApiError> {
        if let Some(id) = last_event_id {
            return Place::parse(LAST_EVENT_ID, id, topic).map(Self::Behind);
        }
        match from {
            None | Some("now") => Ok(Self::Now),
            Some("earliest") => Ok(Self::Earliest),
            Some(id) if Place::is_id(id) => Place::parse("from", id, topic).map(Self::Behind),
            Some(text) => text.parse::<Timestamp>().map(|time| Self::At(time.as_millisecond())).map_err(|error| {
                let message = format!("is none of earliest, now, the id of an event and an ISO 8601 time: {error}");
                ApiError::invalid("from", message)
            }),
        }
    }
}

impl Selection {
    /// Messages of `tenant` by MQTT filter, or by another one; shared subscriptions have no meaning here.
    pub fn messages(tenant: TenantId, filter: &str, or: Option<&str>, device: Option<&str>) -> Result<Self, ApiError> {
        let device = device.map(DeviceId::new).transpose();
        let device = device.map_err(|error| ApiError::invalid("device", error.to_string()))?;
        let mut filters = vec![read("filter", filter)?];
        filters.extend(or.map(|or| read("or", or)).transpose()?);
        Ok(Self::Messages { tenant, filters, device })
    }

    /// Records of an output topic; whether it is the tenant's is for the caller to find out.
    pub fn outputs(topic: &str) -> Result<Self, ApiError> {
        if topic.starts_with(INTERNAL_PREFIX) {
            return Err(ApiError::invalid("topic", "topics under drover. are internal"));
        }
        Ok(Self::Outputs { topic: topic.to_owned() })
    }

    /// The topic of the log to read.
    pub fn log_topic(&self) -> &str {
        match self {
            Self::Messages { .. } => TELEMETRY_TOPIC,
            Self::Outputs { topic } => topic,
        }
    }

    /// The record as it is shown; `None` if it is not selected.
    pub fn show(&self, stored: &Stored) -> Option<Message> {
        let record = &stored.record;
        let shown = match self {
            Self::Messages { tenant, filters, device } => {
                let topic = text(record, header::TOPIC)?;
                let of_device = |device: &DeviceId| text(record, header::DEVICE) == Some(device.as_str());
                if text(record, header::TENANT)? != tenant.as_str()
                    || !filters.iter().any(|filter| filter.matches(topic))
                    || !device.as_ref().is_none_or(of_device)
                {
                    return None;
                }
                Message { topic: topic.to_owned(), device: owned(record, header::DEVICE), ..Message::bare(stored) }
            }
            Self::Outputs { topic } => Message {
                topic: topic.clone(),
                key: record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned()),
                rule: owned(record, header::RULE),
                ..Message::bare(stored)
            },
        };
        Some(shown)
    }
}

/// The filter that a field of the query has.
fn read(field: &str, filter: &str) -> Result<TopicFilter, ApiError> {
    let filter = TopicFilter::new(filter).map_err(|error| ApiError::invalid(field, error.to_string()))?;
    if filter.share().is_some() {
        return Err(ApiError::invalid(field, "a stream cannot join a shared subscription"));
    }
    Ok(filter)
}

impl Message {
    /// What every record shows.
    fn bare(stored: &Stored) -> Self {
        let value = stored.record.value.as_deref();
        let payload = value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
        Self {
            time: iso(u64::try_from(stored.record.timestamp_ms).unwrap_or(0)),
            topic: String::new(),
            device: None,
            key: None,
            rule: None,
            payload_base64: value.filter(|_| payload.is_none()).map(base64),
            payload,
            partition: stored.position.at.partition,
            offset: stored.position.offset,
        }
    }
}

fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.header(name).and_then(|value| std::str::from_utf8(value).ok())
}

fn owned(record: &Record, name: &str) -> Option<String> {
    text(record, name).map(str::to_owned)
}

/// Standard base64, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_bus::{Position, TopicPartition};

    fn stored(tenant: &'static str, topic: &'static str, value: &'static [u8]) -> Stored {
        let headers = [(header::TENANT, tenant), (header::TOPIC, topic), (header::DEVICE, "d-1")].into();
        let record = Record { key: Some("k".into()), value: Some(value.into()), headers, timestamp_ms: 1_000 };
        Stored { position: Position { at: TopicPartition::new("t", 3), offset: 9 }, record }
    }

    fn messages(tenant: &str, filter: &str) -> Selection {
        Selection::messages(TenantId::new(tenant).expect("valid"), filter, None, None).expect("valid")
    }

    #[test]
    fn a_message_of_another_tenant_or_topic_is_not_shown() {
        let record = stored("home", "sensors/1", b"{}");
        assert!(messages("home", "sensors/+").show(&record).is_some());
        assert!(messages("away", "sensors/+").show(&record).is_none());
        assert!(messages("home", "other/#").show(&record).is_none());
        let bare = Stored { record: Record::default(), ..record };
        assert!(messages("home", "#").show(&bare).is_none());
    }

    #[test]
    fn a_message_of_another_device_is_not_shown_where_one_was_asked_for() {
        let of = |device| Selection::messages(TenantId::new("home").expect("valid"), "#", None, Some(device));
        let record = stored("home", "a", b"{}");
        assert!(of("d-1").expect("valid").show(&record).is_some());
        assert!(of("d-2").expect("valid").show(&record).is_none());
        assert_eq!(of("a/b").expect_err("refused").field.as_deref(), Some("device"));
    }

    #[test]
    fn a_payload_is_shown_exactly_as_sent() {
        let shown = messages("home", "#").show(&stored("home", "a", b"{\"n\": 1.10}\r\n")).expect("shown");
        assert_eq!(shown.payload.as_deref(), Some("{\"n\": 1.10}\r\n"));
        assert_eq!((shown.time.as_str(), shown.partition, shown.offset), ("1970-01-01T00:00:01Z", 3, 9));
        assert_eq!((shown.device.as_deref(), shown.key), (Some("d-1"), None));
        let binary = messages("home", "#").show(&stored("home", "a", b"\xff\x00")).expect("shown");
        assert_eq!((binary.payload, binary.payload_base64.as_deref()), (None, Some("/wA=")));
    }

    #[test]
    fn internal_topics_and_shared_filters_are_refused() {
        assert_eq!(Selection::outputs("drover.telemetry").expect_err("refused").field.as_deref(), Some("topic"));
        assert!(Selection::outputs("home.hot").is_ok());
        let tenant = TenantId::default_tenant();
        for bad in ["$share/g/a", "a/#/b", ""] {
            let refused = Selection::messages(tenant.clone(), bad, None, None).expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some("filter"));
            let refused = Selection::messages(tenant.clone(), "a", Some(bad), None).expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some("or"));
        }
    }

    #[test]
    fn a_start_is_a_word_a_time_or_the_id_of_an_event() {
        let from = |text| Start::parse(None, text, "t");
        assert_eq!(from(None), Ok(Start::Now));
        assert_eq!(from(Some("earliest")), Ok(Start::Earliest));
        assert_eq!(from(Some("1970-01-01T00:00:01Z")), Ok(Start::At(1_000)));
        for wrong in ["yesterday", "p1.x"] {
            assert_eq!(from(Some(wrong)).expect_err("refused").field.as_deref(), Some("from"), "{wrong}");
        }
        let place = Place::new("t", vec![1, 2]);
        assert_eq!(from(Some(&place.id())), Ok(Start::Behind(place.clone())));
        assert_eq!(Start::parse(Some(&place.id()), Some("earliest"), "t"), Ok(Start::Behind(place)));
        let refused = Start::parse(Some("now"), None, "t").expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("Last-Event-ID"));
    }
}
