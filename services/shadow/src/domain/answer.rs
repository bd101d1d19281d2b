//! One request against one shadow: what is answered, what is told to others, and what the shadow is afterwards.

use drover_types::limits::SHADOWS_PER_DEVICE_MAX;
use drover_types::shadow::ShadowOperation;
use serde_json::{Value, json};

use super::document::{Shadow, State, stamped_fields};
use super::key::ShadowKey;
use super::rejection::Rejection;
use super::request::{Object, Patch, Payload, Update};

/// What became of a request.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// To whoever asked; JSON.
    pub answer: Vec<u8>,
    /// 0: accepted; else the answer's code.
    pub code: u16,
    /// The shadow afterwards; `None`: it is as before.
    pub after: Option<Shadow>,
    /// To every subscriber: last level of the topic below `…/update/`, and JSON.
    pub notices: Vec<(&'static str, Vec<u8>)>,
    /// For the history: what was set; JSON.
    pub change: Option<Vec<u8>>,
}

/// What a request finds.
#[derive(Clone, Copy, Debug)]
pub struct Found<'s> {
    pub key: &'s ShadowKey,
    pub shadow: Option<&'s Shadow>,
    /// How many shadows the device has, deleted ones among them; asked only where there is none yet.
    pub of_device: usize,
}

/// What `operation` with `payload`, received at `timestamp` (seconds since the Unix epoch), makes of what it finds.
pub fn answer(found: Found<'_>, operation: ShadowOperation, payload: &[u8], timestamp: u64) -> Outcome {
    let (token, outcome) = match Payload::read(payload) {
        Ok(payload) => {
            let envelope = Envelope { timestamp, client_token: payload.client_token.clone() };
            let outcome = match operation {
                ShadowOperation::Get => get(found, &envelope),
                ShadowOperation::Update => payload.update().and_then(|wanted| update(found, &wanted, &envelope)),
                ShadowOperation::Delete => delete(found, &envelope),
            };
            (envelope.client_token, outcome)
        }
        Err(rejection) => (None, Err(rejection)),
    };
    outcome.unwrap_or_else(|rejection| rejected(&rejection, &Envelope { timestamp, client_token: token }))
}

/// What every answer ends with.
struct Envelope {
    timestamp: u64,
    client_token: Option<String>,
}

impl Envelope {
    fn seal(&self, body: Value) -> Vec<u8> {
        let Value::Object(mut body) = body else { return Vec::new() };
        body.insert("timestamp".to_owned(), self.timestamp.into());
        if let Some(token) = &self.client_token {
            body.insert("clientToken".to_owned(), token.as_str().into());
        }
        Value::Object(body).to_string().into_bytes()
    }
}

fn rejected(rejection: &Rejection, envelope: &Envelope) -> Outcome {
    let code = rejection.code();
    let answer = envelope.seal(json!({"code": code, "message": rejection.to_string()}));
    Outcome { answer, code, after: None, notices: Vec::new(), change: None }
}

fn there<'s>(found: Found<'s>) -> Result<(&'s Shadow, &'s State), Rejection> {
    let shadow = found.shadow.and_then(|shadow| Some((shadow, shadow.state.as_ref()?)));
    shadow.ok_or_else(|| Rejection::NotFound { name: found.key.shown().to_owned() })
}

fn get(found: Found<'_>, envelope: &Envelope) -> Result<Outcome, Rejection> {
    let (shadow, state) = there(found)?;
    let answer = envelope.seal(whole(shadow, state));
    Ok(Outcome { answer, code: 0, after: None, notices: Vec::new(), change: None })
}

/// The document with its delta, if there is one.
fn whole(shadow: &Shadow, state: &State) -> Value {
    let mut values = state.values();
    let delta = state.delta().values;
    if !delta.is_empty() {
        values.insert("delta".to_owned(), Value::Object(delta));
    }
    json!({"state": values, "metadata": state.metadata(), "version": shadow.version})
}

impl Shadow {
    /// What `get` is answered with at `timestamp`; `None` if it is deleted.
    pub fn shown(&self, timestamp: u64) -> Option<Vec<u8>> {
        let state = self.state.as_ref()?;
        Some(Envelope { timestamp, client_token: None }.seal(whole(self, state)))
    }
}

fn update(found: Found<'_>, update: &Update, envelope: &Envelope) -> Result<Outcome, Rejection> {
    if found.shadow.is_none() && found.of_device >= SHADOWS_PER_DEVICE_MAX {
        return Err(Rejection::TooManyShadows);
    }
    let after = Shadow::updated(found.shadow, update, envelope.timestamp)?;
    let sent = accepted(update, after.version, envelope.timestamp);
    let mut notices = Vec::new();
    let state = after.state.clone().unwrap_or_default();
    let delta = state.delta();
    if !delta.values.is_empty() {
        let body = json!({"version": after.version, "state": delta.values, "metadata": delta.metadata});
        notices.push(("delta", envelope.seal(body)));
    }
    let body = json!({"previous": snapshot(found.shadow), "current": snapshot(Some(&after))});
    notices.push(("documents", envelope.seal(body)));
    let change = Envelope { timestamp: envelope.timestamp, client_token: None }.seal(sent.clone());
    Ok(Outcome { answer: envelope.seal(sent), code: 0, after: Some(after), notices, change: Some(change) })
}

/// What was sent, with the metadata it got.
fn accepted(update: &Update, version: u64, timestamp: u64) -> Value {
    let (mut values, mut metadata) = (Object::new(), Object::new());
    for (name, patch) in [("desired", &update.desired), ("reported", &update.reported)] {
        if let Some(sent) = patch.as_sent() {
            values.insert(name.to_owned(), sent);
        }
        if let Patch::Merge(fields) = patch {
            metadata.insert(name.to_owned(), Value::Object(stamped_fields(fields, timestamp)));
        }
    }
    json!({"state": values, "metadata": metadata, "version": version})
}

fn snapshot(shadow: Option<&Shadow>) -> Value {
    let state = shadow.and_then(|shadow| shadow.state.as_ref());
    let (values, metadata) = state.map(|state| (state.values(), state.metadata())).unwrap_or_default();
    json!({"state": values, "metadata": metadata, "version": shadow.map_or(0, |shadow| shadow.version)})
}

fn delete(found: Found<'_>, envelope: &Envelope) -> Result<Outcome, Rejection> {
    let (shadow, _) = there(found)?;
    let after = shadow.deleted(envelope.timestamp);
    let body = json!({"version": after.version});
    let change = json!({"state": null, "version": after.version, "timestamp": envelope.timestamp});
    Ok(Outcome {
        answer: envelope.seal(body),
        code: 0,
        after: Some(after),
        notices: Vec::new(),
        change: Some(change.to_string().into_bytes()),
    })
}

#[cfg(test)]
mod tests;
