//! Configuration in layers: defaults, then a TOML file, then `DROVER_<SECTION>__<KEY>`, then `--set`; later ones win.
//!
//! Each section is deserialised into the one struct of its owner; a key nobody knows is refused, never skipped.

mod cassandra;
mod error;
mod jwt;
mod kafka;
mod network;
mod shared;
mod unknown;

use std::path::Path;

use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider, Source};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ServiceConfig;

pub use cassandra::{CassandraConfig, CassandraTls};
pub use error::ConfigError;
pub use jwt::{JwtIssuer, JwtKeys};
pub use kafka::{ClientOptions, KafkaConfig};
pub use network::NetworkConfig;
pub use shared::{
    AdminConfig, Anonymous, BusConfig, BusKind, LogConfig, LogFormat, OtlpConfig, ProcessConfig, Secret,
    SecurityConfig, Shared,
};
pub use unknown::{UnknownKey, UnknownKeys};

/// Variables that begin so and name a section and a key configure; others (`DROVER_SERVER`) belong to the client.
const ENV_PREFIX: &str = "DROVER_";
const ENV_SEPARATOR: &str = "__";
const FLAG: &str = "--set";

/// All layers, merged; sections are taken from it one by one.
#[derive(Clone, Debug)]
pub struct Layers(Figment);

/// One `--set SECTION.KEY=VALUE`; the value is TOML, or else a plain string.
#[derive(Clone, Debug)]
pub struct Setting {
    key: String,
    value: toml::Value,
}

impl Setting {
    /// What a flag of its own sets.
    pub fn new(key: &str, value: impl Serialize) -> Self {
        Self { key: key.to_owned(), value: toml::Value::try_from(value).expect("a flag's value is plain data") }
    }
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("is not SECTION.KEY=VALUE")?;
        if key.split('.').count() < 2 || key.split('.').any(str::is_empty) {
            return Err("is not SECTION.KEY=VALUE".to_owned());
        }
        let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        Ok(Self { key: key.to_owned(), value })
    }
}

struct Settings<'a>(&'a [Setting]);

impl Provider for Settings<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(FLAG)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let mut table = toml::Table::new();
        for setting in self.0 {
            insert(&mut table, &setting.key, setting.value.clone());
        }
        Ok(Map::from([(Profile::Default, figment::value::Value::serialize(table)?.into_dict().unwrap_or_default())]))
    }
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
    if let toml::Value::Table(inner) = inner {
        insert(inner, rest, value);
    }
}

impl Layers {
    /// Reads `file`, the environment and `settings`.
    pub fn load(file: Option<&Path>, settings: &[Setting]) -> Result<Self, ConfigError> {
        let mut layers = Figment::new();
        if let Some(path) = file {
            check_syntax(path)?;
            layers = layers.merge(Toml::file_exact(path));
        }
        let env = Env::prefixed(ENV_PREFIX).filter(|key| key.as_str().contains(ENV_SEPARATOR)).split(ENV_SEPARATOR);
        Ok(Self(layers.merge(env).merge(Settings(settings))))
    }

    /// Adds a layer below all others: defaults that depend on where and how the process runs.
    pub fn with_default(self, key: &str, value: impl Serialize) -> Self {
        Self(self.0.join(Serialized::default(key, value)))
    }

    /// Replaces what the layers say of `key`.
    pub fn with_override(self, key: &str, value: impl Serialize) -> Self {
        Self(self.0.merge(Serialized::default(key, value)))
    }

    /// The section `name`; what no layer sets has its default.
    pub fn section<T: Serialize + DeserializeOwned + Default>(&self, name: &str) -> Result<T, ConfigError> {
        let Ok(given) = self.0.find_value(name) else { return Ok(T::default()) };
        self.unknown_keys::<T>(name).refuse()?;
        given.deserialize().map_err(|error| self.refuse(name, error))
    }

    /// A service's section, its rules across fields included.
    pub fn service<T: ServiceConfig>(&self, name: &str) -> Result<T, ConfigError> {
        let section: T = self.section(name)?;
        section.check().map_err(|error| {
            let key = error.field.clone().unwrap_or_else(|| name.to_owned());
            ConfigError::Value { origin: self.origin(&key), key, reason: error.message }
        })?;
        Ok(section)
    }

    /// The error of a key that has to be set.
    pub fn missing(&self, key: &str, reason: String) -> ConfigError {
        ConfigError::Value { origin: self.origin(key), key: key.to_owned(), reason }
    }

    /// The error with the whole key.
    fn refuse(&self, section: &str, error: figment::Error) -> ConfigError {
        let path = std::iter::once(section.to_owned()).chain(error.path).filter(|part| !part.is_empty());
        let key = path.collect::<Vec<_>>().join(".");
        ConfigError::Value { origin: self.origin(&key), key, reason: error.kind.to_string() }
    }

    /// Who set `key`: the file, the variable or the flag.
    fn origin(&self, key: &str) -> String {
        match self.0.find_metadata(key) {
            Some(Metadata { source: Some(Source::File(path)), .. }) => path.display().to_string(),
            Some(layer) if layer.name == FLAG => FLAG.to_owned(),
            Some(layer) if layer.name.contains("environment") => {
                format!("environment {ENV_PREFIX}{}", key.to_uppercase().replace('.', ENV_SEPARATOR))
            }
            Some(_) | None => "configuration".to_owned(),
        }
    }
}

/// Figment reads the file again; this pass is for an error of one line that says where.
fn check_syntax(path: &Path) -> Result<(), ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str::<toml::Table>(&text).map(|_| ()).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start)];
        let line = before.matches('\n').count() + 1;
        let reason = error.message().replace('\n', ", ");
        ConfigError::Malformed { path: path.to_owned(), line, reason }
    })
}

/// Sections as TOML, as `--print-config` shows them; options that are not set are left out.
pub fn print(sections: Vec<(&'static str, Value)>) -> String {
    let sections: serde_json::Map<String, Value> =
        sections.into_iter().map(|(name, section)| (name.to_owned(), without_null(section))).collect();
    toml::to_string(&Value::Object(sections)).expect("without nulls, JSON is TOML")
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_null(v))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => value,
    }
}

#[cfg(test)]
mod tests;
