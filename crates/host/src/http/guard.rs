//! What a browser sends for another site's page: on a loopback listener this is the wall against it, there is no other.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use drover_types::{ApiError, ErrorCode};

use super::Failure;

/// Names by which this machine may be called, besides `localhost` and loopback addresses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hosts {
    allowed: Arc<[String]>,
    /// The configuration key that adds names.
    key: &'static str,
}

impl Hosts {
    /// The names `allowed` by the configuration key `key`.
    pub fn new(key: &'static str, allowed: &[String]) -> Self {
        Self { allowed: allowed.into(), key }
    }

    /// `permission_denied` if `Host` names another machine, or `Origin` the page of one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(HOST);
        if !host.is_some_and(|host| is_local(host, &self.allowed)) {
            return Err(self.refused(&HOST, host));
        }
        match headers.get(ORIGIN) {
            Some(origin) if !is_local(origin, &self.allowed) => Err(self.refused(&ORIGIN, Some(origin))),
            Some(_) | None => Ok(()),
        }
    }

    fn refused(&self, name: &HeaderName, value: Option<&HeaderValue>) -> ApiError {
        let shown = value.map_or("absent".to_owned(), |value| format!("{value:?}"));
        let message = format!("the header {name} is {shown}, which is not this machine ({} adds names)", self.key);
        ApiError::new(ErrorCode::PermissionDenied, message)
    }
}

/// [`Hosts::check`] as a middleware of a loopback listener.
pub async fn refuse_foreign(State(hosts): State<Hosts>, request: Request, next: Next) -> Result<Response, Failure> {
    hosts.check(request.headers())?;
    Ok(next.run(request).await)
}

/// Whether a page of another site asks. A browser lets any page open a WebSocket anywhere (RFC 6455 section 10.2), so
/// where clients need no credentials, every page its user visits would be a client.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.is_none() || authority != host
}

/// Whether a `Host` (`name[:port]`) or an `Origin` (`scheme://name[:port]`) names this machine.
fn is_local(value: &HeaderValue, allowed: &[String]) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let authority = text.split_once("://").map_or(text, |(_, authority)| authority);
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
        || allowed.iter().any(|host| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_few_names_and_no_others() {
        let allowed = ["box.lan".to_owned()];
        let local = |text: &'static str| is_local(&HeaderValue::from_static(text), &allowed);
        for ours in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "box.lan:8080",
            "http://localhost:8080",
            "http://[::1]:8080",
            "https://localhost:8443",
            "https://box.lan",
        ] {
            assert!(local(ours), "{ours}");
        }
        for foreign in [
            "example.org",
            "localhost.example.org",
            "http://example.org:8080",
            "https://example.org:8443",
            "null",
            "",
            "10.0.0.1:8080",
            "127.0.0.1.example.org",
        ] {
            assert!(!local(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_page_is_of_the_site_whose_host_it_names() {
        let asks = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("box.lan:8080"))]);
            headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            is_cross_site(&headers)
        };
        assert!(!asks(None) && !asks(Some("http://box.lan:8080")));
        for foreign in ["http://evil.example", "http://box.lan", "null", ""] {
            assert!(asks(Some(foreign)), "{foreign}");
        }
    }

    #[test]
    fn a_refusal_names_the_header_and_the_key_that_adds_names() {
        let hosts = Hosts::new("x.allowed_hosts", &[]);
        let headers = |origin: &'static str| {
            let local = (HOST, HeaderValue::from_static("localhost"));
            HeaderMap::from_iter([local, (ORIGIN, HeaderValue::from_static(origin))])
        };
        assert_eq!(hosts.check(&headers("http://localhost:1")), Ok(()));
        let message = hosts.check(&headers("http://evil.example")).expect_err("refused").message;
        assert!(message.contains("origin") && message.contains("x.allowed_hosts"), "{message}");
        assert!(hosts.check(&HeaderMap::new()).is_err(), "no Host is no browser of this machine");
    }
}
