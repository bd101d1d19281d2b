//! What a request asks for, and what it is answered with.

use std::sync::Arc;

use bytes::Bytes;
use coap_lite::ResponseType;
use drover_types::{ApiError, COAP_CLIENT, DeviceKey, ErrorCode, Qos, TopicFilter, TopicName};

use super::endpoint::{Endpoint, Origin};
use crate::domain::coap::block::Block;
use crate::domain::coap::downloads::{Body, DownloadKey};
use crate::domain::coap::formats;
use crate::domain::coap::reply::{self, Reply};
use crate::domain::coap::request::{Method, Request, TOKEN_OPTION};
use crate::domain::coap::uploads::{Taken, UploadKey};
use crate::domain::identity::{Identity, Proof};
use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::post::{self, Post, Way, identify};
use crate::ports::RetainedQuery;
use crate::server::traced;

/// First segment of the paths of topics.
const TOPICS: &str = "t";
/// What there is here (RFC 6690), which everybody may know.
const LINKS: &str = r#"</t>;rt="drover.topics";obs"#;
/// Values of Observe in a request (RFC 7641 section 2).
const REGISTER: u32 = 0;
const DEREGISTER: u32 = 1;

/// Answers a request.
pub async fn answer(endpoint: &Arc<Endpoint>, origin: &Origin, request: Request) -> Reply {
    let topic = match request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [".well-known", "core"] if request.method == Method::Get => return links(),
        [TOPICS, topic @ ..] if !topic.is_empty() => topic.join("/"),
        _ => return Reply::refusing(ResponseType::NotFound, "there is only /t/{topic}"),
    };
    let identity = match who(&endpoint.setup.node, origin, request.key.as_ref()).await {
        Ok(identity) => identity,
        Err(error) => return Reply::from(&error),
    };
    let reply = match request.method {
        Method::Post => publish(endpoint, origin, &identity, &request, topic).await,
        Method::Get => get(endpoint, origin, &identity, &request, topic).await,
    };
    Reply { known: true, ..reply.unwrap_or_else(|error| Reply::from(&error)) }
}

/// Whether it says that the device is not who it says, or may not come in; not that nobody could tell, and not that it may not do
/// this.
pub fn is_refused(reply: &Reply) -> bool {
    !reply.known && matches!(reply.code, ResponseType::Unauthorized | ResponseType::Forbidden)
}

fn links() -> Reply {
    let payload = Bytes::from_static(LINKS.as_bytes());
    Reply { payload, content_format: Some(formats::LINKS), ..Reply::new(ResponseType::Content) }
}

/// An association has shown it for all of its requests; a token in one of them is not looked at.
async fn who(node: &Node, origin: &Origin, key: Option<&String>) -> Result<Arc<Identity>, ApiError> {
    if let Some(shown) = &origin.shown {
        return identify(node, shown.clone()).await;
    }
    let missing = || {
        let message = format!("the device's token is missing: option {TOKEN_OPTION}, or token=TOKEN in the query");
        ApiError::new(ErrorCode::Unauthenticated, message)
    };
    let token = key.ok_or_else(missing)?.clone();
    identify(node, Proof::ApiKey { token }).await
}

fn key(identity: &Identity) -> DeviceKey {
    DeviceKey { tenant: identity.tenant.clone(), device: identity.device.clone() }
}

