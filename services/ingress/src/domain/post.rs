//! Messages of devices that hold no session: by HTTP, in a gateway's batch, and by CoAP. Who asks, what it may publish, and
//! the way into the log, which is that of an MQTT message of the same device.
//!
//! Domain layer over the ports Authenticator and Bus. Each request shows anew who it is. Messages of one device that are
//! under way at the same time have no order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::Offset;
use drover_mqtt::{Property, PropertyList};
use drover_types::repeat::ID_PROPERTY;
use drover_types::{ApiError, ClientId, DeviceId, ErrorCode, Qos, RecordId, TenantId, TopicName, TraceParent};
use futures::stream::{self, StreamExt as _};

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::message::{Forwarded, Message, Publication, Publisher};
use crate::domain::node::Node;

/// Questions of one request to the registry at the same time.
const QUESTIONS_MAX: usize = 64;

/// What a request publishes.
#[derive(Debug)]
pub struct Post {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub content_type: Option<String>,
    pub traceparent: Option<TraceParent>,
    /// Recognises the message when it is sent again: its user property `drover-id`.
    pub name: Option<String>,
}

/// The way a message came by.
#[derive(Clone, Debug)]
pub struct Way {
    /// Not the device's MQTT client: the repeat window tells the ways of one device apart.
    pub client: ClientId,
    /// By which its protocol recognises a message sent again; 0: it does not.
    pub packet_id: u16,
    /// Another epoch makes a message of the same packet id and payload a repeat.
    pub epoch: u64,
}

/// Where a message is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub id: RecordId,
    /// Within the partition of its device.
    pub offset: Offset,
}

impl Way {
    /// A way that recognises nothing: `name` is made of ids.
    pub fn of(name: String) -> Self {
        Self { client: ClientId::new(name).expect("ids have no null character"), packet_id: 0, epoch: 0 }
    }

    /// Requests of `device` by HTTP.
    pub fn http(device: &str) -> Self {
        Self::of(format!("http:{device}"))
    }
}

