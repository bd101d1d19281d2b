//! What the templates of `templates/` are filled with.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use drover_snippets::Language;
use drover_types::{ApiError, ErrorCode};

use super::assets;
use crate::domain::status::Phase;

/// What every page of a session has.
pub struct Page {
    pub version: &'static str,
    pub tenant: String,
    pub csrf: String,
    pub editor: bool,
    /// Which entry of the navigation is here.
    pub place: &'static str,
}

/// A device as lists and heads show it.
pub struct Shown {
    pub name: String,
    pub phase: Phase,
    /// When it last connected or disconnected, ISO 8601.
    pub since: Option<String>,
    /// When it did that or sent something, whichever is later, ISO 8601.
    pub last_seen: Option<String>,
    pub kind: Option<String>,
}

#[derive(Template)]
#[template(path = "devices.html")]
pub struct Devices {
    pub page: Page,
    pub devices: Vec<Shown>,
    pub first: bool,
    pub next: Option<String>,
}

/// The newest value of a field.
pub struct Value {
    pub field: String,
    pub text: String,
    pub number: bool,
    /// ISO 8601.
    pub time: String,
}

#[derive(Template)]
#[template(path = "device.html")]
pub struct Device {
    pub page: Page,
    pub device: Shown,
    pub values: Vec<Value>,
    /// When its last message came, ISO 8601.
    pub heard: Option<String>,
    pub policies: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub attributes: Vec<(String, String)>,
    pub created: Option<String>,
}

#[derive(Template)]
#[template(path = "live.html")]
pub struct Live {
    pub page: Page,
    pub filter: String,
}

#[derive(Template)]
#[template(path = "connect.html")]
pub struct Connect {
    pub page: Page,
    pub name: String,
    pub error: Option<String>,
}

/// A program in one language.
pub struct Program {
    pub id: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    pub text: String,
}

impl Program {
    /// The program of a device in `language`.
    pub fn new(language: Language, access: &drover_snippets::Access) -> Self {
        Self { id: language.name(), title: language.title(), about: language.about(), text: language.program(access) }
    }
}

#[derive(Template)]
#[template(path = "program.html")]
pub struct Programs {
    pub page: Page,
    pub name: String,
    pub programs: Vec<Program>,
    pub mqtt: String,
    pub mqtts: String,
    pub http: String,
    pub user_name: String,
    pub token: String,
}

/// What a page without a session says.
enum Plain {
    SignIn,
    Opening,
    Said(String),
}

#[derive(Template)]
#[template(path = "plain.html")]
struct PlainPage {
    version: &'static str,
    title: &'static str,
    kind: Plain,
}

/// The page of a template.
pub fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn plain(status: StatusCode, title: &'static str, kind: Plain) -> Response {
    (status, html(&PlainPage { version: &assets::VERSION, title, kind })).into_response()
}

/// How to get a session; 401.
pub fn sign_in() -> Response {
    plain(StatusCode::UNAUTHORIZED, "Sign in", Plain::SignIn)
}

/// Exchanges the code of the link.
pub fn opening() -> Response {
    plain(StatusCode::OK, "Opening the console", Plain::Opening)
}

/// An error as a page.
pub fn failure(error: ApiError) -> Response {
    let title = match error.code {
        ErrorCode::NotFound => "Not found",
        ErrorCode::PermissionDenied => "Not allowed",
        ErrorCode::Unavailable | ErrorCode::DeadlineExceeded => "Not available now",
        ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition | ErrorCode::OutOfRange => "That cannot be",
        ErrorCode::Cancelled
        | ErrorCode::Unknown
        | ErrorCode::AlreadyExists
        | ErrorCode::ResourceExhausted
        | ErrorCode::Aborted
        | ErrorCode::Unimplemented
        | ErrorCode::Internal
        | ErrorCode::DataLoss
        | ErrorCode::Unauthenticated => "That did not work",
    };
    let status = StatusCode::from_u16(error.code.http()).expect("codes map to valid statuses");
    plain(status, title, Plain::Said(error.message))
}
