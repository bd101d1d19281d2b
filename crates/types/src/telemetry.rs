//! One device publish as the log keeps it: the payload exactly as sent, everything else in headers.
//!
//! Header values are text, so that any Kafka tool can print them; `id` and `fingerprint` are 16 raw bytes, and
//! `correlation-data` is what the device sent.

use bytes::Bytes;

use crate::hex::push_hex;
use crate::{ClientId, Decimal, DeviceId, DeviceKey, Headers, Qos, RecordId, TenantId, TopicName};

/// Topic of raw telemetry: key = `tenant/device`, value = payload.
pub const TELEMETRY_TOPIC: &str = "drover.telemetry";

/// What the client of a message by CoAP begins with; its device follows.
pub const COAP_CLIENT: &str = "coap:";

/// Names of the headers of a telemetry record.
pub mod header {
    pub const ID: &str = "id";
    pub const TOPIC: &str = "topic";
    pub const TENANT: &str = "tenant";
    pub const DEVICE: &str = "device";
    pub const CLIENT: &str = "client";
    pub const QOS: &str = "qos";
    pub const RETAIN: &str = "retain";
    pub const DUP: &str = "dup";
    pub const PACKET_ID: &str = "packet-id";
    pub const EPOCH: &str = "epoch";
    pub const FINGERPRINT: &str = "fingerprint";
    pub const TIME: &str = "time";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const PROPERTIES: &str = "properties";
    pub const PAYLOAD_FORMAT: &str = "payload-format";
    pub const RESPONSE_TOPIC: &str = "response-topic";
    /// Raw bytes.
    pub const CORRELATION_DATA: &str = "correlation-data";
    pub const TRACEPARENT: &str = "traceparent";
    pub const HOPS: &str = "hops";
    /// On rule outputs: the rule's name.
    pub const RULE: &str = "rule";
}

/// Recognises a message sent again: see [`fingerprint`].
pub type Fingerprint = [u8; 16];

/// Hash of client, packet id, QoS, topic and payload (no epoch): equal for every redelivery of one message.
/// `packet_id` is 0 where there is none.
pub fn fingerprint(client: &str, packet_id: u16, qos: Qos, topic: &str, payload: &[u8]) -> Fingerprint {
    let client_len = (client.len() as u64).to_le_bytes();
    let topic_len = (topic.len() as u64).to_le_bytes();
    let parts =
        [&client_len, client.as_bytes(), &packet_id.to_le_bytes(), &[qos as u8], &topic_len, topic.as_bytes(), payload];
    hash_of(parts).to_be_bytes()
}

/// Bytes that are hashed in one go; the state of a hash in parts costs more than the hash of a small message.
const HASHED_AT_ONCE: usize = 512;

fn hash_of(parts: [&[u8]; 7]) -> u128 {
    let mut whole = [0; HASHED_AT_ONCE];
    let mut filled = 0;
    for part in parts {
        let Some(room) = whole.get_mut(filled..filled + part.len()) else {
            let mut hash = xxhash_rust::xxh3::Xxh3::new();
            parts.iter().for_each(|part| hash.update(part));
            return hash.digest128();
        };
        room.copy_from_slice(part);
        filled += part.len();
    }
    xxhash_rust::xxh3::xxh3_128(&whole[..filled])
}

/// Length of a header value of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A W3C `traceparent` header value (Trace Context section 3.2), checked for its form only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// `None` unless `text` is `00-<32 hex>-<16 hex>-<2 hex>`, lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |(at, byte)| match at {
            2 | 35 | 52 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        let is_one = text.len() == TRACEPARENT_BYTES && text.starts_with("00-") && text.bytes().enumerate().all(fits);
        is_one.then(|| Self(text.into()))
    }

    /// The trace that bears an id, and that nobody records (flags 00); the end of the id is its span.
    pub fn of_id(RecordId(id): RecordId) -> Self {
        let mut text = String::with_capacity(TRACEPARENT_BYTES);
        text.push_str("00-");
        push_hex(&mut text, &id);
        text.push('-');
        push_hex(&mut text, &id[8..]);
        text.push_str("-00");
        Self(text.into())
    }

    /// The header value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a record of the telemetry topic cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTelemetry {
    #[error("header {name} is missing")]
    Missing { name: &'static str },
    #[error("header {name} is malformed: {reason}")]
    Malformed { name: &'static str, reason: String },
}

/// What an MQTT 5 PUBLISH may say besides, for rules to ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mqtt5 {
    /// The payload format indicator: whether the payload is declared to be UTF-8.
    pub utf8: Option<bool>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
}

