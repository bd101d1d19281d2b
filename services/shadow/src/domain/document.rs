//! A shadow's document: two sections of values, each value with the time it was set, and a version.
//!
//! Values and metadata are two trees of one shape: a value has `{"timestamp": seconds}` in its place, an array one for
//! each element. They are only ever changed together.

use drover_types::limits::{SHADOW_STATE_BYTES_MAX, SHADOW_VALUES_MAX};
use serde_json::{Value, json};

use super::rejection::Rejection;
use super::request::{Object, Patch, Update, count_values, json_bytes};

/// A stored document is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("document is not readable: {reason}")]
pub struct Unreadable {
    pub reason: String,
}

/// The last state of one shadow.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// Grows by one with every change, deletion among them; never begins anew.
    pub version: u64,
    /// Of the last change, seconds since the Unix epoch.
    pub timestamp: u64,
    /// `None`: it is deleted.
    pub state: Option<State>,
}

/// What a shadow that is there holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub desired: Section,
    pub reported: Section,
}

/// Values and when each was set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    pub values: Object,
    pub metadata: Object,
}

impl Shadow {
    /// The shadow after `update`, which came at `timestamp`.
    pub fn updated(before: Option<&Shadow>, update: &Update, timestamp: u64) -> Result<Self, Rejection> {
        let version = before.map_or(0, |shadow| shadow.version);
        if update.version.is_some_and(|expected| expected != version) {
            return Err(Rejection::Conflict);
        }
        let mut state = before.and_then(|shadow| shadow.state.clone()).unwrap_or_default();
        state.desired.apply(&update.desired, timestamp);
        state.reported.apply(&update.reported, timestamp);
        state.check()?;
        Ok(Self { version: version + 1, timestamp, state: Some(state) })
    }

    /// The shadow after its deletion at `timestamp`.
    pub fn deleted(&self, timestamp: u64) -> Self {
        Self { version: self.version + 1, timestamp, state: None }
    }

    /// Whether something is desired and not reported so; never of a shadow that is deleted.
    pub fn is_open(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !state.delta().values.is_empty())
    }

    /// The document as it is kept: AWS's, without delta; a deleted one has neither state nor metadata.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { version, timestamp, state } = self;
        let document = match state {
            Some(state) => json!({
                "state": state.values(), "metadata": state.metadata(), "version": version, "timestamp": timestamp,
            }),
            None => json!({"version": version, "timestamp": timestamp}),
        };
        document.to_string().into_bytes()
    }

    /// Reads what [`Shadow::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, Unreadable> {
        let unreadable = |reason: &str| Unreadable { reason: reason.to_owned() };
        let mut document: Object = serde_json::from_slice(json).map_err(|e| unreadable(&e.to_string()))?;
        let number = |name: &str| document.get(name).and_then(Value::as_u64).ok_or_else(|| unreadable(name));
        let (version, timestamp) = (number("version")?, number("timestamp")?);
        let Some(Value::Object(mut values)) = document.shift_remove("state") else {
            return Ok(Self { version, timestamp, state: None });
        };
        let Some(Value::Object(mut metadata)) = document.shift_remove("metadata") else {
            return Err(unreadable("metadata"));
        };
        let mut take = |name: &str| Section { values: part(&mut values, name), metadata: part(&mut metadata, name) };
        Ok(Self { version, timestamp, state: Some(State { desired: take("desired"), reported: take("reported") }) })
    }
}

fn part(sections: &mut Object, name: &str) -> Object {
    match sections.shift_remove(name) {
        Some(Value::Object(fields)) => fields,
        Some(_) | None => Object::new(),
    }
}

impl State {
    /// `{"desired": …, "reported": …}`; an empty section is left out.
    pub fn values(&self) -> Object {
        sections(&self.desired.values, &self.reported.values)
    }

    /// As [`State::values`], with times in the place of values.
    pub fn metadata(&self) -> Object {
        sections(&self.desired.metadata, &self.reported.metadata)
    }

