//! The records that requests become, and the requests that the platform makes itself.

use bytes::Bytes;
use drover_bus::{Headers, Outgoing, Record};
use drover_proto::shadow::v1 as wire;
use drover_types::repeat::{ID_PROPERTY, identity};
use drover_types::shadow::{SHADOW_REQUESTS_TOPIC, ShadowOperation, ShadowRequest};
use drover_types::{ClientId, Decimal, DeviceKey, InvalidTopic, Qos, RecordId, Telemetry, TopicName, header};
use prost::Message as _;

use super::asked::Asked;
use super::document::Shadow;
use super::key::ShadowKey;
use crate::topics::{CHANGES_TOPIC, DOCUMENTS_TOPIC, REPLIES_TOPIC};

/// Header of a document: its version, as text.
pub const VERSION_HEADER: &str = "version";
/// Header of a change: the name of the shadow; absent for the classic one.
pub const SHADOW_HEADER: &str = "shadow";
/// The client that asks in the platform's own name: by gRPC, for REST, the command line and the operator.
pub const PLATFORM: &str = "drover";

/// The document of a shadow after a request.
pub fn document(asked: &Asked, after: &Shadow) -> Outgoing {
    let mut headers = receipt(asked);
    headers.push(VERSION_HEADER, Decimal::of(after.version).as_bytes());
    outgoing(asked, DOCUMENTS_TOPIC, asked.key.to_string(), after.to_json(), headers)
}

/// What a request set, for the history.
pub fn change(asked: &Asked, change: Vec<u8>) -> Outgoing {
    let mut headers = receipt(asked);
    headers.push(header::CLIENT, asked.message.client.as_str().as_bytes());
    if !asked.key.name.as_str().is_empty() {
        headers.push(SHADOW_HEADER, asked.key.name.as_str().as_bytes());
    }
    outgoing(asked, CHANGES_TOPIC, asked.key.device.to_string(), change, headers)
}

/// A delivery on its way.
pub fn reply(asked: &Asked, delivery: &wire::Delivery) -> Outgoing {
    outgoing(asked, REPLIES_TOPIC, asked.key.device.to_string(), delivery.encode_to_vec(), receipt(asked))
}

/// The answer to a request, for whoever asked.
pub fn answer(asked: &Asked, code: u16, version: u64, payload: Vec<u8>) -> wire::Delivery {
    let level = if code == 0 { "accepted" } else { "rejected" };
    let answer = wire::Answer {
        request_id: Vec::new(),
        identity: identity(&asked.message).map(Vec::from).unwrap_or_default(),
        code: code.into(),
        version,
    };
    let audience = wire::Audience::Nobody;
    again(asked, wire::Delivery { answer: Some(answer), ..delivery(asked, level, payload, audience) })
}

/// The answer `first` for whoever asks the same now. Who is asked by the platform itself, or by a rule, has no
/// connection to be answered by.
pub fn again(asked: &Asked, first: wire::Delivery) -> wire::Delivery {
    let message = &asked.message;
    let (audience, client) = match message.epoch {
        0 => (wire::Audience::Nobody, String::new()),
        _ => (wire::Audience::Connection, message.client.to_string()),
    };
    let answer = first.answer.map(|answer| wire::Answer { request_id: message.id.0.to_vec(), ..answer });
    wire::Delivery { audience: audience.into(), client, epoch: message.epoch, answer, ..first }
}

/// What every subscriber is told of an update.
pub fn notice(asked: &Asked, level: &str, payload: Vec<u8>) -> wire::Delivery {
    delivery(asked, level, payload, wire::Audience::Subscribers)
}

fn delivery(asked: &Asked, level: &str, payload: Vec<u8>, audience: wire::Audience) -> wire::Delivery {
    wire::Delivery {
        tenant: asked.key.device.tenant.to_string(),
        topic: format!("{}/{level}", asked.message.topic),
        payload,
        audience: audience.into(),
        client: String::new(),
        epoch: 0,
        answer: None,
    }
}

/// A request that the platform makes itself: its id is its name, so that whoever asks again is recognised.
pub fn request(
    key: &ShadowKey,
    operation: ShadowOperation,
    payload: Bytes,
    id: RecordId,
    time_ms: u64,
) -> Result<Outgoing, InvalidTopic> {
    let topic = ShadowRequest { device: key.device.device.clone(), name: key.name.clone(), operation };
    let topic = TopicName::new(topic.to_string())?;
    Ok(own(SHADOW_REQUESTS_TOPIC, &key.device, Own { topic, payload, id, time_ms, hops: 0 }))
}

/// What the platform says in its own name.
pub(super) struct Own {
    pub topic: TopicName,
    pub payload: Bytes,
    pub id: RecordId,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub hops: u32,
}

/// The record of what the platform itself says about `device`, for the topic `log`.
pub(super) fn own(log: &'static str, device: &DeviceKey, own: Own) -> Outgoing {
    let Own { topic, payload, id, time_ms, hops } = own;
    let message = Telemetry {
        id,
        tenant: device.tenant.clone(),
        device: device.device.clone(),
        client: ClientId::new(PLATFORM).expect("it has no null character"),
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: true,
        packet_id: None,
        epoch: 0,
        fingerprint: id.0,
        time_ms,
        content_type: None,
        properties: vec![(ID_PROPERTY.to_owned(), id.to_string())],
        mqtt5: None,
        traceparent: None,
        hops,
    };
    let headers = message.headers();
    let record = Record {
        key: Some(device.to_string().into()),
        value: Some(message.payload),
        headers,
        timestamp_ms: i64::try_from(time_ms).unwrap_or(i64::MAX),
    };
    Outgoing::keyed(log, record)
}

fn outgoing(asked: &Asked, topic: &'static str, key: String, value: Vec<u8>, headers: Headers) -> Outgoing {
    let timestamp_ms = i64::try_from(asked.message.time_ms).unwrap_or(i64::MAX);
    let record = Record { key: Some(key.into()), value: Some(value.into()), headers, timestamp_ms };
    Outgoing::keyed(topic, record)
}

/// Whence a record comes.
fn receipt(asked: &Asked) -> Headers {
    let message = &asked.message;
    let mut headers = Headers::default();
    headers.push(header::ID, &message.id.0);
    headers.push(header::TIME, Decimal::of(message.time_ms).as_bytes());
    headers.extend(message.traceparent.as_ref().map(|trace| (header::TRACEPARENT, trace.as_str())));
    headers
}
