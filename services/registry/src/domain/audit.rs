//! The audit trail: what a change says of itself, and which entries somebody wants to see.
//!
//! Entries are made by the change feed out of the outbox ([`super::changes`]), so that a write costs nothing more and
//! every write has one.

use std::sync::LazyLock;

use drover_host::actor::ACTOR_BYTES_MAX;
use drover_types::ApiError;
use serde_json::{Map, Value, json};

use super::{Domain, PAGE_BYTES_MAX, Page, PageRequest};
use crate::audit::{Action, Entry, KEPT_MS, Position, UNKNOWN};
use crate::object::{Kind, Object, Spec};
use crate::ports::Change;

/// Paths of one entry; where there are more, [`MORE`] stands behind them.
const PATHS_MAX: usize = 32;
/// Bytes of one path; what is longer ends in [`MORE`].
const PATH_BYTES_MAX: usize = 256;
/// Levels of a path; what differs further down is told by the path of this level.
const LEVELS_MAX: usize = 12;
const MORE: &str = "…";
/// What a name that is not there stands for.
static NULL: Value = Value::Null;
/// Entries read at once.
const LOOK_MAX: usize = 1_000;
/// Reads of one page: it looks at so many times [`LOOK_MAX`] entries, and may then be short.
const LOOKS_MAX: usize = 16;
/// How far clocks of other registry processes may be ahead, milliseconds.
const AHEAD_MS: u64 = 24 * 3600 * 1000;

/// Which entries are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    pub page: PageRequest,
    /// Milliseconds since the Unix epoch; 0: as far back as entries are kept.
    pub from_ms: u64,
    /// Itself left out; 0: up to now.
    pub to_ms: u64,
    pub kind: Option<Kind>,
    /// Of the object, or of the device whose credential it is; empty: any.
    pub name: String,
    /// Empty: anybody.
    pub actor: String,
}

impl Query {
    fn check(&self) -> Result<(), ApiError> {
        for (field, text) in [("name", &self.name), ("actor", &self.actor)] {
            if text.len() > ACTOR_BYTES_MAX {
                return Err(ApiError::invalid(field, "is too long").over(ACTOR_BYTES_MAX, text.len()));
            }
        }
        Ok(())
    }

    fn filters(&self) -> bool {
        self.kind.is_some() || !self.name.is_empty() || !self.actor.is_empty()
    }

    fn wants(&self, entry: &Entry) -> bool {
        let is_named = self.name.is_empty() || self.name == entry.name || entry.device.as_ref() == Some(&self.name);
        is_named
            && self.kind.is_none_or(|kind| kind == entry.kind)
            && (self.actor.is_empty() || self.actor == entry.actor)
    }

    /// Before which entry it begins.
    fn beginning(&self, now_ms: u64) -> Result<Position, ApiError> {
        let latest_ms = now_ms.saturating_add(AHEAD_MS);
        let end = Position::at(if self.to_ms == 0 { latest_ms } else { self.to_ms.min(latest_ms) });
        if self.page.after.is_empty() {
            return Ok(end);
        }
        let after: Position =
            self.page.after.parse().map_err(|_| ApiError::invalid("page_token", "is none of a page before"))?;
        Ok(after.min(end))
    }
}

impl Domain {
    /// Entries of a tenant, newest first. A page may be short, or empty, and still be followed by another: it looks at a
    /// bounded number of entries.
    pub async fn list_audit(&self, query: &Query) -> Result<Page<Entry>, ApiError> {
        query.check()?;
        let (limit, now_ms) = (query.page.limit()?, self.clock.now_ms());
        let oldest_ms = now_ms.saturating_sub(KEPT_MS).max(query.from_ms);
        let mut before = query.beginning(now_ms)?;
        let look = if query.filters() { LOOK_MAX } else { (limit + 1).min(LOOK_MAX) };
        let (mut items, mut bytes) = (Vec::new(), 0);
        for _ in 0..LOOKS_MAX {
            let found = self.store.audit(&query.page.tenant, oldest_ms, &before, look).await?;
            for entry in found.entries {
                let position = entry.position();
                if query.wants(&entry) {
                    bytes += entry.bytes();
                    if items.len() == limit || (bytes > PAGE_BYTES_MAX && !items.is_empty()) {
                        return Ok(Page { items, next: before.to_string() });
                    }
                    items.push(entry);
                }
                before = position;
            }
            match found.next {
                Some(next) => before = next,
                None => return Ok(Page { items, next: String::new() }),
            }
        }
        Ok(Page { items, next: before.to_string() })
    }
}

