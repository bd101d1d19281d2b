//! `stream`: live messages as server-sent events (`message`, `dropped`, `place`, `error`), each with an id behind which
//! another stream goes on.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::sse::{Event as Sent, Sse};
use drover_types::{ApiError, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, interval};
use tokio_stream::Stream;

use super::Api;
use super::body::Params;
use super::path::At;
use super::rules;
use super::verify::Authorization;
use crate::domain::live::{LAST_EVENT_ID, Message, Selection, Start};
use crate::domain::tail::{Event, Tail};
use crate::telemetry::OpenStream;
use drover_host::http::Failure;
use utoipa::IntoParams;

/// The place goes out after this much silence, so that proxies keep the connection, dead clients are found, and one that
/// gets little goes on near the end of the log.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The query: exactly one of `filter` and `topic`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// MQTT filter of the messages.
    filter: Option<String>,
    /// With `filter`: another one; messages that match either are shown.
    or: Option<String>,
    /// With `filter`: only messages of this device.
    device: Option<String>,
    /// Kafka topic that a rule of the tenant writes to.
    topic: Option<String>,
    /// `earliest`, `now` (where absent), an ISO 8601 time, or the `id` of an event: what comes behind it.
    from: Option<String>,
}

/// The header `Last-Event-ID`, if it says anything.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("Last-Event-ID"))]
pub struct LastEventId(
    /// The `id` of the last event of a stream that was cut; goes before `from`.
    #[param(value_type = String, required = false)]
    Option<String>,
);

impl FromRequestParts<Arc<Api>> for LastEventId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Failure> {
        let Some(id) = parts.headers.get(LAST_EVENT_ID) else { return Ok(Self(None)) };
        let id = id.to_str().map_err(|_| ApiError::invalid(LAST_EVENT_ID, "is not ASCII, as every id is"))?;
        Ok(Self(Some(id.to_owned()).filter(|id| !id.is_empty())))
    }
}

/// Live messages as server-sent events: `message`, `dropped`, `place`, `error`.
///
/// Each has an `id`. A stream that begins behind one has each message that came since, once; what the log does not keep
/// any more is told by `dropped`.
#[utoipa::path(get, path = "/stream", operation_id = "openStream", tag = "messages", params(Query, LastEventId),
    responses((status = 200, content_type = "text/event-stream", body = Message, description = "Until either side ends it.")))]
pub async fn open(
    State(api): State<Arc<Api>>,
    Extension(Authorization(authorization)): Extension<Authorization>,
    at: At,
    LastEventId(last_event_id): LastEventId,
    Params(query): Params<Query>,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Failure> {
    let selection = select(&api, at.tenant, &query).await?;
    let start = Start::parse(last_event_id.as_deref(), query.from.as_deref(), selection.log_topic())?;
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(ErrorCode::ResourceExhausted, "too many live streams").over(api.config.streams_max, "one more")
    })?;
    let tail = Tail::open(&api.bus, selection, start, api.config.tail_limits()).await?;
    let end = Box::pin(ended(api.clone(), authorization));
    let counted = api.telemetry.stream_opened();
    Ok(Sse::new(Live { tail, end, counted, silence: interval(KEEP_ALIVE), ended: false, _permit: permit }))
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
        (Some(filter), None) => Selection::messages(tenant, filter, query.or.as_deref(), query.device.as_deref()),
        (None, Some(_)) if query.or.is_some() => Err(ApiError::invalid("or", "goes with filter, not with topic")),
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
    /// Ticks at the beginning, and when nothing was sent for [`KEEP_ALIVE`].
    silence: Interval,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    /// The next event to send; [`Event::Passed`] after silence only.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut event = Some(Event::Passed);
        if self.silence.poll_tick(cx).is_pending() {
            while event == Some(Event::Passed) {
                event = ready!(self.tail.poll_event(cx));
            }
        }
        self.silence.reset();
        Poll::Ready(event)
    }
}

impl Stream for Live {
    type Item = Result<Sent, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(why) = self.end.as_mut().poll(cx) {
            self.ended = true;
            return Poll::Ready(why.map(|why| Ok(sent(&Event::Failed(why), self.tail.id()))));
        }
        let Some(event) = ready!(self.poll_event(cx)) else { return Poll::Ready(None) };
        match &event {
            Event::Message(_) => self.counted.sent(),
            Event::Dropped { records, reason } => self.counted.dropped(*records, *reason),
            Event::Passed => {}
            Event::Failed(_) => self.ended = true,
        }
        Poll::Ready(Some(Ok(sent(&event, self.tail.id()))))
    }
}

fn sent(event: &Event, id: String) -> Sent {
    let sent = match event {
        Event::Message(message) => named("message", message),
        Event::Dropped { records, reason } => named("dropped", &json!({"records": records, "reason": reason.as_str()})),
        Event::Passed => named("place", &json!({})),
        Event::Failed(error) => named("error", &json!({"error": error})),
    };
    sent.id(id)
}

fn named(name: &str, data: &impl Serialize) -> Sent {
    Sent::default().event(name).data(serde_json::to_string(data).expect("plain data is JSON"))
}
