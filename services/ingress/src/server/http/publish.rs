//! From the headers of a request to what it publishes.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use drover_types::{ApiError, Qos, TraceParent};

use super::DeviceSide;
use crate::domain::identity::Identity;
use crate::domain::post::{self, Kept, Post, Way};
use crate::server::traced;

/// Header of the W3C trace context.
const TRACEPARENT: &str = "traceparent";
/// What forms are sent as: said by every client, whatever the payload is.
const FORM: &str = "application/x-www-form-urlencoded";

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The trace that the request is a part of.
pub fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    text(headers, TRACEPARENT).and_then(TraceParent::parse)
}

/// A message of these headers.
pub fn post(headers: &HeaderMap, topic: String, payload: Bytes, qos: Qos) -> Post {
    let content_type = text(headers, CONTENT_TYPE.as_str()).filter(|kind| !kind.starts_with(FORM)).map(str::to_owned);
    Post { topic, payload, qos, content_type, traceparent: traceparent(headers), name: None }
}

/// Publishes as `identity`; returns when the message is durable and handed to subscribers.
pub async fn publish(side: &DeviceSide, identity: &Identity, mut post: Post) -> Result<Kept, ApiError> {
    post.traceparent = traced::publish(&identity.device, &post.topic, post.traceparent.take());
    post::publish(&side.node, identity, &Way::http(identity.device.as_str()), post, side.patience).await
}
