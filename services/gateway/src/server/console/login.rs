//! In and out: a one-time link for who has a token, a cookie for who has the link.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json};
use drover_host::http::{self, Failure, OverTls};
use drover_types::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OPEN, templates};
use crate::domain::sessions::{CODE_MS, SESSION_MS, Session, Ticket};
use crate::server::Api;
use crate::server::path::At;

/// Name of the cookie, and of the one of sessions over TLS: by its prefix browsers send and replace that over TLS alone
/// (RFC 6265bis, section 4.1.3.2).
const NAME: &str = "drover_session";
const NAME_OVER_TLS: &str = "__Host-drover_session";
/// Longest code that is looked up, in bytes, and how long it may take to come.
const CODE_BYTES_MAX: usize = 128;
const PATIENCE: Duration = Duration::from_secs(5);

/// A link into the console.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleLink {
    /// Path and fragment, behind the address of this gateway. The fragment is a secret that is good for one use.
    path: String,
    /// Seconds until it ends unused.
    duration_s: u64,
}

/// A one-time link into the console, for whoever has a token; its pages are about this tenant.
#[utoipa::path(post, path = "/console-links", operation_id = "createConsoleLink", tag = "console",
    responses((status = 201, body = ConsoleLink, description = "The link.")))]
pub async fn invite(
    State(api): State<Arc<Api>>,
    at: At,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<ConsoleLink>), Failure> {
    let authorization = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "a link is made with a token, not with a session"))?;
    let ticket = Ticket { authorization: authorization.to_owned(), tenant: at.tenant };
    let code = api.sessions.invite(ticket, api.clock.now_ms());
    let link = ConsoleLink { path: format!("{OPEN}#{code}"), duration_s: CODE_MS / 1000 };
    Ok((StatusCode::CREATED, Json(link)))
}

/// The page that exchanges the code.
pub async fn page() -> Response {
    templates::opening()
}

/// Exchanges a code, which is the body, for a session.
pub async fn open(
    State(api): State<Arc<Api>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = http::read(&headers, body, CODE_BYTES_MAX, PATIENCE).await?;
    let secret = std::str::from_utf8(&body).ok().and_then(|code| api.sessions.open(code, api.clock.now_ms()));
    let secret = secret.ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "the link was used, or is too old"))?;
    let cookie = cookie(&secret, SESSION_MS / 1000, OverTls::is_in(&extensions));
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// The hidden field of every form.
#[derive(Deserialize)]
pub struct Csrf {
    pub csrf: String,
}

/// Ends the session.
pub async fn close(
    State(api): State<Arc<Api>>,
    Extension(session): Extension<Session>,
    extensions: Extensions,
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    check(&session, &form.csrf)?;
    let over_tls = OverTls::is_in(&extensions);
    if let Some(secret) = session_secret(&headers, over_tls) {
        api.sessions.close(secret);
    }
    Ok(([(SET_COOKIE, cookie("", 0, over_tls))], Redirect::to("/")).into_response())
}

/// What makes a browser keep the secret of a session for so many seconds.
fn cookie(secret: &str, seconds: u64, over_tls: bool) -> String {
    let (name, secure) = if over_tls { (NAME_OVER_TLS, "; Secure") } else { (NAME, "") };
    format!("{name}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Whether a form came from a page of this session.
pub fn check(session: &Session, csrf: &str) -> Result<(), ApiError> {
    if session.csrf == csrf {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::PermissionDenied, "the form is not one of this session; load its page again"))
}

/// The secret of the session cookie, if there is one of the name it has over TLS, or without.
pub fn session_secret(headers: &HeaderMap, over_tls: bool) -> Option<&str> {
    let wanted = if over_tls { NAME_OVER_TLS } else { NAME };
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, secret)| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let of = |text: &'static str, over_tls| {
            let headers = HeaderMap::from_iter([(COOKIE, text.parse().expect("a value"))]);
            session_secret(&headers, over_tls).map(str::to_owned)
        };
        let both = "a=b; drover_session=s3cret; __Host-drover_session=of-tls; c=d";
        assert_eq!(of(both, false).as_deref(), Some("s3cret"));
        assert_eq!(of(both, true).as_deref(), Some("of-tls"));
        assert_eq!(of("drover_session=s3cret", true), None, "anybody on the way could have set it");
        assert_eq!(of("xdrover_session=1", false), None);
        assert_eq!(of("drover_session", false), None);
    }

    #[test]
    fn the_cookie_of_a_session_over_tls_goes_over_tls_alone() {
        let rest = "Path=/; Max-Age=1; HttpOnly; SameSite=Strict";
        assert_eq!(cookie("s3cret", 1, true), format!("__Host-drover_session=s3cret; {rest}; Secure"));
        assert_eq!(cookie("s3cret", 1, false), format!("drover_session=s3cret; {rest}"));
    }
}