/// Publishes the body, when all of it is there; 2.04 says that it is durable.
async fn publish(
    endpoint: &Endpoint,
    origin: &Origin,
    identity: &Identity,
    request: &Request,
    topic: String,
) -> Result<Reply, ApiError> {
    let limit = endpoint.setup.node.environment.limits.payload_bytes_max;
    let whole = |payload: &Bytes| if payload.len() <= limit { Taken::Whole(payload.clone()) } else { Taken::TooLarge };
    let declared = request.size1.map_or(0, |bytes| bytes as usize);
    let taken = match request.block1 {
        _ if declared > limit => Taken::TooLarge,
        None => whole(&request.payload),
        Some(block) => {
            let key =
                UploadKey { device: key(identity), peer: origin.peer, topic: topic.clone(), tag: request.tag.clone() };
            let now_ms = endpoint.now_ms();
            endpoint.state().uploads.take(key, block, &request.payload, limit, now_ms)
        }
    };
    let refusing = |code, reason: &str| Ok(Reply { block1: request.block1, ..Reply::refusing(code, reason) });
    let payload = match taken {
        Taken::Whole(payload) => payload,
        Taken::Continue => return Ok(Reply { block1: request.block1, ..Reply::new(ResponseType::Continue) }),
        Taken::Incomplete => {
            return refusing(ResponseType::RequestEntityIncomplete, "this is not the block that follows; begin anew");
        }
        Taken::TooLarge => {
            let reason = format!("a payload has at most {limit} bytes");
            let reply = Reply::refusing(ResponseType::RequestEntityTooLarge, &reason);
            return Ok(Reply { block1: request.block1, size1: Some(limit), ..reply });
        }
        Taken::Full => return refusing(ResponseType::ServiceUnavailable, "too many bodies are under way"),
    };
    let wanted = Wanted::read(request, origin.confirmable)?;
    let way = way(endpoint, origin, identity, wanted.qos);
    let post = Post {
        traceparent: traced::publish(&identity.device, &topic, None),
        topic,
        payload,
        qos: wanted.qos,
        content_type: request.content_format.and_then(formats::media_type).map(str::to_owned),
        name: wanted.id,
    };
    post::publish(&endpoint.setup.node, identity, &way, post, endpoint.setup.patience).await?;
    Ok(Reply { block1: request.block1, ..Reply::new(ResponseType::Changed) })
}

/// A request that comes again after this process has begun anew is recognised by whoever reads the log: the same message
/// id and payload, in another epoch.
fn way(endpoint: &Endpoint, origin: &Origin, identity: &Identity, qos: Qos) -> Way {
    let packet_id = if origin.confirmable && qos == Qos::AtLeastOnce { origin.id } else { 0 };
    Way { packet_id, epoch: endpoint.setup.boot, ..Way::of(format!("{COAP_CLIENT}{}", identity.device)) }
}

/// The query of a message.
struct Wanted {
    qos: Qos,
    id: Option<String>,
}

impl Wanted {
    /// `qos=0|1`, by default 1 of a confirmable message and 0 of others; `id=NAME` as the user property `drover-id`.
    fn read(request: &Request, confirmable: bool) -> Result<Self, ApiError> {
        let mut wanted = Self { qos: if confirmable { Qos::AtLeastOnce } else { Qos::AtMostOnce }, id: None };
        for part in &request.query {
            match part.split_once('=') {
                Some(("qos", "0")) => wanted.qos = Qos::AtMostOnce,
                Some(("qos", "1")) => wanted.qos = Qos::AtLeastOnce,
                Some(("qos", qos)) => return Err(ApiError::invalid("qos", "qos is 0 or 1").over(1, qos)),
                Some(("id", id)) if !id.is_empty() => wanted.id = Some(id.to_owned()),
                Some(_) | None => {
                    return Err(ApiError::invalid("query", "known are qos, id and token").over("qos, id, token", part));
                }
            }
        }
        Ok(wanted)
    }
}

async fn get(
    endpoint: &Arc<Endpoint>,
    origin: &Origin,
    identity: &Arc<Identity>,
    request: &Request,
    filter: String,
) -> Result<Reply, ApiError> {
    let checked = allowed(&endpoint.setup.node, identity, &filter)?;
    if let Some(block) = request.block2.filter(|block| block.number > 0) {
        return Ok(fetch(endpoint, origin, identity, block, filter));
    }
    match request.observe {
        Some(REGISTER) => observe(endpoint, origin, identity, request, &checked).await,
        Some(DEREGISTER) => {
            endpoint.setup.observers.forget(&key(identity), origin, endpoint.setup.patience).await?;
            Ok(Reply::new(ResponseType::Content))
        }
        Some(_) | None => {
            let topic = TopicName::new(&filter).map_err(|error| {
                let message = format!("a filter is observed; read is a topic, and {error}");
                ApiError::invalid("topic", message)
            })?;
            let missing = || ApiError::new(ErrorCode::NotFound, "no message is retained here");
            let message = retained(&endpoint.setup.node, identity, &topic).await?.ok_or_else(missing)?;
            Ok(content(endpoint, origin, identity, request, filter, &message))
        }
    }
}

/// The filter, if this device may subscribe to it.
fn allowed(node: &Node, identity: &Identity, filter: &str) -> Result<TopicFilter, ApiError> {
    let checked = TopicFilter::new(filter).map_err(|error| ApiError::invalid("filter", error.to_string()))?;
    let denied = node.environment.limits.denied_filters.iter().any(|denied| **denied == *filter);
    if denied || !identity.may_subscribe(filter, identity.device.as_str()) {
        let message = format!("the policies of {} do not allow it to subscribe to this", identity.device);
        return Err(ApiError { field: Some("filter".into()), ..ApiError::new(ErrorCode::PermissionDenied, message) });
    }
    Ok(checked)
}