/// A time of RFC 3339 in milliseconds since the Unix epoch; `None`: it is none, or before that.
pub fn time_ms(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Asks the registry.
pub async fn identify(node: &Node, proof: Proof) -> Result<Arc<Identity>, ApiError> {
    let generation = node.sessions.generation();
    node.authenticator.authenticate(proof, generation).await.map_err(|error| {
        tracing::debug!(%error, "a device's request was refused");
        let (code, message) = match &error {
            // One answer to every wrong proof: nobody learns which devices there are.
            AuthenticateError::Wrong { .. } => (ErrorCode::Unauthenticated, "credentials are not valid".to_owned()),
            AuthenticateError::Refused { .. } => (ErrorCode::PermissionDenied, error.to_string()),
            AuthenticateError::Unavailable { .. } => (ErrorCode::Unavailable, error.to_string()),
        };
        ApiError::new(code, message)
    })
}

/// Devices that another one of their tenant speaks for, as the registry knows them.
pub type Identities = HashMap<DeviceId, Result<Arc<Identity>, ApiError>>;

/// Asks the registry who `devices` are that another one speaks for: one that is disabled is refused.
pub async fn on_behalf(node: &Node, tenant: &TenantId, devices: BTreeSet<DeviceId>) -> Identities {
    let questions = stream::iter(devices).map(|device| async move {
        let proof = Proof::Behalf { tenant: tenant.clone(), device: device.clone() };
        (device, identify(node, proof).await)
    });
    questions.buffer_unordered(QUESTIONS_MAX).collect().await
}

/// The message that `post` becomes when `identity` sends it in the name of `device` at `time_ms`; an error if it may not, or
/// if the message cannot be, which the device is told as well. Whether it may speak for that device was looked at before.
/// `received_ms` is now.
pub fn message(
    node: &Node,
    identity: &Identity,
    device: &DeviceId,
    way: &Way,
    mut post: Post,
    time_ms: u64,
    received_ms: u64,
) -> Result<Arc<Message>, ApiError> {
    let (publisher, traceparent) = (publisher(identity, device, way), post.traceparent.take());
    let publication = publication(node, identity, device, way.packet_id, post);
    let publication = publication.inspect_err(|error| node.tell_refusal(&publisher, || error.clone()))?;
    let mut stamp = node.stamp(received_ms, traceparent);
    stamp.time_ms = time_ms;
    Ok(Arc::new(publication.stamp(publisher, stamp)))
}

fn publication(
    node: &Node,
    identity: &Identity,
    device: &DeviceId,
    packet_id: u16,
    post: Post,
) -> Result<Publication, ApiError> {
    let Post { topic, payload, qos, content_type, name, .. } = post;
    let topic = TopicName::new(&topic).map_err(|error| ApiError::invalid("topic", error.to_string()))?;
    let caller = identity.device.as_str();
    if !identity.may_publish(topic.as_str(), caller) {
        let message = format!("the policies of {caller} do not allow it to publish to this topic");
        return Err(ApiError { field: Some("topic".into()), ..ApiError::new(ErrorCode::PermissionDenied, message) });
    }
    node.check_topic(&topic)?;
    let limit = node.environment.limits.payload_bytes_max;
    if payload.len() > limit {
        return Err(ApiError::invalid("payload", "is too large").over(limit, payload.len()));
    }
    let taken = node.environment.quotas.take(&identity.tenant, device, node.now().monotonic_ms);
    taken.map_err(|over| ApiError::new(ErrorCode::ResourceExhausted, over.to_string()).over(over.limit, "more"))?;
    let properties = forwarded(content_type.as_deref(), name.as_deref());
    Ok(Publication { topic, payload, qos, retain: false, dup: false, packet_id, properties })
}

/// Who publishes where `identity` sends what is `device`'s.
fn publisher(identity: &Identity, device: &DeviceId, way: &Way) -> Publisher {
    let (tenant, device, client) = (identity.tenant.clone(), device.clone(), way.client.clone());
    Publisher { tenant, device, client, epoch: way.epoch }
}

/// Publishes as `identity`; returns when the message is durable and handed to subscribers.
pub async fn publish(
    node: &Arc<Node>,
    identity: &Identity,
    way: &Way,
    post: Post,
    patience: Duration,
) -> Result<Kept, ApiError> {
    let now_ms = node.now().unix_ms;
    let message = message(node, identity, &identity.device, way, post, now_ms, now_ms)?;
    let id = message.telemetry.id;
    let positions = in_time(node, patience, node.publish_all(&[message], now_ms)).await?;
    let position = positions.first().expect("a batch of one has one position");
    Ok(Kept { id, offset: position.offset })
}

/// What the log answers, if it does within `patience`. After an error the fate of what was to be kept is unknown.
pub async fn in_time<T>(
    node: &Node,
    patience: Duration,
    keeping: impl Future<Output = Result<T, drover_bus::Unacknowledged>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(patience, keeping).await {
        Ok(Ok(kept)) => Ok(kept),
        Ok(Err(error)) => {
            node.telemetry.not_stored(&error);
            Err(ApiError::new(ErrorCode::Unavailable, format!("the message may not be kept: {error}")))
        }
        Err(_) => {
            let message = "the message was not durable in time; it may be kept later";
            Err(ApiError::new(ErrorCode::DeadlineExceeded, message).over(format!("{patience:?}"), "more"))
        }
    }
}

/// The properties that travel with the message. A content type longer than a property may be is left out.
fn forwarded(content_type: Option<&str>, name: Option<&str>) -> Option<Box<Forwarded>> {
    let mut list = PropertyList::default();
    let content_type = content_type.map(Property::ContentType);
    let name = name.map(|name| Property::UserProperty((ID_PROPERTY, name)));
    for property in content_type.into_iter().chain(name) {
        list.push(property).ok();
    }
    Forwarded::of(list.as_properties())
}