    /// What is desired and not reported so; with when it was desired.
    pub fn delta(&self) -> Section {
        let mut delta = Section::default();
        differences(&self.desired.values, &self.desired.metadata, &self.reported.values, &mut delta);
        delta
    }

    fn check(&self) -> Result<(), Rejection> {
        let bytes = json_bytes(&self.values());
        if bytes > SHADOW_STATE_BYTES_MAX {
            return Err(Rejection::TooLarge { bytes });
        }
        let values = count_values(&self.desired.values) + count_values(&self.reported.values);
        if values > SHADOW_VALUES_MAX {
            return Err(Rejection::TooManyValues { values });
        }
        Ok(())
    }
}

fn sections(desired: &Object, reported: &Object) -> Object {
    let parts = [("desired", desired), ("reported", reported)].into_iter();
    let parts = parts.filter(|(_, fields)| !fields.is_empty());
    parts.map(|(name, fields)| (name.to_owned(), Value::Object(fields.clone()))).collect()
}

impl Section {
    fn apply(&mut self, patch: &Patch, timestamp: u64) {
        match patch {
            Patch::Keep => {}
            Patch::Clear => *self = Self::default(),
            Patch::Merge(fields) => merge(&mut self.values, &mut self.metadata, fields, timestamp),
        }
    }
}

/// Field by field: `null` deletes, objects are merged, everything else replaces. An object left empty vanishes.
fn merge(values: &mut Object, metadata: &mut Object, patch: &Object, timestamp: u64) {
    for (name, value) in patch {
        match value {
            Value::Null => remove(values, metadata, name),
            Value::Object(fields) => {
                // The time of a value is an object as well: it goes with the value.
                if !values.get(name).is_some_and(Value::is_object) {
                    remove(values, metadata, name);
                }
                let inner = object_at(values, name);
                merge(inner, object_at(metadata, name), fields, timestamp);
                if inner.is_empty() {
                    remove(values, metadata, name);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                values.insert(name.clone(), value.clone());
                metadata.insert(name.clone(), stamped(value, timestamp));
            }
        }
    }
}

fn remove(values: &mut Object, metadata: &mut Object, name: &str) {
    values.shift_remove(name);
    metadata.shift_remove(name);
}

/// The object of this name; whatever else is there gives way to an empty one.
fn object_at<'o>(fields: &'o mut Object, name: &str) -> &'o mut Object {
    let place = fields.entry(name).or_insert(Value::Null);
    if !place.is_object() {
        *place = Value::Object(Object::new());
    }
    place.as_object_mut().expect("made an object above")
}

/// The metadata of a value set at `timestamp`. What a request deletes has none.
pub fn stamped(value: &Value, timestamp: u64) -> Value {
    match value {
        Value::Object(fields) => Value::Object(stamped_fields(fields, timestamp)),
        Value::Array(items) => items.iter().map(|item| stamped(item, timestamp)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!({"timestamp": timestamp}),
    }
}

/// [`stamped`] for each field that is set.
pub fn stamped_fields(fields: &Object, timestamp: u64) -> Object {
    let set = fields.iter().filter(|(_, value)| !value.is_null());
    set.map(|(name, value)| (name.clone(), stamped(value, timestamp))).collect()
}

fn differences(desired: &Object, metadata: &Object, reported: &Object, delta: &mut Section) {
    for (name, wanted) in desired {
        let set = metadata.get(name).cloned().unwrap_or_default();
        let (value, set) = match (wanted, &set, reported.get(name)) {
            (Value::Object(wanted), Value::Object(set), Some(Value::Object(there))) => {
                let mut inner = Section::default();
                differences(wanted, set, there, &mut inner);
                if inner.values.is_empty() {
                    continue;
                }
                (Value::Object(inner.values), Value::Object(inner.metadata))
            }
            (wanted, _, Some(there)) if same(wanted, there) => continue,
            (wanted, _, _) => (wanted.clone(), set),
        };
        delta.values.insert(name.clone(), value);
        delta.metadata.insert(name.clone(), set);
    }
}

/// Whether two values are one: numbers by what they amount to (`21` is `21.0`), objects in any order.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (one, other) => one == other,
    }
}
