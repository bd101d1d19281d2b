//! Request bodies as JSON, bounded, and query strings; what is refused names its place.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use drover_host::http::{self, Failure};
use drover_types::ApiError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that is JSON, whatever its content type says.
pub struct Body(pub Value);

impl FromRequest<Arc<Api>> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let bytes = read(request, api).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::invalid("body", format!("is not JSON: {error}")).into())
    }
}

/// A body whose JSON keeps what stands in it as raw text.
pub struct Raw<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Raw<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let bytes = read(request, api).await?;
        let refused = |error: serde_json::Error| ApiError::invalid("body", error.to_string());
        Ok(Self(serde_json::from_slice(&bytes).map_err(refused)?))
    }
}

/// The whole body, within the configured bound.
pub async fn read(request: Request, api: &Api) -> Result<Bytes, ApiError> {
    let (head, body) = request.into_parts();
    http::read(&head.headers, body, api.config.body_max.as_len(), PATIENCE).await
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