impl Mqtt5 {
    /// Itself, if it says anything.
    pub fn said(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// One device publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Unique per receipt.
    pub id: RecordId,
    pub tenant: TenantId,
    pub device: DeviceId,
    pub client: ClientId,
    pub topic: TopicName,
    /// Exactly as the device sent it.
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// The DUP flag of the PUBLISH.
    pub dup: bool,
    /// Absent at QoS 0.
    pub packet_id: Option<u16>,
    /// Epoch of the session it came in by; grows with each CONNECT of a client.
    pub epoch: u64,
    pub fingerprint: Fingerprint,
    /// When the ingress received it, milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub content_type: Option<String>,
    /// MQTT 5 user properties, in the order sent.
    pub properties: Vec<(String, String)>,
    pub mqtt5: Option<Box<Mqtt5>>,
    pub traceparent: Option<TraceParent>,
    /// How many rules republished it on its way; 0 for a device's own.
    pub hops: u32,
}

impl Telemetry {
    /// Whose message it is.
    pub fn key(&self) -> DeviceKey {
        DeviceKey { tenant: self.tenant.clone(), device: self.device.clone() }
    }

    /// The client, if it came by MQTT: what came another way has no epoch of a session, but for messages by CoAP.
    pub fn mqtt_client(&self) -> Option<&ClientId> {
        let by_coap = self.client.as_str().strip_prefix(COAP_CLIENT) == Some(self.device.as_str());
        (self.epoch > 0 && !by_coap).then_some(&self.client)
    }

    /// The headers of its record, in a fixed order.
    pub fn headers(&self) -> Headers {
        let Self { topic, tenant, device, client, .. } = self;
        let texts = topic.as_str().len() + tenant.as_str().len() + device.as_str().len() + client.as_str().len();
        let mut headers = Headers::with_capacity(texts + HEADERS_BYTES);
        let digit = |number: u8| [b'0' + number];
        headers.push(header::ID, &self.id.0);
        headers.push(header::TOPIC, topic.as_str().as_bytes());
        headers.push(header::TENANT, tenant.as_str().as_bytes());
        headers.push(header::DEVICE, device.as_str().as_bytes());
        headers.push(header::CLIENT, client.as_str().as_bytes());
        headers.push(header::QOS, &digit(self.qos as u8));
        headers.push(header::RETAIN, &digit(self.retain.into()));
        headers.push(header::DUP, &digit(self.dup.into()));
        headers.push(header::EPOCH, Decimal::of(self.epoch).as_bytes());
        headers.push(header::FINGERPRINT, &self.fingerprint);
        headers.push(header::TIME, Decimal::of(self.time_ms).as_bytes());
        if let Some(packet_id) = self.packet_id {
            headers.push(header::PACKET_ID, Decimal::of(packet_id.into()).as_bytes());
        }
        if let Some(content_type) = &self.content_type {
            headers.push(header::CONTENT_TYPE, content_type.as_bytes());
        }
        if !self.properties.is_empty() {
            headers.push(header::PROPERTIES, &encode_properties(&self.properties));
        }
        if let Some(Mqtt5 { utf8, response_topic, correlation_data }) = self.mqtt5.as_deref() {
            headers.extend(utf8.map(|utf8| (header::PAYLOAD_FORMAT, digit(utf8.into()))));
            headers.extend(response_topic.as_ref().map(|topic| (header::RESPONSE_TOPIC, topic)));
            headers.extend(correlation_data.as_ref().map(|data| (header::CORRELATION_DATA, data)));
        }
        if let Some(traceparent) = &self.traceparent {
            headers.push(header::TRACEPARENT, traceparent.as_str().as_bytes());
        }
        if self.hops > 0 {
            headers.push(header::HOPS, Decimal::of(self.hops.into()).as_bytes());
        }
        headers
    }