/// Subscribes. The answer has the retained message of a topic; those that a filter with wildcards matches follow.
async fn observe(
    endpoint: &Arc<Endpoint>,
    origin: &Origin,
    identity: &Arc<Identity>,
    request: &Request,
    filter: &TopicFilter,
) -> Result<Reply, ApiError> {
    let topic = TopicName::new(filter.as_str()).ok();
    let sequence =
        endpoint.setup.observers.observe(endpoint, origin, identity, filter, request.block2, topic.is_none()).await?;
    let message = match &topic {
        Some(topic) => retained(&endpoint.setup.node, identity, topic).await?,
        None => None,
    };
    let reply = match message {
        Some(message) => content(endpoint, origin, identity, request, filter.as_str().to_owned(), &message),
        None => Reply::new(ResponseType::Content),
    };
    Ok(Reply { observe: Some(sequence), ..reply })
}

/// The retained message of a topic.
async fn retained(node: &Node, identity: &Identity, topic: &TopicName) -> Result<Option<Message>, ApiError> {
    let query = RetainedQuery {
        tenant: identity.tenant.clone(),
        filter: topic.as_str().into(),
        after: None,
        now_ms: node.now().unix_ms,
        messages_max: 1,
        bytes_max: usize::MAX,
    };
    let _turn = node.retained_reads.acquire().await;
    match node.retained.matching(query).await {
        Ok(page) => Ok(page.messages.into_iter().next()),
        Err(error) => {
            node.telemetry.retained_unread(&error);
            Err(ApiError::new(ErrorCode::Unavailable, "retained messages cannot be read"))
        }
    }
}

/// An answer with the payload of a message, or the first block of it.
fn content(
    endpoint: &Endpoint,
    origin: &Origin,
    identity: &Identity,
    request: &Request,
    filter: String,
    message: &Message,
) -> Reply {
    let mut reply = of_message(message);
    if !reply::is_acceptable(request, reply.content_format) {
        return Reply::refusing(ResponseType::NotAcceptable, "the message is of another format");
    }
    let download = DownloadKey { device: key(identity), peer: origin.peer, filter };
    first_block(endpoint, &mut reply, request.block2, download, message);
    reply
}

/// An answer or notification that says what a message is, without its payload.
pub fn of_message(message: &Message) -> Reply {
    let content_type = message.telemetry.content_type.as_deref();
    Reply { content_format: content_type.and_then(formats::format), known: true, ..Reply::new(ResponseType::Content) }
}

/// Puts a message's payload, or the first block of it, into `reply`; whether others are to be fetched.
pub fn first_block(
    endpoint: &Endpoint,
    reply: &mut Reply,
    size: Option<Block>,
    download: DownloadKey,
    message: &Message,
) -> bool {
    let (payload, etag) = (&message.telemetry.payload, etag(message));
    reply::first_block(reply, size, payload, etag);
    let more = reply.block2.is_some_and(|block| block.more);
    if more {
        let body = Body { bytes: payload.clone(), etag, content_format: reply.content_format };
        let now_ms = endpoint.now_ms();
        endpoint.state().downloads.keep(download, body, now_ms);
    }
    more
}

/// The random end of the record's id.
fn etag(message: &Message) -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = message.telemetry.id.0;
    [a, b, c, d, e, f, g, h]
}

/// A later block of a body whose first one was sent.
fn fetch(endpoint: &Endpoint, origin: &Origin, identity: &Identity, block: Block, filter: String) -> Reply {
    let download = DownloadKey { device: key(identity), peer: origin.peer, filter };
    let now_ms = endpoint.now_ms();
    let body = endpoint.state().downloads.fetch(&download, block.offset(), block.bytes(), now_ms);
    let Some(body) = body else {
        return Reply::refusing(ResponseType::NotFound, "the body is not kept any more; begin with its first block");
    };
    let mut reply = Reply { content_format: body.content_format, ..Reply::new(ResponseType::Content) };
    if reply::block(&mut reply, block, block.number, &body.bytes, body.etag) {
        return reply;
    }
    Reply::refusing(ResponseType::BadRequest, "the body has no such block")
}
