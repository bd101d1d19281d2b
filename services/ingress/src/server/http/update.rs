//! `/update` as ThingSpeak has it: key in the query, in the form or in a header; the answer is the number of the entry,
//! and `0` when there is none.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use drover_host::http::{self, Body};
use drover_types::{ApiError, ErrorCode, Qos};

use super::DeviceSide;
use super::publish::{self, publish};
use crate::domain::identity::Proof;
use crate::domain::post::identify;
use crate::domain::update::{Update, topic};

/// Largest form, in bytes: eight fields and a status are far below.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// The key as ThingSpeak's own libraries send it.
const KEY_HEADER: &str = "x-thingspeakapikey";

/// Publishes the fields as one message to `channels/{device}/update`. Entries of a device have growing numbers from 1
/// on: their place in the log.
pub async fn update(State(side): State<Arc<DeviceSide>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match take(&side, &head, body).await {
        Ok(entry) => entry.to_string().into_response(),
        Err(error) => {
            tracing::debug!(%error, "an update was refused");
            (status(&error), "0").into_response()
        }
    }
}

/// Clients of ThingSpeak know that a wrong key is 400.
fn status(error: &ApiError) -> StatusCode {
    match error.code {
        ErrorCode::Unauthenticated => StatusCode::BAD_REQUEST,
        code => StatusCode::from_u16(code.http()).expect("codes map to valid statuses"),
    }
}

async fn take(side: &DeviceSide, head: &Parts, body: Body) -> Result<u64, ApiError> {
    let form = http::read(&head.headers, body, FORM_BYTES_MAX, side.patience).await?;
    let query = head.uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(&form));
    let update = Update::read(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())));
    let header = head.headers.get(KEY_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let token = update.key.clone().or(header).ok_or_else(|| ApiError {
        field: Some("api_key".into()),
        ..ApiError::new(ErrorCode::Unauthenticated, "is missing")
    })?;
    let identity = identify(&side.node, Proof::ApiKey { token }).await?;
    let payload = update.payload().ok_or_else(|| ApiError::invalid("field1", "there is no field"))?;
    let post = publish::post(&head.headers, topic(identity.device.as_str()), payload.into(), Qos::AtLeastOnce);
    Ok(publish(side, &identity, post).await?.offset + 1)
}
