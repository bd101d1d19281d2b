//! The one error shape of every interface, and the closed list of its codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// gRPC canonical codes in snake case; each protocol maps every one of them exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl ErrorCode {
    /// Every code, in the order of their gRPC numbers (1 to 16).
    pub const ALL: [ErrorCode; 16] = [
        ErrorCode::Cancelled,
        ErrorCode::Unknown,
        ErrorCode::InvalidArgument,
        ErrorCode::DeadlineExceeded,
        ErrorCode::NotFound,
        ErrorCode::AlreadyExists,
        ErrorCode::PermissionDenied,
        ErrorCode::ResourceExhausted,
        ErrorCode::FailedPrecondition,
        ErrorCode::Aborted,
        ErrorCode::OutOfRange,
        ErrorCode::Unimplemented,
        ErrorCode::Internal,
        ErrorCode::Unavailable,
        ErrorCode::DataLoss,
        ErrorCode::Unauthenticated,
    ];

    /// The gRPC status number, 1 to 16.
    pub fn grpc(self) -> i32 {
        self as i32 + 1
    }

    /// The code of a gRPC status number; `Unknown` for numbers gRPC does not define.
    pub fn from_grpc(number: i32) -> Self {
        usize::try_from(number - 1).ok().and_then(|i| Self::ALL.get(i).copied()).unwrap_or(Self::Unknown)
    }

    /// The HTTP status, as the gRPC gateway convention maps it.
    pub fn http(self) -> u16 {
        match self {
            ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition | ErrorCode::OutOfRange => 400,
            ErrorCode::Unauthenticated => 401,
            ErrorCode::PermissionDenied => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::AlreadyExists | ErrorCode::Aborted => 409,
            ErrorCode::ResourceExhausted => 429,
            ErrorCode::Cancelled => 499,
            ErrorCode::Unknown | ErrorCode::Internal | ErrorCode::DataLoss => 500,
            ErrorCode::Unimplemented => 501,
            ErrorCode::Unavailable => 503,
            ErrorCode::DeadlineExceeded => 504,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// `{"code": …, "field": …, "message": …, "limit": …, "value": …}`; absent parts are left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ApiError {
    pub code: ErrorCode,
    /// Path of the offending field in the request, `spec.sql` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into(), limit: None, value: None }
    }

    /// `invalid_argument` about one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(ErrorCode::InvalidArgument, message) }
    }

    /// Names the limit that was passed and the value that passed it.
    pub fn over(mut self, limit: impl ToString, value: impl ToString) -> Self {
        self.limit = Some(limit.to_string());
        self.value = Some(value.to_string());
        self
    }
}

/// Refuses a value outside of `low` to `high`: the error names the field, the nearer limit and the value.
pub fn in_range<T: Copy + PartialOrd + fmt::Display>(field: &str, value: T, low: T, high: T) -> Result<(), ApiError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let message = format!("is {value}, allowed are {low} to {high}");
    Err(ApiError { field: Some(field.to_owned()), ..ApiError::new(ErrorCode::OutOfRange, message) }
        .over(if value < low { low } else { high }, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_grpc_and_has_an_error_status() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_grpc(code.grpc()), code);
            assert!((400..600).contains(&code.http()));
        }
        assert_eq!(ErrorCode::from_grpc(0), ErrorCode::Unknown);
        assert_eq!(ErrorCode::from_grpc(99), ErrorCode::Unknown);
        assert_eq!(ErrorCode::InvalidArgument.to_string(), "invalid_argument");
    }

    #[test]
    fn absent_parts_are_left_out() {
        let error = ApiError::invalid("spec.sql", "too long").over(65_536, 70_000);
        let json = serde_json::to_string(&error).expect("plain data");
        assert_eq!(
            json,
            r#"{"code":"invalid_argument","field":"spec.sql","message":"too long","limit":"65536","value":"70000"}"#
        );
    }
}
