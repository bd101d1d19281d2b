//! The REST interface as functions: JSON in, JSON or one clear error out.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use drover_types::{ApiError, ErrorCode, TenantId};
use serde_json::Value;

/// Longest answer read, in bytes: a page of 1,000 rules with long SQL.
const ANSWER_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Objects asked for at once when all are wanted: the most the server gives.
const PAGE_ITEMS: &str = "1000";
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take; revocations wait for every node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot read the admin token {}: {reason}; run this where `drover up` runs, or use --token-file or DROVER_TOKEN",
        file.display()
    )]
    Token { file: PathBuf, reason: io::Error },
    #[error("no platform answers at {server}: {reason}; start one with `drover up`, or name another with --server")]
    Unreachable { server: String, reason: String },
    #[error("{server} refuses the token: {message}; is it one of this platform? (--token-file, DROVER_TOKEN)")]
    Unauthenticated { server: String, message: String },
    #[error("{}", told(.0))]
    Refused(ApiError),
    #[error("{server} answered HTTP {status}, which is no answer of a Drover gateway; check --server")]
    Foreign { server: String, status: u16 },
    #[error("--tenant: {0}")]
    Tenant(drover_types::InvalidId),
}

/// `field: message (limit …, was …)`.
fn told(error: &ApiError) -> String {
    let field = error.field.as_ref().map_or(String::new(), |field| format!("{field}: "));
    let limit = error.limit.as_ref().map_or(String::new(), |limit| match &error.value {
        Some(value) => format!(" (limit {limit}, was {value})"),
        None => format!(" (limit {limit})"),
    });
    format!("{field}{}{limit}", error.message)
}

/// One tenant of one platform.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    server: String,
    token: String,
    pub tenant: TenantId,
}

