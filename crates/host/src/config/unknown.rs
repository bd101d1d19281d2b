//! Keys that nobody knows: all of them are found, so that a file is mended in one go.
//!
//! A struct refuses its first unknown key only; so each is noted, taken out, and the rest is read again.

use std::collections::BTreeMap;
use std::fmt;

use figment::error::Kind;
use figment::value::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ConfigError, Layers};

/// Unknown keys told of one section; a section with more is no configuration at all.
const TOLD_MAX: usize = 100;

/// A key that nobody knows, who set it, and the most similar known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    pub origin: String,
    pub key: String,
    pub nearest: Option<String>,
}

/// One or more of them, in the order in which they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownKeys(pub Vec<UnknownKey>);

impl UnknownKeys {
    /// An error, unless there are none.
    pub fn refuse(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::Unknown(self)) }
    }
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unknown key {}", self.origin, self.key)?;
        self.nearest.iter().try_for_each(|nearest| write!(f, "; did you mean {nearest}?"))
    }
}

/// One key is one line; more are listed below their number.
impl fmt::Display for UnknownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [key] = self.0.as_slice() {
            return key.fmt(f);
        }
        write!(f, "{} unknown keys:", self.0.len())?;
        self.0.iter().try_for_each(|key| write!(f, "\n  {key}"))
    }
}

impl Layers {
    /// Sections that are not among `known`.
    pub fn unknown_sections(&self, known: &[&str]) -> Result<UnknownKeys, ConfigError> {
        let given: BTreeMap<String, serde_json::Value> = self.0.extract().map_err(|error| self.refuse("", error))?;
        let unknown = given.keys().filter(|section| !known.contains(&section.as_str()));
        Ok(UnknownKeys(unknown.map(|section| self.unknown(section, section, known.iter().copied())).collect()))
    }

    /// Keys of the section `name` that are not known to `T`. A wrong value is not told here: [`Layers::section`] does.
    pub fn unknown_keys<T: Serialize + DeserializeOwned>(&self, name: &str) -> UnknownKeys {
        let mut unknown = UnknownKeys::default();
        let Ok(mut given) = self.0.find_value(name) else { return unknown };
        while unknown.0.len() < TOLD_MAX {
            let error = match given.deserialize::<T>() {
                Ok(section) => {
                    let known = serde_json::to_value(&section).expect("a configuration is plain data");
                    let given = serde_json::to_value(&given).expect("a configuration is plain data");
                    self.compare(name, &given, &known, &mut unknown);
                    break;
                }
                Err(error) => error,
            };
            let Kind::UnknownField(key, known) = &error.kind else { break };
            let Some(path) = take_out(&mut given, &error.path, key) else { break };
            unknown.0.push(self.unknown(&format!("{name}.{path}"), key, known.iter().copied()));
        }
        unknown
    }

    /// Says of `section.key`, which the section's owner does not know, who set it and what it may have been meant to be.
    pub fn unknown_key(&self, section: &str, key: &str, known: &[&str]) -> UnknownKey {
        self.unknown(&format!("{section}.{key}"), key, known.iter().copied())
    }

    /// Adds what was given but did not arrive in the struct: where a struct does not refuse by itself.
    fn compare(&self, path: &str, given: &serde_json::Value, known: &serde_json::Value, unknown: &mut UnknownKeys) {
        let (serde_json::Value::Object(given), serde_json::Value::Object(known)) = (given, known) else { return };
        for (key, value) in given {
            let path = format!("{path}.{key}");
            match known.get(key) {
                Some(known) => self.compare(&path, value, known, unknown),
                None => unknown.0.push(self.unknown(&path, key, known.keys().map(String::as_str))),
            }
        }
    }

    fn unknown<'a>(&self, path: &str, key: &str, known: impl Iterator<Item = &'a str>) -> UnknownKey {
        let distance = |candidate: &&str| strsim::damerau_levenshtein(key, candidate);
        // Half of the letters right: anything less is no slip of the fingers.
        let nearest = known.min_by_key(distance).filter(|nearest| distance(nearest) * 2 <= key.chars().count());
        let nearest = nearest.map(str::to_owned);
        UnknownKey { origin: self.origin(path), key: path.to_owned(), nearest }
    }
}

/// Removes `key`, which is at the end of `path` or somewhere below it; where it was.
fn take_out(value: &mut Value, path: &[String], key: &str) -> Option<String> {
    let Value::Dict(_, dict) = value else { return None };
    let Some((step, rest)) = path.split_first() else { return take_out_below(value, key) };
    if rest.is_empty() && step == key {
        return dict.remove(key).map(|_| key.to_owned());
    }
    Some(format!("{step}.{}", take_out(dict.get_mut(step)?, rest, key)?))
}

/// Not every reader says where it was: the ones of tagged enums do not.
fn take_out_below(value: &mut Value, key: &str) -> Option<String> {
    let Value::Dict(_, dict) = value else { return None };
    if dict.remove(key).is_some() {
        return Some(key.to_owned());
    }
    dict.iter_mut().find_map(|(step, inner)| Some(format!("{step}.{}", take_out_below(inner, key)?)))
}
