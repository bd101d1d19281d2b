//! Request bodies, bounded in bytes and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use drover_types::{ApiError, ErrorCode};

/// A body not read yet.
pub use axum::body::Body;

/// The whole body: `invalid_argument` if it has more than `limit` bytes, `deadline_exceeded` if it does not come within
/// `patience`. What declares itself too large is not read at all.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
    let too_large = |value: &str| ApiError::invalid("body", "is too large").over(limit, value);
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(length) = declared.filter(|text| text.parse::<usize>().is_ok_and(|length| length > limit)) {
        return Err(too_large(length));
    }
    let read = tokio::time::timeout(patience, axum::body::to_bytes(body, limit)).await.map_err(|_| {
        let error = ApiError::new(ErrorCode::DeadlineExceeded, "the body did not come in time");
        ApiError { field: Some("body".into()), ..error }.over(format!("{} s", patience.as_secs()), "more")
    })?;
    read.map_err(|error| {
        let source = std::error::Error::source(&error);
        match source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            true => too_large(&format!("more than {limit}")),
            false => ApiError::invalid("body", format!("could not be read: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_body_is_taken_at_its_limit_and_refused_one_byte_over() {
        let headers = HeaderMap::new();
        let read_of = |bytes: usize| read(&headers, Body::from(vec![b'x'; bytes]), 10, PATIENCE);
        assert_eq!(read_of(10).await.expect("at the limit").len(), 10);
        assert_eq!(read_of(11).await.expect_err("over it").limit.as_deref(), Some("10"));
        let declared = HeaderMap::from_iter([(CONTENT_LENGTH, "11".parse().expect("a value"))]);
        let refused = read(&declared, Body::empty(), 10, PATIENCE).await.expect_err("not even read");
        assert_eq!(refused.value.as_deref(), Some("11"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(&HeaderMap::new(), silent, 10, PATIENCE).await.expect_err("given up");
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    }
}
