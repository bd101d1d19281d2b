//! What was wrong with a question, as the one shape of errors tells it.

use std::fmt::Display;

use datafusion::error::DataFusionError;
use drover_types::{ApiError, ErrorCode};

use crate::ports::StoreError;

/// Longest text of an error, in bytes: it may quote the SQL.
const TEXT_BYTES_MAX: usize = 1_024;

/// A statement that has more of something than it may.
pub fn too_many(what: &str, limit: usize, found: usize) -> ApiError {
    ApiError::invalid("sql", format!("has {found} {what}, limit is {limit}")).over(limit, found)
}

/// A question that passes a bound while it is worked on.
pub fn exhausted(message: impl Into<String>, limit: impl Display, found: impl Display) -> ApiError {
    ApiError::new(ErrorCode::ResourceExhausted, message).over(limit, found)
}

/// An error of the engine. What the SQL says wrongly is `invalid_argument` of the field `sql`.
pub fn told(error: DataFusionError) -> ApiError {
    match error.find_root() {
        DataFusionError::External(cause) => outside(cause.as_ref()),
        DataFusionError::ResourcesExhausted(reason) => ApiError::new(ErrorCode::ResourceExhausted, short(reason)),
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::ArrowError(..)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => ApiError::invalid("sql", short(&error.strip_backtrace())),
        _ => {
            tracing::warn!(%error, "a question in SQL failed");
            ApiError::new(ErrorCode::Internal, short(&error.strip_backtrace()))
        }
    }
}

/// An error of the store, or a bound of ours, which came through the engine.
fn outside(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> ApiError {
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return error.clone().into();
    }
    if let Some(error) = cause.downcast_ref::<ApiError>() {
        return error.clone();
    }
    ApiError::new(ErrorCode::Internal, short(&cause.to_string()))
}

/// One line of bounded length.
fn short(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().find(|(at, _)| *at >= TEXT_BYTES_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
