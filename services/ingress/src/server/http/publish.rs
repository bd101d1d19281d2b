//! From a request to the log: the same checks and the same way as an MQTT message of that device.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use drover_bus::Offset;
use drover_mqtt::{Property, PropertyList};
use drover_types::{ApiError, ClientId, DeviceId, ErrorCode, Qos, RecordId, TopicName, TraceParent};

use super::DeviceSide;
use crate::domain::identity::Identity;
use crate::domain::message::{Forwarded, Publication, Publisher, Stamp};

/// Header of the W3C trace context.
const TRACEPARENT: &str = "traceparent";
/// What forms are sent as: said by every client, whatever the payload is.
const FORM: &str = "application/x-www-form-urlencoded";

/// Where a message is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub id: RecordId,
    /// Within the partition of its device.
    pub offset: Offset,
}

/// What a request publishes.
pub struct Post {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub content_type: Option<String>,
    pub traceparent: Option<TraceParent>,
}

impl Post {
    /// A message of these headers.
    pub fn new(headers: &HeaderMap, topic: String, payload: Bytes, qos: Qos) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let content_type = text(CONTENT_TYPE.as_str()).filter(|kind| !kind.starts_with(FORM)).map(str::to_owned);
        Self { topic, payload, qos, content_type, traceparent: text(TRACEPARENT).and_then(TraceParent::parse) }
    }
}

/// Publishes as `identity`; returns when the message is durable and handed to subscribers. Messages of one device that
/// are under way at the same time have no order.
pub async fn publish(side: &DeviceSide, identity: &Identity, post: Post) -> Result<Kept, ApiError> {
    let node = &side.node;
    let topic = TopicName::new(&post.topic).map_err(|error| ApiError::invalid("topic", error.to_string()))?;
    let device = identity.device.as_str();
    if !identity.policy.may_publish(topic.as_str(), device) {
        let message = format!("the policies of {device} do not allow it to publish to this topic");
        return Err(ApiError { field: Some("topic".into()), ..ApiError::new(ErrorCode::PermissionDenied, message) });
    }
    node.check_topic(&topic)?;
    publish_as(side, identity, &identity.device, None, post).await
}

/// Publishes in the name of a device of the caller's tenant, with the time of the measurement if it has one. What the
/// caller may do was looked at before.
pub async fn publish_as(
    side: &DeviceSide,
    caller: &Identity,
    device: &DeviceId,
    time_ms: Option<u64>,
    post: Post,
) -> Result<Kept, ApiError> {
    let node = &side.node;
    let topic = TopicName::new(&post.topic).map_err(|error| ApiError::invalid("topic", error.to_string()))?;
    let publication = Publication {
        topic,
        payload: post.payload,
        qos: post.qos,
        retain: false,
        dup: false,
        packet_id: 0,
        properties: forwarded(post.content_type.as_deref()),
    };
    let publisher = Publisher {
        tenant: caller.tenant.clone(),
        device: device.clone(),
        // Not the device's MQTT client: the repeat window tells the two apart.
        client: ClientId::new(format!("http:{}", caller.device)).expect("a device id has no null character"),
        epoch: 0,
    };
    let stamp = node.stamp(node.now().unix_ms, post.traceparent);
    let stamp = Stamp { time_ms: time_ms.unwrap_or(stamp.time_ms), ..stamp };
    let id = stamp.id;
    let kept = node.publish_at(Arc::new(publication.stamp(&publisher, stamp)));
    match tokio::time::timeout(side.patience, kept).await {
        Ok(Ok(position)) => Ok(Kept { id, offset: position.offset }),
        Ok(Err(error)) => {
            node.telemetry.not_stored(&error);
            Err(ApiError::new(ErrorCode::Unavailable, format!("the message may not be kept: {error}")))
        }
        Err(_) => {
            let message = "the message was not durable in time; it may be kept later";
            Err(ApiError::new(ErrorCode::DeadlineExceeded, message).over(format!("{:?}", side.patience), "more"))
        }
    }
}

fn forwarded(content_type: Option<&str>) -> Option<Box<Forwarded>> {
    let mut list = PropertyList::default();
    // A content type longer than a property may be is left out.
    list.push(Property::ContentType(content_type?)).ok()?;
    Forwarded::of(list.as_properties())
}