    /// Reads a record of the telemetry topic; unknown headers are skipped, the last of a repeated one counts.
    pub fn from_parts<'a>(payload: Bytes, headers: &'a Headers) -> Result<Self, InvalidTelemetry> {
        let mut found = Found::default();
        for (name, value) in headers {
            found.take(name, value);
        }
        let text = |name: &'static str, value: Option<&'a [u8]>| {
            let value = value.ok_or(InvalidTelemetry::Missing { name })?;
            std::str::from_utf8(value).map_err(|e| malformed(name, e))
        };
        let sixteen = |name: &'static str, value: Option<&'a [u8]>| {
            let value = value.ok_or(InvalidTelemetry::Missing { name })?;
            <[u8; 16]>::try_from(value).map_err(|_| malformed(name, format!("{} bytes, not 16", value.len())))
        };
        fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
            name: &'static str,
            text: &str,
        ) -> Result<T, InvalidTelemetry> {
            text.parse().map_err(|e| malformed(name, e))
        }
        let lossy = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let mqtt5 = Mqtt5 {
            utf8: found.payload_format.map(|value| value == b"1"),
            response_topic: found.response_topic.map(lossy),
            correlation_data: found.correlation_data.map(Bytes::copy_from_slice),
        };
        let id = RecordId(sixteen(header::ID, found.id)?);
        let qos: u8 = parse(header::QOS, text(header::QOS, found.qos)?)?;
        Ok(Self {
            id,
            tenant: parse(header::TENANT, text(header::TENANT, found.tenant)?)?,
            device: parse(header::DEVICE, text(header::DEVICE, found.device)?)?,
            client: parse(header::CLIENT, text(header::CLIENT, found.client)?)?,
            topic: TopicName::new(text(header::TOPIC, found.topic)?).map_err(|e| malformed(header::TOPIC, e))?,
            payload,
            qos: Qos::try_from(qos).map_err(|e| malformed(header::QOS, e))?,
            retain: found.retain == Some(b"1"),
            dup: found.dup == Some(b"1"),
            packet_id: match found.packet_id {
                None => None,
                some => Some(parse(header::PACKET_ID, text(header::PACKET_ID, some)?)?),
            },
            epoch: parse(header::EPOCH, text(header::EPOCH, found.epoch)?)?,
            fingerprint: sixteen(header::FINGERPRINT, found.fingerprint)?,
            time_ms: parse(header::TIME, text(header::TIME, found.time)?)?,
            content_type: found.content_type.map(lossy),
            properties: found.properties.map_or_else(|| Ok(Vec::new()), decode_properties)?,
            mqtt5: mqtt5.said(),
            traceparent: found.traceparent.and_then(|v| std::str::from_utf8(v).ok()).and_then(TraceParent::parse),
            hops: match found.hops {
                None => 0,
                some => parse(header::HOPS, text(header::HOPS, some)?)?,
            },
        })
    }
}

fn malformed(name: &'static str, reason: impl ToString) -> InvalidTelemetry {
    InvalidTelemetry::Malformed { name, reason: reason.to_string() }
}

#[derive(Default)]
struct Found<'a> {
    id: Option<&'a [u8]>,
    topic: Option<&'a [u8]>,
    tenant: Option<&'a [u8]>,
    device: Option<&'a [u8]>,
    client: Option<&'a [u8]>,
    qos: Option<&'a [u8]>,
    retain: Option<&'a [u8]>,
    dup: Option<&'a [u8]>,
    packet_id: Option<&'a [u8]>,
    epoch: Option<&'a [u8]>,
    fingerprint: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    properties: Option<&'a [u8]>,
    payload_format: Option<&'a [u8]>,
    response_topic: Option<&'a [u8]>,
    correlation_data: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    hops: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) {
        let slot = match name {
            header::ID => &mut self.id,
            header::TOPIC => &mut self.topic,
            header::TENANT => &mut self.tenant,
            header::DEVICE => &mut self.device,
            header::CLIENT => &mut self.client,
            header::QOS => &mut self.qos,
            header::RETAIN => &mut self.retain,
            header::DUP => &mut self.dup,
            header::PACKET_ID => &mut self.packet_id,
            header::EPOCH => &mut self.epoch,
            header::FINGERPRINT => &mut self.fingerprint,
            header::TIME => &mut self.time,
            header::CONTENT_TYPE => &mut self.content_type,
            header::PROPERTIES => &mut self.properties,
            header::PAYLOAD_FORMAT => &mut self.payload_format,
            header::RESPONSE_TOPIC => &mut self.response_topic,
            header::CORRELATION_DATA => &mut self.correlation_data,
            header::TRACEPARENT => &mut self.traceparent,
            header::HOPS => &mut self.hops,
            _ => return,
        };
        *slot = Some(value);
    }
}

/// Bytes of the headers of most records, but for the texts that name a topic and whoever sent it.
const HEADERS_BYTES: usize = 240;

/// User properties as a JSON array of `[name, value]` pairs: order and repeats are kept.
fn encode_properties(properties: &[(String, String)]) -> Vec<u8> {
    serde_json::to_vec(properties).expect("pairs of strings are JSON")
}

