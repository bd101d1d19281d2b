//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): by it a request that is made again is known.
//!
//! The draft has a string in quotation marks (RFC 9651 section 3.3.3); most clients send it bare, and mean the same.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use drover_host::http::Failure;
use drover_types::ApiError;
use drover_types::command::CommandKey;
use utoipa::IntoParams;

/// Name of the header.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The header as it is documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct KeyParam {
    /// A name of your own for what is sent, a UUID for example: 1 to 128 visible characters of ASCII, in
    /// quotation marks or bare.
    #[param(rename = "Idempotency-Key")]
    #[allow(dead_code, reason = "only documents")]
    key: Option<String>,
}

/// The key of a request; `None`: it has none.
pub struct Key(pub Option<CommandKey>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(read(&parts.headers)?))
    }
}

fn read(headers: &HeaderMap) -> Result<Option<CommandKey>, ApiError> {
    let given: Vec<_> = headers.get_all(IDEMPOTENCY_KEY).iter().collect();
    match given[..] {
        [] => Ok(None),
        [value] => {
            let text = String::from_utf8_lossy(value.as_bytes());
            let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            CommandKey::of_field(IDEMPOTENCY_KEY, quoted.unwrap_or(&text)).map(Some)
        }
        _ => Err(ApiError::invalid(IDEMPOTENCY_KEY, "stands there more than once").over(1, given.len())),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read_of(values: &[&str]) -> Result<Option<CommandKey>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        read(&headers)
    }

    #[test]
    fn a_key_in_quotation_marks_and_a_bare_one_are_the_same() {
        assert_eq!(read_of(&[]), Ok(None));
        let bare = read_of(&["8e03978e-40d5"]);
        assert_eq!(bare, Ok(Some(CommandKey::new("8e03978e-40d5").expect("valid"))));
        assert_eq!(read_of(&[r#""8e03978e-40d5""#]), bare);
    }

    #[test]
    fn what_is_no_key_is_refused_by_the_name_of_its_header() {
        let long = "k".repeat(129);
        let values: [&[&str]; 8] = [&[""], &[r#""""#], &[r#"""#], &[r#""a"#], &["a b"], &["ö"], &[&long], &["a", "a"]];
        for values in values {
            let refused = read_of(values).expect_err("refused");
            assert_eq!(refused.field.as_deref(), Some(IDEMPOTENCY_KEY), "{values:?}");
            assert!(refused.limit.is_some() && refused.value.is_some(), "{refused:?}");
        }
    }
}
