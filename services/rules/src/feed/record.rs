//! Reads the records of the registry's feed that are about rules and functions.

use drover_bus::Record;
use drover_proto::registry::v1::{Change, object};
use drover_proto::types::v1 as wire;
use drover_types::object::FunctionSpec;
use drover_types::{ApiError, TenantId};
use prost::Message as _;

use crate::domain::RuleKey;

/// What a record of the feed says about a rule.
pub enum Word {
    Put(Box<wire::Rule>),
    Gone,
}

/// Tenant and name, if the record is about an object of the kind whose keys begin so.
pub fn key_of(prefix: &str, record: &Record) -> Option<RuleKey> {
    let key = std::str::from_utf8(record.key.as_ref()?).ok()?;
    let (tenant, name) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((TenantId::new(tenant).ok()?, name.to_owned()))
}

/// What a record says of a rule.
pub fn word(record: &Record) -> Result<Word, prost::DecodeError> {
    let Some(value) = &record.value else { return Ok(Word::Gone) };
    let after = Change::decode(value.clone())?.after.and_then(|after| after.object);
    Ok(match after {
        Some(object::Object::Rule(rule)) => Word::Put(Box::new(rule)),
        Some(
            object::Object::Device(_)
            | object::Object::Credential(_)
            | object::Object::Policy(_)
            | object::Object::ApiToken(_)
            | object::Object::Function(_),
        )
        | None => Word::Gone,
    })
}

/// When a rule was made, milliseconds since the Unix epoch; 0 for everything else.
pub fn made_ms(record: &Record) -> u64 {
    match word(record) {
        Ok(Word::Put(rule)) => rule.meta.as_ref().map_or(0, |meta| meta.created_ms),
        Ok(Word::Gone) | Err(_) => 0,
    }
}

/// What a record of the feed says of a function; `None`: it is gone.
pub fn function(record: &Record) -> Result<Option<FunctionSpec>, ApiError> {
    let Some(value) = &record.value else { return Ok(None) };
    let change = Change::decode(value.clone()).map_err(|error| ApiError::invalid("value", error.to_string()))?;
    match change.after.and_then(|after| after.object) {
        Some(object::Object::Function(function)) => Ok(Some(FunctionSpec::try_from(&function)?)),
        Some(_) | None => Ok(None),
    }
}
