//! `POST /api/v2/write`: InfluxDB's line protocol, as its clients and agents send it. Each line is a message of the device
//! that asks.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use drover_host::http::{self, Failure};
use drover_types::{ApiError, ErrorCode, Qos, TraceParent};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::DeviceSide;
use super::publish::traceparent;
use super::who::proof;
use crate::domain::identity::Identity;
use crate::domain::line_protocol::{Point, Precision, lines};
use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::post::{self, Post, Way, identify};
use crate::server::traced;

/// Bytes of a body, as sent and as unpacked: agents send a thousand lines at a time.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Lines of a body, comments and empty ones left out.
const LINES_MAX: usize = 10_000;
/// Messages that become durable together.
const PART_LINES_MAX: usize = 500;

/// The query. Organisation and bucket are InfluxDB's; whose the lines are is said by the token.
#[derive(Deserialize)]
pub struct Wanted {
    #[serde(default)]
    precision: Precision,
}

/// Publishes the lines in their order. Nothing is published if one of them cannot be; after `unavailable` or
/// `deadline_exceeded` some may have been. No content says that all are durable.
pub async fn post(
    State(side): State<Arc<DeviceSide>>,
    query: Result<Query<Wanted>, QueryRejection>,
    request: Request,
) -> Result<StatusCode, Failure> {
    let (head, body) = request.into_parts();
    let identity = identify(&side.node, proof(&head)?).await?;
    let Query(wanted) = query.map_err(|refused| ApiError::invalid("query", refused.body_text()))?;
    let turn = side.turns.take(&identity.tenant, side.patience).await?;
    let body = http::read(&head.headers, body, BODY_BYTES_MAX, side.patience).await?;
    let received_ms = side.node.now().unix_ms;
    let written = Written { precision: wanted.precision, traceparent: traceparent(&head.headers), received_ms };
    let node = side.node.clone();
    // So many lines take longer than a thread that serves others may be held. The turn goes along: who hangs up does not
    // free it for more before they are read.
    let reading = spawn_blocking(move || {
        let body = unpacked(&head.headers, body)?;
        Ok::<_, ApiError>((written.messages(&node, &identity, &body)?, turn))
    });
    let read = reading.await.map_err(|panic| ApiError::new(ErrorCode::Internal, panic.to_string()))?;
    let (messages, _turn) = read?;
    for part in messages.chunks(PART_LINES_MAX) {
        post::in_time(&side.node, side.patience, side.node.publish_all(part, received_ms)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What all lines of a body share.
struct Written {
    precision: Precision,
    traceparent: Option<TraceParent>,
    received_ms: u64,
}

impl Written {
    /// The messages of all lines, or why one of them is none.
    fn messages(&self, node: &Node, identity: &Identity, body: &[u8]) -> Result<Vec<Arc<Message>>, ApiError> {
        let text = std::str::from_utf8(body).map_err(|error| {
            ApiError::invalid("body", "is not UTF-8").over("UTF-8", format!("byte {}", error.valid_up_to()))
        })?;
        let mut messages = Vec::new();
        for (number, line) in lines(text).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            if messages.len() == LINES_MAX {
                return Err(ApiError::invalid("body", "has too many lines").over(LINES_MAX, "more"));
            }
            let message = self.message(node, identity, line);
            let numbered = |error: ApiError| {
                let message = format!("line {number}: {}", error.message);
                ApiError { message, ..error }
            };
            messages.push(message.map_err(numbered)?);
        }
        Ok(messages)
    }

    fn message(&self, node: &Node, identity: &Identity, line: &str) -> Result<Arc<Message>, ApiError> {
        let point = Point::read(line, self.precision, self.received_ms)?;
        let (device, way) = (&identity.device, Way::http(identity.device.as_str()));
        let topic = point.topic(device);
        let post = Post {
            traceparent: traced::publish(device, &topic, self.traceparent.clone()),
            topic,
            payload: point.payload.into(),
            qos: Qos::AtLeastOnce,
            content_type: Some("application/json".to_owned()),
            name: None,
        };
        let time_ms = point.time_ms.unwrap_or(self.received_ms);
        post::message(node, identity, device, &way, post, time_ms, self.received_ms)
    }
}

/// The body as it was before it was packed.
fn unpacked(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(body),
        Some(b"gzip") => {
            let mut unpacked = Vec::new();
            let mut packed = MultiGzDecoder::new(&*body).take(BODY_BYTES_MAX as u64 + 1);
            let read = packed.read_to_end(&mut unpacked);
            read.map_err(|error| ApiError::invalid("body", format!("is not gzip: {error}")))?;
            if unpacked.len() > BODY_BYTES_MAX {
                let value = format!("more than {BODY_BYTES_MAX}");
                return Err(ApiError::invalid("body", "is too large, unpacked").over(BODY_BYTES_MAX, value));
            }
            Ok(unpacked.into())
        }
        Some(other) => {
            let error = ApiError::invalid("content-encoding", "is not one that is taken here");
            Err(error.over("gzip, identity", String::from_utf8_lossy(other)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory").into()
    }

    fn of(encoding: &'static str, body: Bytes) -> Result<Bytes, ApiError> {
        let encoding = encoding.parse().expect("a value");
        unpacked(&HeaderMap::from_iter([(CONTENT_ENCODING, encoding)]), body)
    }

    #[test]
    fn a_body_may_be_packed_and_has_a_bound_as_it_was_before() {
        assert_eq!(unpacked(&HeaderMap::new(), Bytes::from_static(b"m f=1")).expect("as it is"), "m f=1");
        assert_eq!(of("identity", Bytes::from_static(b"m f=1")).expect("as it is"), "m f=1");
        assert_eq!(of("gzip", packed(b"m f=1")).expect("unpacked"), "m f=1");
        assert_eq!(of("gzip", packed(&vec![b'x'; BODY_BYTES_MAX])).expect("at the limit").len(), BODY_BYTES_MAX);
        let over = of("gzip", packed(&vec![b'x'; BODY_BYTES_MAX + 1])).expect_err("over it");
        assert_eq!(over.limit, Some(BODY_BYTES_MAX.to_string()));
        assert_eq!(of("gzip", Bytes::from_static(b"m f=1")).expect_err("no gzip").field.as_deref(), Some("body"));
        let other = of("zstd", Bytes::new()).expect_err("not taken");
        assert_eq!((other.field.as_deref(), other.value.as_deref()), (Some("content-encoding"), Some("zstd")));
    }
}
