//! `ApiError` over gRPC: the code as the status code, the whole error as JSON in the status details.

use drover_types::{ApiError, ErrorCode};
use tonic::{Code, Status};

/// The error as a gRPC status.
pub fn to_status(error: &ApiError) -> Status {
    let details = serde_json::to_vec(error).expect("an ApiError is plain JSON");
    Status::with_details(Code::from_i32(error.code.grpc()), error.message.clone(), details.into())
}

/// The error a status carries; a status of another origin becomes its code and message.
pub fn from_status(status: &Status) -> ApiError {
    serde_json::from_slice(status.details())
        .unwrap_or_else(|_| ApiError::new(ErrorCode::from_grpc(status.code() as i32), status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = ApiError::invalid("spec.sql", "too long").over(1, 2);
        assert_eq!(from_status(&to_status(&error)), error);
        let foreign = from_status(&Status::unavailable("gone"));
        assert_eq!((foreign.code, foreign.message.as_str()), (ErrorCode::Unavailable, "gone"));
    }
}
