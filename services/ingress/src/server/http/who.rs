//! Who asks: what the headers of a request prove, and the handshake of its connection.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use drover_types::{ApiError, ErrorCode};

use super::secure::OverTls;
use crate::domain::identity::Proof;

/// The certificate that the client has shown, which counts before a header as in MQTT before a user name; else its header.
pub fn proof(head: &Parts) -> Result<Proof, ApiError> {
    let shown = head.extensions.get::<OverTls>().and_then(|tls| tls.certificate.as_deref());
    shown.map_or_else(|| authorization(&head.headers), |certificate| Ok(Proof::Certificate(certificate.clone())))
}

/// `Authorization: Bearer TOKEN` (`Token TOKEN`, as clients of InfluxDB say it), or `Basic` with `DEVICE:TOKEN` (or
/// `TENANT/DEVICE:TOKEN`).
fn authorization(headers: &HeaderMap) -> Result<Proof, ApiError> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, value) = header.and_then(|header| header.split_once(' ')).ok_or_else(missing)?;
    let value = value.trim();
    if ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Ok(Proof::ApiKey { token: value.to_owned() });
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(missing());
    }
    let decoded = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(missing)?;
    let (user_name, token) = decoded.split_once(':').ok_or_else(missing)?;
    Ok(Proof::Token { user_name: user_name.to_owned(), token: token.to_owned() })
}

fn missing() -> ApiError {
    let message = "send the device's token as `Authorization: Bearer TOKEN` or Basic DEVICE:TOKEN";
    ApiError::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Proof, ErrorCode> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a value"))]);
        authorization(&headers).map_err(|error| error.code)
    }

    #[test]
    fn a_token_comes_alone_or_with_its_device() {
        for alone in ["Bearer t", "Token t"] {
            assert_eq!(of(alone), Ok(Proof::ApiKey { token: "t".into() }));
        }
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let token = |user_name: &str, token: &str| Proof::Token { user_name: user_name.into(), token: token.into() };
        assert_eq!(of(&basic("d:t")), Ok(token("d", "t")));
        assert_eq!(of(&basic("home/d:t:u")), Ok(token("home/d", "t:u")));
        for wrong in ["", "Bearer", "Digest x", "Basic !", "Basic ZA=="] {
            assert_eq!(of(wrong), Err(ErrorCode::Unauthenticated), "{wrong}");
        }
        assert!(authorization(&HeaderMap::new()).is_err());
    }
}
