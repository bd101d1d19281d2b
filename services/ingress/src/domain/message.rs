//! A message on its way: what a client sent, stamped at its receipt, then logged and routed.
//!
//! Domain layer, pure: time, randomness and trace context arrive in a [`Stamp`].

use bytes::Bytes;
use drover_bus::{Outgoing, Record};
use drover_mqtt::{DecodeError, PacketType, Place, Properties, Property, PropertyList};
use drover_types::command::CommandResponse;
use drover_types::shadow::ShadowRequest;
use drover_types::{
    ClientId, DeviceId, DeviceKey, Mqtt5, Qos, RecordId, Telemetry, TenantId, TopicName, TraceParent, fingerprint,
};

use crate::domain::log_topics::{ForShadows, LogTopics};
use crate::domain::sessions::Key;

/// Client id of what the platform itself delivers.
pub const PLATFORM: &str = "drover";
/// Name of the user property a client sends its W3C trace context in.
const TRACEPARENT: &str = "traceparent";

/// Who publishes: the key of the record and the client the repeat window knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub client: ClientId,
    pub epoch: u64,
}

impl Publisher {
    /// Whose session it has, if it has one.
    pub fn key(&self) -> Key {
        (self.tenant.clone(), self.client.clone())
    }
}

/// A message as its publisher sent it, checked and allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    pub topic: TopicName,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0.
    pub packet_id: u16,
    pub properties: Option<Box<Forwarded>>,
}

/// The properties of a PUBLISH or will that travel with the message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forwarded {
    /// Unaltered and in order [MQTT-3.3.2-4, -15, -16, -17, -18, -20]; without expiry, alias and subscription ids.
    list: PropertyList,
    /// Seconds it may wait for delivery.
    pub expiry_s: Option<u32>,
}

impl Forwarded {
    /// Takes what travels from the properties of a PUBLISH or will; `None` if nothing does.
    pub fn of(properties: Properties<'_>) -> Option<Box<Self>> {
        if properties.is_empty() {
            return None;
        }
        let mut list = PropertyList::default();
        for property in properties.iter().filter(travels) {
            list.push(property).expect("what was decoded fits its length field");
        }
        let forwarded = Self { list, expiry_s: properties.message_expiry_s() };
        (forwarded != Self::default()).then(|| Box::new(forwarded))
    }

    /// These again, from where they were kept: `None` if there is nothing, an error if `list` is no list of properties.
    pub fn from_parts(list: Vec<u8>, expiry_s: Option<u32>) -> Result<Option<Box<Self>>, DecodeError> {
        let list = PropertyList::decode(list, Place::Packet(PacketType::Publish))?;
        let forwarded = Self { list, expiry_s };
        Ok((forwarded != Self::default()).then(|| Box::new(forwarded)))
    }

    /// The properties that travel unaltered.
    pub fn properties(&self) -> Properties<'_> {
        self.list.as_properties()
    }
}

fn travels(property: &Property<'_>) -> bool {
    matches!(
        property,
        Property::PayloadFormat(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(_)
    )
}

/// What a message gets at its receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    pub id: RecordId,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The trace this process takes part in; in its absence the client's own is kept.
    pub traceparent: Option<TraceParent>,
}

/// A message with its receipt, shared by all who get it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub telemetry: Telemetry,
    pub properties: Option<Box<Forwarded>>,
}

impl Publication {
    /// The trace context the client sent, if it is one.
    pub fn traceparent(&self) -> Option<TraceParent> {
        let properties = self.properties.as_ref()?.properties();
        properties.user_properties().find_map(
            |(name, value)| {
                if name == TRACEPARENT { TraceParent::parse(value) } else { None }
            },
        )
    }

    /// The message this becomes when `publisher` sends it. A DUP keeps its fingerprint: the packet id, not the record
    /// id, is part of it.
    pub fn stamp(self, publisher: Publisher, stamp: Stamp) -> Message {
        let fingerprint =
            fingerprint(publisher.client.as_str(), self.packet_id, self.qos, self.topic.as_str(), &self.payload);
        let traceparent = stamp.traceparent.or_else(|| self.traceparent());
        let sent = self.properties.as_ref().map(|forwarded| forwarded.properties()).unwrap_or_default();
        let mqtt5 = Mqtt5 {
            utf8: sent.payload_format(),
            response_topic: sent.response_topic().map(str::to_owned),
            correlation_data: sent.correlation_data().map(Bytes::copy_from_slice),
        };
        let telemetry = Telemetry {
            id: stamp.id,
            tenant: publisher.tenant,
            device: publisher.device,
            client: publisher.client,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            packet_id: (self.packet_id > 0).then_some(self.packet_id),
            epoch: publisher.epoch,
            fingerprint,
            time_ms: stamp.time_ms,
            content_type: sent.content_type().map(str::to_owned),
            properties: sent.user_properties().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            mqtt5: mqtt5.said(),
            traceparent,
            hops: 0,
            topic: self.topic,
        };
        Message { telemetry, properties: self.properties }
    }
}

