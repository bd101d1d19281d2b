//! What every request passes: whose side is asked, who asks and may they, how long did it take.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use drover_host::actor::acting;
use drover_host::http::{Failure, OverTls};
use drover_types::{ApiError, DEFAULT_TENANT, ErrorCode};
use tokio::time::Instant;
use tower::ServiceExt;

use super::verify::Authorization;
use super::{Api, console, routes};
use crate::domain::caller::{Caller, Deed};
use crate::domain::sessions::Session;

/// Paths that everybody may ask for, besides assets.
const OPEN: [&str; 3] = ["/healthz", routes::OPENAPI, console::OPEN];
/// Every change by a session shows its secret here; forms of the console show it in a hidden field.
const CSRF: HeaderName = HeaderName::from_static("x-drover-csrf");

/// Demands `Authorization: Bearer TOKEN` or a session of the console, and that who it is may do what is asked. What is
/// done then is done in the name of who it is.
pub async fn identify(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) || path.starts_with(console::ASSETS) {
        return next.run(request).await;
    }
    let (mut head, body) = request.into_parts();
    match known(&api, &head).await {
        Ok(Known { caller, authorization, session }) => {
            let actor = caller.title();
            head.extensions.insert(caller);
            head.extensions.insert(authorization);
            session.map(|session| head.extensions.insert(session));
            acting(&actor, next.run(Request::from_parts(head, body))).await
        }
        Err(error) if error.code == ErrorCode::Unauthenticated && is_for_people(&head) => console::sign_in(),
        Err(error) if is_for_people(&head) => console::failure(error),
        Err(error) => Failure(error).into_response(),
    }
}

/// Who asks, and how that is known.
struct Known {
    caller: Caller,
    authorization: Authorization,
    session: Option<Session>,
}

/// Who asks, if they may do what they ask for.
async fn known(api: &Api, request: &Parts) -> Result<Known, ApiError> {
    let path = request.uri.path();
    let (authorization, session) = match text(&request.headers, &AUTHORIZATION) {
        Some(authorization) => (authorization.to_owned(), None),
        None => {
            let session = session(api, request).ok_or_else(nobody)?;
            (session.ticket.authorization.clone(), Some(session))
        }
    };
    let caller = api.verifier.caller(&authorization).await?;
    let tenant = match (path.starts_with("/api/"), &session) {
        (false, Some(session)) => session.ticket.tenant.as_str(),
        (false, None) if console::is_page(path) => return Err(nobody()),
        (true, _) | (false, None) => tenant_of(path),
    };
    let deed = deed(&request.method, path);
    caller.check(tenant, deed)?;
    if let Some(session) = &session {
        check_csrf(session, request, deed)?;
    }
    Ok(Known { caller, authorization: Authorization(authorization), session })
}

fn nobody() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "the header `Authorization: Bearer TOKEN` is missing")
}

fn session(api: &Api, request: &Parts) -> Option<Session> {
    let secret = console::session_secret(&request.headers, OverTls::is_in(&request.extensions))?;
    api.sessions.find(secret, api.clock.now_ms())
}

/// The tenant that a path of the REST interface is about, as it is written there, and what follows.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.strip_prefix(routes::LONG.trim_end_matches("{tenant}")) {
        Some(of_tenant) => match of_tenant.split_once('/') {
            Some((tenant, rest)) => (tenant, Some(rest)),
            None => (of_tenant, None),
        },
        None => (DEFAULT_TENANT, path.strip_prefix(routes::SHORT).and_then(|rest| rest.strip_prefix('/'))),
    }
}

/// The tenant that a path of the REST interface is about, as it is written there.
fn tenant_of(path: &str) -> &str {
    split(path).0
}

/// The collection of the REST interface that a path is in.
fn collection(path: &str) -> Option<&str> {
    split(path).1?.split('/').next()
}

