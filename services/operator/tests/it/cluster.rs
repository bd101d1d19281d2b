//! An API server that follows a script: each call has one answer, and what was called is told afterwards.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What was called, and with what.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

/// The script and the record. Cheap to clone.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: HashMap<(Method, String), (u16, Value)>,
    calls: Vec<Call>,
}

impl Cluster {
    /// From now on this call is answered so.
    pub fn answers(&self, method: Method, path: &str, status: u16, body: Value) {
        self.0.lock().unwrap().answers.insert((method, path.to_owned()), (status, body));
    }

    /// A client of this API server.
    pub fn client(&self) -> Client {
        let state = self.0.clone();
        let serve = move |request: Request<Body>| {
            let state = state.clone();
            async move { Ok::<_, Infallible>(answer(&state, request).await) }
        };
        Client::new(tower::service_fn(serve), "default")
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// The calls since the last time that write, Events aside; and the Events.
    pub fn writes(&self) -> (Vec<Call>, Vec<Call>) {
        let writes = self.calls().into_iter().filter(|call| call.method != Method::GET);
        writes.partition(|call| !call.path.contains("/events"))
    }
}

/// By the script; what it does not speak of is not there, and what is written is answered as it came.
async fn answer(state: &Mutex<State>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (method, path) = (head.method, head.uri.path().to_owned());
    let query = head.uri.query().unwrap_or_default().to_owned();
    let mut state = state.lock().unwrap();
    state.calls.push(Call { method: method.clone(), path: path.clone(), query, body: body.clone() });
    let scripted = state.answers.get(&(method.clone(), path)).cloned();
    let (status, body) = scripted.unwrap_or_else(|| match method {
        Method::GET => (404, refusal(404, "NotFound")),
        _ => (200, body),
    });
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string().into_bytes())).expect("a response")
}

/// A `Status` of the API server that says no.
pub fn refusal(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": reason,
    })
}