impl Message {
    /// What the platform itself tells of a device, at QoS 1.
    pub fn of_platform(tenant: TenantId, device: DeviceId, topic: TopicName, payload: Bytes, stamp: Stamp) -> Self {
        let qos = Qos::AtLeastOnce;
        let publication =
            Publication { topic, payload, qos, retain: false, dup: false, packet_id: 0, properties: None };
        let client = ClientId::new(PLATFORM).expect("a client id");
        publication.stamp(Publisher { tenant, device, client, epoch: 0 }, stamp)
    }

    /// The record of this message. The log keeps it as of `received_ms`, whatever time the message tells: how long is a
    /// matter of its coming. Keyed `tenant/device`, so that one device's messages keep their order; a request to
    /// a shadow by the device whose shadow it is, so that whoever asks, its requests are in one order. A will that is for the
    /// shadow service is kept as telemetry where there is none.
    pub fn outgoing(&self, topics: &LogTopics, received_ms: u64) -> Outgoing {
        let telemetry = &self.telemetry;
        let (topic, key) = match self.for_shadows().zip(topics.of_shadows.as_ref()) {
            Some((ForShadows::Request(device), topics)) => (&topics.requests, device),
            Some((ForShadows::Response(device), topics)) => (&topics.commands, device),
            None => (&topics.telemetry, telemetry.key()),
        };
        let record = Record {
            key: Some(key.to_text().into()),
            value: Some(telemetry.payload.clone()),
            headers: telemetry.headers(),
            timestamp_ms: i64::try_from(received_ms).unwrap_or(i64::MAX),
        };
        Outgoing::keyed(topic.clone(), record)
    }

    /// What this is to the shadow service. An answer to a command is the device's own: whatever another one says of it by that
    /// topic is telemetry.
    pub fn for_shadows(&self) -> Option<ForShadows> {
        let (telemetry, topic) = (&self.telemetry, self.telemetry.topic.as_str());
        if !topic.starts_with('$') {
            return None;
        }
        if let Some(request) = ShadowRequest::of_topic(topic) {
            let device = DeviceKey { tenant: telemetry.tenant.clone(), device: request.device };
            return Some(ForShadows::Request(device));
        }
        let response = CommandResponse::of_topic(topic)?;
        (response.device == telemetry.device.as_str()).then(|| ForShadows::Response(telemetry.key()))
    }

    /// When the message may no longer be delivered, milliseconds since the Unix epoch.
    pub fn expires_ms(&self) -> Option<u64> {
        let expiry_s = self.properties.as_ref()?.expiry_s?;
        Some(self.telemetry.time_ms.saturating_add(u64::from(expiry_s) * 1_000))
    }

    /// Whether it becomes the retained message of its topic, or removes that [MQTT-3.3.1-5, MQTT-3.3.1-6]. What is said to
    /// the platform itself (`$aws/…`) is a request, not a state.
    pub fn is_retained(&self) -> bool {
        self.telemetry.retain && !self.telemetry.topic.as_str().starts_with('$')
    }