/// What the trail says of a change; nothing of one that changes nothing anybody sees, as a new master key of a secret.
pub fn entry(change: &Change) -> Option<Entry> {
    let (action, changed) = match (&change.before, &change.after) {
        (None, _) => (Action::Created, Vec::new()),
        (Some(_), None) => (Action::Deleted, Vec::new()),
        (Some(before), Some(after)) => (Action::Updated, paths(before, after)),
    };
    if action == Action::Updated && changed.is_empty() {
        return None;
    }
    let object = change.after.as_ref().or(change.before.as_ref())?;
    let device = object.credential().map(|(credential, _)| credential.device.to_string());
    let actor = if change.actor.is_empty() { UNKNOWN.to_owned() } else { change.actor.clone() };
    Some(Entry {
        tenant: change.key.tenant.clone(),
        time_ms: change.time_ms,
        actor,
        action,
        kind: change.key.kind,
        name: change.key.name.clone(),
        device,
        revision: change.revision,
        changed,
    })
}

/// The paths at which two versions of an object differ, in the order of their names.
fn paths(before: &Object, after: &Object) -> Vec<String> {
    let mut found = Vec::new();
    differences(&shown(before), &shown(after), String::new(), 0, &mut found);
    if found.len() > PATHS_MAX {
        found.truncate(PATHS_MAX);
        found.push(MORE.to_owned());
    }
    found
}

/// What can be seen of an object, as it is declared. Credentials and API tokens never change; what is sealed of them is
/// nobody's to see.
fn shown(object: &Object) -> Value {
    let spec = match &object.spec {
        Spec::Device(spec) => serde_json::to_value(spec),
        Spec::Policy(spec) => serde_json::to_value(spec),
        Spec::Rule(spec) => serde_json::to_value(spec),
        Spec::Function(spec) => serde_json::to_value(spec),
        Spec::CertificateAuthority(spec) => serde_json::to_value(spec),
        Spec::DeviceType(spec) => serde_json::to_value(spec),
        Spec::DeviceGroup(spec) => serde_json::to_value(spec),
        Spec::Credential(_) | Spec::ApiToken(_) => Ok(Value::Null),
    };
    let spec = spec.expect("specs are plain data");
    json!({"metadata": {"labels": object.meta.labels, "owner": object.meta.owner}, "spec": spec})
}

/// Adds the paths below `path` at which two values differ; one more than are shown is enough.
fn differences(before: &Value, after: &Value, path: String, level: usize, found: &mut Vec<String>) {
    if before == after || found.len() > PATHS_MAX {
        return;
    }
    let known = found.len();
    if level < LEVELS_MAX {
        if let Some((before, after)) = objects(before, after) {
            for name in names(before, after) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (before, after) = (before.get(name).unwrap_or(&NULL), after.get(name).unwrap_or(&NULL));
                differences(before, after, path, level + 1, found);
            }
        } else if let (Value::Array(before), Value::Array(after)) = (before, after)
            && before.len() == after.len()
        {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                differences(before, after, format!("{path}[{i}]"), level + 1, found);
            }
        }
    }
    if found.len() == known {
        found.push(shortened(path));
    }
}

/// The members of an object.
type Members = Map<String, Value>;

/// The members of both, if both are objects; what is absent has none.
fn objects<'a>(before: &'a Value, after: &'a Value) -> Option<(&'a Members, &'a Members)> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => Some((before, after)),
        (Value::Null, Value::Object(after)) => Some((none(), after)),
        (Value::Object(before), Value::Null) => Some((before, none())),
        _ => None,
    }
}

fn none() -> &'static Members {
    static NONE: LazyLock<Members> = LazyLock::new(Map::new);
    &NONE
}

/// The names of both, each once, in order.
fn names<'a>(before: &'a Members, after: &'a Members) -> Vec<&'a String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn shortened(mut path: String) -> String {
    if path.len() > PATH_BYTES_MAX {
        path.truncate(path.floor_char_boundary(PATH_BYTES_MAX - MORE.len()));
        path.push_str(MORE);
    }
    path
}

#[cfg(test)]
mod tests;
