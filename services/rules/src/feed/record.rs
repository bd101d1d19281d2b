//! Reads the records of the registry's feed that are about rules and functions.

use std::collections::HashMap;

use bytes::Bytes;
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
            | object::Object::Function(_)
            | object::Object::CertificateAuthority(_)
            | object::Object::DeviceType(_)
            | object::Object::DeviceGroup(_),
        )
        | None => Word::Gone,
    })
}

/// What the feed says of each key, in the order of the log, as one: functions first, then rules by the time of each record,
/// so that a topic that two tenants want is the same one's after every start. Compaction may have taken what was said
/// before the first record of a key: that one stands where its rule was made.
pub fn in_order(said: HashMap<Option<Bytes>, Vec<Record>>) -> Vec<Record> {
    let mut all = Vec::new();
    for (key, records) in said {
        let is_rule = key.as_ref().is_some_and(|key| key.starts_with(b"rule/"));
        let mut at_ms = 0;
        for (number, record) in records.into_iter().enumerate() {
            let own_ms = if number == 0 { made_ms(&record) } else { u64::try_from(record.timestamp_ms).unwrap_or(0) };
            // The order of a key is that of the log, whatever clocks have said.
            at_ms = own_ms.max(at_ms);
            all.push(((is_rule, at_ms, key.clone(), number), record));
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.into_iter().map(|(_, record)| record).collect()
}

/// When a rule was made, milliseconds since the Unix epoch; 0 for everything else.
fn made_ms(record: &Record) -> u64 {
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