fn deed(method: &Method, path: &str) -> Deed {
    let reads = *method == Method::GET || *method == Method::HEAD;
    match collection(path) {
        // Who looks at all that others do may take rights away, too.
        Some("tokens" | "audit") => Deed::Administer,
        // Whoever names an issuer lets in all that it issues.
        Some("authorities") if !reads => Deed::Administer,
        // A link into the console changes nothing, and gives nobody more than they have.
        Some("console-links") => Deed::Read,
        // SQL that reads, and nothing else.
        Some("query") => Deed::Read,
        Some(_) | None if reads || path == console::CLOSE => Deed::Read,
        Some(_) | None => Deed::Change,
    }
}

/// A browser sends the cookie by itself; that it was our page that asked is shown by a secret only our pages know.
fn check_csrf(session: &Session, request: &Parts, deed: Deed) -> Result<(), ApiError> {
    let by_form = console::is_page(request.uri.path());
    let shown = text(&request.headers, &CSRF);
    if deed == Deed::Read || by_form || shown == Some(session.csrf.as_str()) {
        return Ok(());
    }
    let message = "a change by a session of the console shows its secret in the header x-drover-csrf";
    Err(ApiError::new(ErrorCode::PermissionDenied, message))
}

/// Whether the answer is read by a person.
fn is_for_people(request: &Parts) -> bool {
    let path = request.uri.path();
    let wants_html = text(&request.headers, &ACCEPT).is_some_and(|accept| accept.contains("text/html"));
    console::is_page(path) || (wants_html && !path.starts_with("/api/"))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether the device side of HTTP is asked: the ingress answers, never the gateway.
fn is_device_side(path: &str) -> bool {
    matches!(path, "/mqtt" | "/update" | "/api/v2/write") || path.starts_with("/v1/")
}

/// Hands requests of devices to the routes of the ingress, where it runs in this process and its listener has given way to
/// this one. They pass nothing of the gateway: no token, no count.
pub async fn device_side(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if !is_device_side(request.uri().path()) {
        return next.run(request).await;
    }
    let listener = if OverTls::is_in(request.extensions()) { "ingress.https" } else { "ingress.http" };
    match api.network.http().of(listener) {
        Some(routes) => routes.oneshot(request).await.into_response(),
        None => {
            let (path, devices) = (request.uri().path(), &api.config.http_endpoint);
            let message = format!("there is nothing at {path} here: devices are served at {devices}");
            Failure(ApiError::new(ErrorCode::NotFound, message)).into_response()
        }
    }
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
    fn the_tenant_is_the_one_written_in_the_path() {
        for (path, tenant) in [
            ("/api/v1/devices", "default"),
            ("/api/v1/tenants/home/devices/d", "home"),
            ("/api/v1/tenants/home", "home"),
            ("/api/v1/tenants//devices", ""),
            ("/api/v1/tenants/%68ome/devices", "%68ome"),
            ("/nowhere", "default"),
        ] {
            assert_eq!(tenant_of(path), tenant, "{path}");
        }
    }

    #[test]
    fn every_route_that_is_no_question_is_a_change_and_those_that_give_rights_are_for_administrators() {
        for (method, path) in routes::ROUTES {
            let expected = match (*method, *path) {
                (_, "/tokens" | "/tokens/{token}" | "/audit") | ("put" | "delete", "/authorities/{authority}") => {
                    Deed::Administer
                }
                ("get", _) | ("post", "/console-links" | "/query") => Deed::Read,
                _ => Deed::Change,
            };
            let method: Method = method.to_uppercase().parse().expect("a method");
            for prefix in ["/api/v1", "/api/v1/tenants/home", "/api/v1/tenants/tokens"] {
                assert_eq!(deed(&method, &format!("{prefix}{path}")), expected, "{method} {prefix}{path}");
            }
        }
    }

    #[test]
    fn a_devices_name_does_not_change_what_is_done_to_it() {
        for name in ["console-links", "close", "tokens", "audit"] {
            assert_eq!(deed(&Method::DELETE, &format!("/api/v1/devices/{name}")), Deed::Change, "{name}");
            assert_eq!(deed(&Method::GET, &format!("/api/v1/tenants/home/devices/{name}")), Deed::Read, "{name}");
        }
        assert_eq!(deed(&Method::POST, "/devices/close/program"), Deed::Change);
        assert_eq!(deed(&Method::POST, "/close"), Deed::Read, "everybody may leave");
    }
}