    /// Bytes the message counts for in a queue.
    pub fn bytes(&self) -> usize {
        self.telemetry.payload.len() + self.telemetry.topic.as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use drover_types::TELEMETRY_TOPIC;
    use drover_types::command::COMMANDS_TOPIC;
    use drover_types::shadow::SHADOW_REQUESTS_TOPIC;

    use super::*;

    fn publisher() -> Publisher {
        Publisher {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("d").expect("valid"),
            client: ClientId::new("c").expect("valid"),
            epoch: 9,
        }
    }

    fn publication(properties: &[Property<'_>]) -> Publication {
        let mut list = PropertyList::default();
        properties.iter().for_each(|p| list.push(*p).expect("short"));
        Publication {
            topic: TopicName::new("a/b").expect("valid"),
            payload: Bytes::from_static(b"21"),
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            packet_id: 3,
            properties: Forwarded::of(list.as_properties()),
        }
    }

    fn stamp(traceparent: Option<&str>) -> Stamp {
        Stamp { id: RecordId([1; 16]), time_ms: 1_000, traceparent: traceparent.and_then(TraceParent::parse) }
    }

    const OURS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const THEIRS: &str = "00-11111111111111111111111111111111-2222222222222222-01";

    #[test]
    fn the_record_reads_back_as_the_message() {
        let sent = publication(&[
            Property::PayloadFormat(true),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answers"),
            Property::CorrelationData(b"\x00\x01"),
            Property::UserProperty(("k", "1")),
            Property::UserProperty(("k", "2")),
        ]);
        let message = sent.stamp(publisher(), stamp(None));
        let record = message.outgoing(&LogTopics::new(true), 5_000).record;
        assert_eq!(record.key.as_deref(), Some(b"default/d".as_slice()));
        assert_eq!((record.timestamp_ms, message.telemetry.time_ms), (5_000, 1_000), "measured before it came");
        let read = Telemetry::from_parts(record.value.expect("payload"), &record.headers).expect("readable");
        assert_eq!(read, message.telemetry);
        assert_eq!(read.content_type.as_deref(), Some("text/plain"));
        assert_eq!(read.properties, [("k".into(), "1".into()), ("k".into(), "2".into())]);
        assert_eq!((read.packet_id, read.epoch, read.retain), (Some(3), 9, true));
    }

    #[test]
    fn a_request_to_a_shadow_is_logged_as_one_by_the_device_whose_shadow_it_is() {
        let sent = |topic: &str| {
            let publication = Publication { topic: TopicName::new(topic).expect("valid"), ..publication(&[]) };
            let Outgoing { topic, record, .. } =
                publication.stamp(publisher(), stamp(None)).outgoing(&LogTopics::new(true), 1_000);
            let key = String::from_utf8_lossy(record.key.as_deref().expect("a key")).into_owned();
            (topic.to_string(), key, record.header("device").map(<[u8]>::to_vec))
        };
        let by_d = Some(b"d".to_vec());
        let expected = (SHADOW_REQUESTS_TOPIC.to_owned(), "default/lamp".to_owned(), by_d.clone());
        assert_eq!(sent("$aws/things/lamp/shadow/name/config/update"), expected);
        assert_eq!(sent("$aws/things/lamp/jobs/get"), (TELEMETRY_TOPIC.to_owned(), "default/d".to_owned(), by_d));
    }

    #[test]
    fn an_answer_to_a_command_is_logged_as_one_if_it_is_the_devices_own() {
        let sent = |topic: &str, shadows: bool| {
            let publication = Publication { topic: TopicName::new(topic).expect("valid"), ..publication(&[]) };
            let message = publication.stamp(publisher(), stamp(None));
            let Outgoing { topic, record, .. } = message.outgoing(&LogTopics::new(shadows), 1_000);
            (topic.to_string(), String::from_utf8_lossy(record.key.as_deref().expect("a key")).into_owned())
        };
        let (own, other) = ("$drover/commands/d/1/response/200", "$drover/commands/lamp/1/response/200");
        let of_d = |log: &str| (log.to_owned(), "default/d".to_owned());
        assert_eq!(sent(own, true), of_d(COMMANDS_TOPIC));
        assert_eq!(sent("$drover/commands/d/1/response/ok", true), of_d(COMMANDS_TOPIC), "the fold tells of it");
        for telemetry in [other, "$drover/commands/d/1/request", "$drover/commands/d/forget", "d/1/response/200"] {
            assert_eq!(sent(telemetry, true), of_d(TELEMETRY_TOPIC), "{telemetry}");
        }
        assert_eq!(sent(own, false), of_d(TELEMETRY_TOPIC));
    }

    #[test]
    fn a_redelivery_has_the_fingerprint_of_the_first_delivery() {
        let first = publication(&[]).stamp(publisher(), stamp(None));
        let again = Publication { dup: true, ..publication(&[]) };
        let again = again.stamp(Publisher { epoch: 10, ..publisher() }, Stamp { id: RecordId([2; 16]), ..stamp(None) });
        assert_eq!(first.telemetry.fingerprint, again.telemetry.fingerprint);
    }

    #[test]
    fn a_clients_trace_is_kept_unless_this_process_continues_it() {
        let sent = || publication(&[Property::UserProperty((TRACEPARENT, THEIRS))]);
        let kept = sent().stamp(publisher(), stamp(None)).telemetry.traceparent.expect("kept");
        assert_eq!(kept.as_str(), THEIRS);
        let continued = sent().stamp(publisher(), stamp(Some(OURS))).telemetry.traceparent.expect("ours");
        assert_eq!(continued.as_str(), OURS);
        let nonsense = publication(&[Property::UserProperty((TRACEPARENT, "x"))]);
        assert_eq!(nonsense.stamp(publisher(), stamp(None)).telemetry.traceparent, None);
    }

    #[test]
    fn only_what_belongs_to_the_message_travels() {
        let alias = Property::TopicAlias(std::num::NonZeroU16::MIN);
        assert_eq!(publication(&[alias]).properties, None);
        let sent = publication(&[alias, Property::MessageExpiry(2), Property::ResponseTopic("r")]);
        let forwarded = sent.properties.clone().expect("some travel");
        assert_eq!(forwarded.properties().iter().collect::<Vec<_>>(), [Property::ResponseTopic("r")]);
        assert_eq!(sent.stamp(publisher(), stamp(None)).expires_ms(), Some(3_000));
    }
}
