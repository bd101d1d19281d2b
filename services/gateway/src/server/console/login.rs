//! In and out: a one-time link for who has a token, a cookie for who has the link.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json};
use drover_host::http::{self, Failure};
use drover_types::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OPEN, templates};
use crate::domain::sessions::{CODE_MS, SESSION_MS, Session, Ticket};
use crate::server::Api;
use crate::server::path::At;

/// Name of the cookie.
const NAME: &str = "drover_session";
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
pub async fn open(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = http::read(&headers, body, CODE_BYTES_MAX, PATIENCE).await?;
    let secret = std::str::from_utf8(&body).ok().and_then(|code| api.sessions.open(code, api.clock.now_ms()));
    let secret = secret.ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "the link was used, or is too old"))?;
    let cookie = format!("{NAME}={secret}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict", SESSION_MS / 1000);
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
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Result<Response, Failure> {
    check(&session, &form.csrf)?;
    if let Some(secret) = session_secret(&headers) {
        api.sessions.close(secret);
    }
    let gone = format!("{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    Ok(([(SET_COOKIE, gone)], Redirect::to("/")).into_response())
}

/// Whether a form came from a page of this session.
pub fn check(session: &Session, csrf: &str) -> Result<(), ApiError> {
    if session.csrf == csrf {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::PermissionDenied, "the form is not one of this session; load its page again"))
}

/// The secret of the session cookie, if there is one.
pub fn session_secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == NAME).map(|(_, secret)| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, text.parse().expect("a value"))]);
            session_secret(&headers).map(str::to_owned)
        };
        assert_eq!(of("a=b; drover_session=s3cret; c=d").as_deref(), Some("s3cret"));
        assert_eq!(of("xdrover_session=1"), None);
        assert_eq!(of("drover_session"), None);
    }
}
