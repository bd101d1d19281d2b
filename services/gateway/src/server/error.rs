//! The one shape of every error: `{"error": {"code", "field", "message", "limit", "value"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use drover_types::ApiError;
use serde_json::json;

/// An error on its way to the client, with the HTTP status of its code.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http()).expect("codes map to valid statuses");
        (status, Json(json!({"error": self.0}))).into_response()
    }
}
