//! The console: pages made by the server, small scripts beside them, nothing from other hosts.
//!
//! Server layer. Pages read through the same services as the REST interface; their scripts use the REST interface.

mod assets;
mod connect;
mod login;
mod pages;
mod templates;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};

use super::Api;
pub use login::{__path_invite, invite, session_secret};
pub use templates::{failure, sign_in};

/// Where the one-time link points to, and where its code is exchanged.
pub const OPEN: &str = "/open";
/// Where a session ends.
pub const CLOSE: &str = "/close";
/// Prefix of everything that never changes and that everybody may have.
pub const ASSETS: &str = "/assets/";
/// Pages that are there only for who has a session.
const PAGES: [&str; 4] = ["/", "/live", "/connect", CLOSE];
/// Nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// The routes of the console.
pub fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(pages::devices))
        .route("/live", get(pages::live))
        .route("/devices/{device}", get(pages::device))
        .route("/devices/{device}/program", post(connect::program))
        .route("/connect", get(connect::form).post(connect::create))
        .route(OPEN, get(login::page).post(login::open))
        .route(CLOSE, post(login::close))
        .route("/assets/{version}/{*file}", get(assets::get))
        .layer(axum::middleware::from_fn(protect))
}

/// Whether a path is a page for people.
pub fn is_page(path: &str) -> bool {
    PAGES.contains(&path) || path.starts_with("/devices/")
}

/// Headers that every page has; what is no asset is not kept by anybody.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Not `no-referrer`: with it browsers send the origin of a form as `null`, which is nobody's.
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    headers.extend(fixed);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
