//! The one shape of every error: `{"error": {"code", "field", "message", "limit", "value"}}`.

use axum::Json;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use drover_types::{ApiError, ErrorCode};
use serde_json::json;

/// An error on its way to the client, with the HTTP status of its code.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl Failure {
    /// Nothing is served under this path.
    pub fn nothing_at(uri: &Uri) -> Self {
        Self(ApiError::new(ErrorCode::NotFound, format!("there is nothing at {}", uri.path())))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http()).expect("codes map to valid statuses");
        let mut response = (status, Json(json!({"error": self.0}))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
