//! Who asks: what the headers of a request prove, and the handshake of its connection.

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use drover_host::http::{Ends, OverTls, is_cross_site};
use drover_types::{ApiError, ErrorCode};

use crate::domain::identity::{Certificate, Proof};
use crate::server::tls::shown;

/// The certificate that the client has shown, which counts before a header as in MQTT before a user name; else its header.
pub fn proof(head: &Parts) -> Result<Proof, ApiError> {
    let Some(certificate) = certificate(&head.extensions) else { return authorization(&head.headers) };
    refuse_cross_site(&head.extensions, &head.headers)?;
    Ok(Proof::Certificate(certificate))
}

/// What the client has shown in the handshake.
pub fn certificate(extensions: &Extensions) -> Option<Certificate> {
    extensions.get::<OverTls>().and_then(|tls| shown(&tls.chain))
}

/// Refuses the page of another site, for requests that need no token: a browser shows its certificate for any page. On loopback
/// the listener has looked at the origin, of every request.
pub fn refuse_cross_site(extensions: &Extensions, headers: &HeaderMap) -> Result<(), ApiError> {
    let on_loopback = extensions.get::<Ends>().is_some_and(|ends| ends.listener.ip().is_loopback());
    if on_loopback || !is_cross_site(headers) {
        return Ok(());
    }
    let message = "the header origin names another site than host; without a token its pages stay outside";
    Err(ApiError::new(ErrorCode::PermissionDenied, message))
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
    use std::sync::Arc;

    use axum::http::Request;
    use axum::http::header::{HOST, ORIGIN};
    use rustls::pki_types::CertificateDer;

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

    #[test]
    fn a_certificate_that_a_browser_shows_for_the_page_of_another_site_is_none() {
        let chain: Arc<[CertificateDer<'static>]> = Arc::from([CertificateDer::from(vec![7_u8])]);
        let certificate = shown(&chain).expect("one");
        let of = |origin: &str, listener: &str| {
            let ends = Ends {
                peer: "192.0.2.7:4711".parse().expect("an address"),
                listener: listener.parse().expect("an address"),
            };
            let request = Request::builder().header(HOST, "devices:8443").header(ORIGIN, origin).extension(ends);
            let request = request.extension(OverTls { chain: chain.clone() });
            proof(&request.body(()).expect("a request").into_parts().0).map_err(|error| error.code)
        };
        let shown = Ok(Proof::Certificate(certificate.clone()));
        assert_eq!(of("https://devices:8443", "[::]:8443"), shown);
        assert_eq!(of("https://elsewhere", "[::]:8443"), Err(ErrorCode::PermissionDenied));
        assert_eq!(of("https://elsewhere", "127.0.0.1:8443"), shown, "the listener has looked at it");
    }
}