impl Client {
    /// A client of `server` (`http://host:port`); nothing is sent yet.
    pub fn new(server: &str, token: &str, tenant: &str) -> Result<Self, ClientError> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT_TIMEOUT));
        Ok(Self {
            agent: config.build().into(),
            server: server.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            tenant: TenantId::new(tenant).map_err(ClientError::Tenant)?,
        })
    }

    /// The same platform, another tenant.
    pub fn about(&self, tenant: &str) -> Result<Self, ClientError> {
        Ok(Self { tenant: TenantId::new(tenant).map_err(ClientError::Tenant)?, ..self.clone() })
    }

    /// One object.
    pub fn get(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.answer("GET", self.url(path, &[]), None)
    }

    /// An answer that a query narrows down.
    pub fn query(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.answer("GET", self.url(path, query), None)
    }

    /// The first page of a collection, or all of it: `{"items": […]}`, with `nextPageToken` if there is more.
    pub fn list(&self, path: &[&str], all: bool) -> Result<Value, ClientError> {
        self.chosen(path, &[], all)
    }

    /// [`Client::list`] of what a query chooses.
    pub fn chosen(&self, path: &[&str], query: &[(&str, &str)], all: bool) -> Result<Value, ClientError> {
        if !all {
            return self.answer("GET", self.url(path, query), None);
        }
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let place = [("pageSize", PAGE_ITEMS), ("pageToken", token.as_str())];
            let mut page = self.answer("GET", self.url(path, &[query, &place].concat()), None)?;
            items.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return Ok(serde_json::json!({"items": items})),
            }
        }
    }

    /// Makes something new in a collection.
    pub fn post(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.answer("POST", self.url(path, &[]), Some(body.to_string()))
    }

    /// As [`Client::post`], of JSON that is sent as it stands, under a key by which the server knows it when it is sent again; the
    /// server may wait for so long before it answers.
    pub fn post_waiting(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        json: String,
        key: Option<&str>,
        wait: Duration,
    ) -> Result<Value, ClientError> {
        let mut request = self.request("POST", self.url(path, query));
        if let Some(key) = key {
            // As the draft of the IETF has it: a string, in quotation marks.
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        self.read(self.run(request, Some(json), Some(ANSWER_TIMEOUT + wait))?)
    }

    /// Changes an object by JSON that is sent as it stands.
    pub fn patch(&self, path: &[&str], json: String) -> Result<Value, ClientError> {
        self.answer("PATCH", self.url(path, &[]), Some(json))
    }

    /// Makes or replaces an object.
    pub fn put(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.answer("PUT", self.url(path, &[]), Some(body.to_string()))
    }

    /// Deletes an object; `null` if the answer has nothing to say.
    pub fn delete(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.answer("DELETE", self.url(path, &[]), None)
    }

    /// A stream of server-sent events.
    pub fn stream(&self, query: &[(&str, &str)]) -> Result<Box<dyn Read + Send>, ClientError> {
        let response = self.send("GET", self.url(&["stream"], query), None, None)?;
        if response.status().is_success() {
            return Ok(Box::new(response.into_body().into_reader()));
        }
        self.read(response).map(|_| Box::new(io::empty()) as Box<dyn Read + Send>)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> String {
        let mut url = format!("{}/api/v1/tenants/{}", self.server, self.tenant);
        for segment in path {
            url.push('/');
            url.push_str(&escaped(segment));
        }
        for (i, (name, value)) in query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(&format!("{name}={}", escaped(value)));
        }
        url
    }

    fn answer(&self, method: &str, url: String, body: Option<String>) -> Result<Value, ClientError> {
        self.read(self.send(method, url, body, Some(ANSWER_TIMEOUT))?)
    }

    fn send(
        &self,
        method: &str,
        url: String,
        body: Option<String>,
        timeout: Option<Duration>,
    ) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
        self.run(self.request(method, url), body, timeout)
    }

    fn request(&self, method: &str, url: String) -> ureq::http::request::Builder {
        ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
    }

    fn run(
        &self,
        request: ureq::http::request::Builder,
        body: Option<String>,
        timeout: Option<Duration>,
    ) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
        let unreachable =
            |error: ureq::Error| ClientError::Unreachable { server: self.server.clone(), reason: error.to_string() };
        let request = request.body(body.unwrap_or_default()).map_err(|error| unreachable(error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request).map_err(unreachable)
    }

    fn read(&self, mut response: ureq::http::Response<ureq::Body>) -> Result<Value, ClientError> {
        let status = response.status();
        let foreign = || ClientError::Foreign { server: self.server.clone(), status: status.as_u16() };
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(|_| foreign())?;
        if status.is_success() && text.is_empty() {
            return Ok(Value::Null);
        }
        let mut json: Value = serde_json::from_str(&text).map_err(|_| foreign())?;
        if status.is_success() {
            return Ok(json);
        }
        let error: ApiError = serde_json::from_value(json["error"].take()).map_err(|_| foreign())?;
        Err(match error.code {
            ErrorCode::Unauthenticated => {
                ClientError::Unauthenticated { server: self.server.clone(), message: error.message }
            }
            _ => ClientError::Refused(error),
        })
    }
}

impl ClientError {
    /// Whether the server refused with this code.
    pub fn is(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Refused(error) if error.code == code)
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        let client = Client::new("http://h:1/", "t", "home").expect("valid");
        assert_eq!(client.url(&["devices", "a/b?c"], &[]), "http://h:1/api/v1/tenants/home/devices/a%2Fb%3Fc");
        assert_eq!(
            client.url(&["stream"], &[("filter", "a/+/#")]),
            "http://h:1/api/v1/tenants/home/stream?filter=a%2F%2B%2F%23"
        );
    }

    #[test]
    fn nobody_at_the_address_is_one_line_that_says_what_to_do() {
        // Port 9 (discard) of this machine: nobody listens.
        let client = Client::new("http://127.0.0.1:9", "t", "home").expect("valid");
        let line = client.get(&["devices"]).expect_err("nobody").to_string();
        assert!(line.starts_with("no platform answers at http://127.0.0.1:9: "), "{line}");
        assert!(line.contains("drover up") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn an_error_is_told_with_its_field_and_limit() {
        let error = ApiError::invalid("spec.sql", "sql is too long").over(65_536, 70_000);
        assert_eq!(told(&error), "spec.sql: sql is too long (limit 65536, was 70000)");
        assert_eq!(told(&ApiError::new(ErrorCode::NotFound, "gone")), "gone");
    }
}
