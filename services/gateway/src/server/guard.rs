//! What every request passes: is it from a foreign web page, does it carry the token, how long did it take.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use drover_types::{ApiError, ErrorCode};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::Api;
use super::error::Failure;

/// Paths that demand no token.
const OPEN: [&str; 2] = ["/", "/healthz"];

/// Demands `Authorization: Bearer ADMIN_TOKEN`.
pub async fn token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Failure> {
    if !OPEN.contains(&request.uri().path()) {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        authorise(&api.token, header)?;
    }
    Ok(next.run(request).await)
}

fn authorise(token: &str, header: Option<&str>) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::new(ErrorCode::Unauthenticated, message));
    let Some(header) = header else { return refuse("the header Authorization: Bearer TOKEN is missing") };
    match header.split_once(' ') {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") => {
            match bool::from(given.trim().as_bytes().ct_eq(token.as_bytes())) {
                true => Ok(()),
                false => refuse("the token is not the administrator's"),
            }
        }
        Some(_) | None => refuse("the header Authorization is not of the form Bearer TOKEN"),
    }
}

/// Refuses what a browser sends for another site's page: a loopback listener has no other wall against it.
pub async fn foreign(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Failure> {
    let allowed = &api.config.allowed_hosts;
    let host = request.headers().get(HOST);
    if !host.is_some_and(|host| is_local(host, allowed)) {
        return Err(refused(&HOST, host).into());
    }
    match request.headers().get(ORIGIN) {
        Some(origin) if !is_local(origin, allowed) => Err(refused(&ORIGIN, Some(origin)).into()),
        Some(_) | None => Ok(next.run(request).await),
    }
}

fn refused(name: &HeaderName, value: Option<&HeaderValue>) -> ApiError {
    let shown = value.map_or("absent".to_owned(), |value| format!("{value:?}"));
    let message = format!("the header {name} is {shown}, which is not this machine (gateway.allowed_hosts adds names)");
    ApiError::new(ErrorCode::PermissionDenied, message)
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

/// Counts and times the request.
pub async fn measure(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched".to_owned(), |path| path.as_str().into());
    let response = next.run(request).await.into_response();
    api.telemetry.answered(method.as_str(), &route, response.status().as_u16(), began.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        assert_eq!(authorise("secret", Some("Bearer secret")), Ok(()));
        assert_eq!(authorise("secret", Some("bearer secret")), Ok(()));
        for header in [None, Some("secret"), Some("Basic secret"), Some("Bearer secre"), Some("Bearer secrett")] {
            let refused = authorise("secret", header).expect_err("refused");
            assert_eq!(refused.code, ErrorCode::Unauthenticated, "{header:?}");
        }
    }

    #[test]
    fn this_machine_has_a_few_names_and_no_others() {
        let allowed = ["box.lan".to_owned()];
        let local = |text: &'static str| is_local(&HeaderValue::from_static(text), &allowed);
        for ours in [
            "localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "box.lan:8080",
            "http://localhost:8080", "http://[::1]:8080",
        ] {
            assert!(local(ours), "{ours}");
        }
        for foreign in
            ["example.org", "localhost.example.org", "http://example.org:8080", "null", "", "10.0.0.1:8080", "127.0.0.1.example.org"]
        {
            assert!(!local(foreign), "{foreign}");
        }
    }
}
