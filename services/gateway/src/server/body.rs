//! Request bodies as JSON, bounded, and query strings; what is refused names its place.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use drover_types::ApiError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::error::Failure;

/// A body that is JSON, whatever its content type says.
pub struct Body(pub Value);

impl FromRequest<Arc<Api>> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let bytes = read(request, api.config.body_bytes_max).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::invalid("body", format!("is not JSON: {error}")).into())
    }
}

/// The whole body, at most `limit` bytes.
async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let length = declared.as_deref().and_then(|text| text.parse::<usize>().ok());
    let too_large = |value: &str| ApiError::invalid("body", "is too large").over(limit, value);
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(&length.unwrap_or_default().to_string()));
    }
    axum::body::to_bytes(request.into_body(), limit).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        match source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            true => too_large(&format!("more than {limit}")),
            false => ApiError::invalid("body", format!("could not be read: {error}")),
        }
    })
}

/// A query string; unknown keys are refused if `T` refuses them.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequestParts<Arc<Api>> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Failure> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|refused| {
            let reason = std::error::Error::source(&refused).map_or_else(|| refused.to_string(), ToString::to_string);
            ApiError::invalid("query", reason)
        })?;
        Ok(Self(params))
    }
}
