//! Why something is not as it was declared, and whether trying again may help.

use drover_types::{ApiError, ErrorCode};

/// What stands in the way, as a condition tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One word.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What a service has refused for good.
    pub fn refused(error: &ApiError) -> Self {
        let reason = match error.code {
            ErrorCode::InvalidArgument | ErrorCode::OutOfRange => "Invalid",
            ErrorCode::AlreadyExists => "AlreadyExists",
            ErrorCode::ResourceExhausted => "LimitReached",
            ErrorCode::NotFound => "NotFound",
            ErrorCode::PermissionDenied | ErrorCode::Unauthenticated => "NotAllowed",
            ErrorCode::FailedPrecondition => "Refused",
            ErrorCode::Cancelled
            | ErrorCode::Unknown
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Aborted
            | ErrorCode::Unimplemented
            | ErrorCode::Internal
            | ErrorCode::Unavailable
            | ErrorCode::DataLoss => "Unavailable",
        };
        Self { reason, message: told(error) }
    }
}

/// Whether the same call may be answered otherwise in a while without anybody changing the object.
pub fn passes(error: &ApiError) -> bool {
    match error.code {
        ErrorCode::Cancelled
        | ErrorCode::Unknown
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Aborted
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::DataLoss
        | ErrorCode::Unauthenticated
        | ErrorCode::Unimplemented => true,
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PermissionDenied
        | ErrorCode::ResourceExhausted
        | ErrorCode::FailedPrecondition
        | ErrorCode::OutOfRange => false,
    }
}

/// The error with its field, limit and value, on one line.
pub fn told(error: &ApiError) -> String {
    let field = error.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    let over = match (&error.limit, &error.value) {
        (Some(limit), Some(value)) => format!(" (limit {limit}, found {value})"),
        (Some(limit), None) => format!(" (limit {limit})"),
        (None, _) => String::new(),
    };
    format!("{field}{}{over}", error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_field_limit_and_value() {
        let error = ApiError::invalid("spec.sql", "sql is too long").over(65_536, 70_000);
        assert_eq!(told(&error), "spec.sql: sql is too long (limit 65536, found 70000)");
        assert_eq!(Problem::refused(&error).reason, "Invalid");
        assert_eq!(told(&ApiError::new(ErrorCode::Internal, "boom")), "boom");
    }

    #[test]
    fn every_code_either_passes_or_is_a_refusal_with_a_reason_of_its_own() {
        for code in ErrorCode::ALL {
            let error = ApiError::new(code, "m");
            let transient = Problem::refused(&error).reason == "Unavailable" || code == ErrorCode::Unauthenticated;
            assert_eq!(passes(&error), transient, "{code}");
        }
    }
}
