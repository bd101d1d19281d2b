//! `stream`: live messages as server-sent events (`message`, `dropped`, `error`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use drover_types::{ApiError, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;

use super::Api;
use super::body::Params;
use super::path::At;
use super::rules;
use super::verify::Authorization;
use crate::domain::live::{Message, Selection, Start};
use crate::domain::tail::{Event, Tail};
use crate::telemetry::OpenStream;
use drover_host::http::Failure;
use utoipa::IntoParams;

/// A comment goes out after this much silence, so that proxies keep the connection and dead clients are found.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The query: exactly one of `filter` and `topic`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// MQTT filter of the messages.
    filter: Option<String>,
    /// With `filter`: only messages of this device.
    device: Option<String>,
    /// Kafka topic that a rule of the tenant writes to.
    topic: Option<String>,
    /// `earliest`, `now` (where absent) or an ISO 8601 time.
    from: Option<String>,
}

/// Live messages as server-sent events: `message`, `dropped`, `error`.
#[utoipa::path(get, path = "/stream", operation_id = "openStream", tag = "messages", params(Query),
    responses((status = 200, content_type = "text/event-stream", body = Message, description = "Until either side ends it.")))]
pub async fn open(
    State(api): State<Arc<Api>>,
    Extension(Authorization(authorization)): Extension<Authorization>,
    at: At,
    Params(query): Params<Query>,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Failure> {
    let start = Start::parse(query.from.as_deref())?;
    let selection = select(&api, at.tenant, &query).await?;
    let place = api.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(ErrorCode::ResourceExhausted, "too many live streams").over(api.config.streams_max, "one more")
    })?;
    let tail = Tail::open(&api.bus, selection, start, api.config.tail_limits()).await?;
    let end = Box::pin(ended(api.clone(), authorization));
    let live = Live { tail, end, counted: api.telemetry.stream_opened(), ended: false, _place: place };
    Ok(Sse::new(live).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Returns when the stream must end: with an error when its holder is nobody any more, without when the process stops.
async fn ended(api: Arc<Api>, authorization: String) -> Option<ApiError> {
    tokio::select! {
        biased;
        () = api.shutdown.cancelled() => None,
        why = api.verifier.ended(&authorization) => Some(why),
    }
}

async fn select(api: &Api, tenant: TenantId, query: &Query) -> Result<Selection, ApiError> {
    match (&query.filter, &query.topic) {
        (Some(filter), None) => Selection::messages(tenant, filter, query.device.as_deref()),
        (None, Some(_)) if query.device.is_some() => {
            Err(ApiError::invalid("device", "goes with filter, not with topic"))
        }
        (None, Some(topic)) => {
            let selection = Selection::outputs(topic)?;
            match rules::writes_to(api, &tenant, topic).await? {
                true => Ok(selection),
                false => {
                    let message = format!("no rule of tenant {tenant} writes to topic {topic:?}");
                    Err(ApiError { field: Some("topic".into()), ..ApiError::new(ErrorCode::NotFound, message) })
                }
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(ApiError::invalid("filter", "a stream has exactly one of filter and topic"))
        }
    }
}

/// A tail on its way to one client. Ends with its first error, with the client's rights, and when the process stops.
struct Live {
    tail: Tail,
    end: Pin<Box<dyn Future<Output = Option<ApiError>> + Send>>,
    counted: OpenStream,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream for Live {
    type Item = Result<Sent, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(why) = self.end.as_mut().poll(cx) {
            self.ended = true;
            return Poll::Ready(why.map(|why| Ok(sent(&Event::Failed(why)))));
        }
        let Some(event) = ready!(self.tail.events.poll_recv(cx)) else { return Poll::Ready(None) };
        match &event {
            Event::Message(_) => self.counted.sent(),
            Event::Dropped { records, reason } => self.counted.dropped(*records, *reason),
            Event::Failed(_) => self.ended = true,
        }
        Poll::Ready(Some(Ok(sent(&event))))
    }
}

fn sent(event: &Event) -> Sent {
    match event {
        Event::Message(message) => named("message", message),
        Event::Dropped { records, reason } => named("dropped", &json!({"records": records, "reason": reason.as_str()})),
        Event::Failed(error) => named("error", &json!({"error": error})),
    }
}

fn named(name: &str, data: &impl Serialize) -> Sent {
    Sent::default().event(name).data(serde_json::to_string(data).expect("plain data is JSON"))
}