fn decode_properties(value: &[u8]) -> Result<Vec<(String, String)>, InvalidTelemetry> {
    serde_json::from_slice(value).map_err(|e| malformed(header::PROPERTIES, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Telemetry {
        Telemetry {
            id: RecordId::at(5, [7; 10]),
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("d-1").expect("valid"),
            client: ClientId::new("d-1").expect("valid"),
            topic: TopicName::new("a/b").expect("valid"),
            payload: Bytes::from_static(b"\0\xff"),
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            packet_id: Some(65_535),
            epoch: u64::MAX,
            fingerprint: fingerprint("d-1", 65_535, Qos::AtLeastOnce, "a/b", b"\0\xff"),
            time_ms: 1_700_000_000_000,
            content_type: Some("application/json".into()),
            properties: vec![("k".into(), "v".into()), ("k".into(), "é\"".into())],
            mqtt5: Some(Box::new(Mqtt5 {
                utf8: Some(true),
                response_topic: Some("answers/d-1".into()),
                correlation_data: Some(Bytes::from_static(b"\0\x01")),
            })),
            traceparent: TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            hops: 2,
        }
    }

    fn read(headers: &Headers) -> Result<Telemetry, InvalidTelemetry> {
        Telemetry::from_parts(sample().payload, headers)
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        assert_eq!(read(&sample().headers()), Ok(sample()));
        let bare = Telemetry {
            packet_id: None,
            content_type: None,
            properties: vec![],
            mqtt5: None,
            traceparent: None,
            hops: 0,
            ..sample()
        };
        assert_eq!(read(&bare.headers()), Ok(bare));
    }

    #[test]
    fn a_client_of_mqtt_is_told_from_other_ways() {
        let from = |client: &str, epoch| {
            let telemetry = Telemetry { client: ClientId::new(client).expect("valid"), epoch, ..sample() };
            telemetry.mqtt_client().map(|client| client.as_str().to_owned())
        };
        assert_eq!((from("d-1", 1), from("coap:other", 1)), (Some("d-1".to_owned()), Some("coap:other".to_owned())));
        assert_eq!((from("http:d-1", 0), from("rule/r", 0), from("coap:d-1", 1)), (None, None, None));
    }

    #[test]
    fn a_missing_or_malformed_header_is_named() {
        let mut headers = sample().headers();
        headers.retain(|name| name != header::EPOCH);
        assert_eq!(read(&headers), Err(InvalidTelemetry::Missing { name: "epoch" }));
        headers.push(header::EPOCH, b"x");
        assert!(matches!(read(&headers), Err(InvalidTelemetry::Malformed { name: "epoch", .. })));
    }

    #[test]
    fn a_trace_bears_the_id_of_its_message() {
        let trace = TraceParent::of_id(RecordId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\0\0\0\0\x2a"));
        assert_eq!(trace.as_str(), "00-0123456789abcdef000000000000002a-000000000000002a-00");
        assert_eq!(TraceParent::parse(trace.as_str()), Some(trace));
    }

    #[test]
    fn a_traceparent_of_another_form_is_none() {
        let right = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(TraceParent::parse(right).is_some());
        let wrong = [&right[1..], &format!("{right}-"), &right.replace("00-", "01-"), &right.replace('d', "D"), ""];
        for text in wrong.iter().map(|text| &**text).chain(["00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01"])
        {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_same_hash_whatever_the_size_of_the_message() {
        for bytes in [0, 400, HASHED_AT_ONCE - 1, HASHED_AT_ONCE, 5_000] {
            let payload = vec![7; bytes];
            let mut hash = xxhash_rust::xxh3::Xxh3::new();
            for part in [&1u64.to_le_bytes()[..], b"c", &3u16.to_le_bytes(), &[1], &1u64.to_le_bytes(), b"t", &payload]
            {
                hash.update(part);
            }
            assert_eq!(fingerprint("c", 3, Qos::AtLeastOnce, "t", &payload), hash.digest128().to_be_bytes());
        }
    }

    #[test]
    fn a_fingerprint_tells_apart_what_differs_in_any_part() {
        let base = fingerprint("c", 1, Qos::AtLeastOnce, "t", b"p");
        assert_eq!(base, fingerprint("c", 1, Qos::AtLeastOnce, "t", b"p"));
        for other in [
            fingerprint("d", 1, Qos::AtLeastOnce, "t", b"p"),
            fingerprint("c", 2, Qos::AtLeastOnce, "t", b"p"),
            fingerprint("c", 1, Qos::ExactlyOnce, "t", b"p"),
            fingerprint("c", 1, Qos::AtLeastOnce, "tp", b""),
            fingerprint("c", 1, Qos::AtLeastOnce, "t", b"q"),
        ] {
            assert_ne!(base, other);
        }
    }
}
