//! The values of the registry's rows.

use drover_proto::registry::v1 as registry;
use drover_scylla_kit::Failure;
use drover_types::{TenantId, fnv1a};
use prost::Message;

use crate::object::{Kind, Object, ObjectKey};
use crate::ports::{Change, StoreError};
use crate::wire;

/// Partitions over which devices and credentials of a tenant are spread: with ten million devices each has some
/// 300,000 rows. A list reads all of them, so there are not more.
const SHARDS: u32 = 32;
/// Partitions over which the sessions of one partition of the event log are spread.
pub const SESSION_SHARDS: i32 = 16;

/// The partitions that hold a kind's lists. The others are few: one.
pub fn shards(kind: Kind) -> i32 {
    match kind {
        Kind::Device | Kind::Credential => SHARDS.cast_signed(),
        Kind::Policy
        | Kind::Rule
        | Kind::ApiToken
        | Kind::Function
        | Kind::CertificateAuthority
        | Kind::DeviceType
        | Kind::DeviceGroup => 1,
    }
}

/// The partition that lists an object. Never changes: rows would not be found any more.
pub fn shard(key: &ObjectKey) -> i32 {
    match key.kind {
        Kind::Device | Kind::Credential => (hash(&[&key.name]) % SHARDS).cast_signed(),
        Kind::Policy
        | Kind::Rule
        | Kind::ApiToken
        | Kind::Function
        | Kind::CertificateAuthority
        | Kind::DeviceType
        | Kind::DeviceGroup => 0,
    }
}

/// The partition that holds the sessions of a device.
pub fn session_shard(tenant: &str, device: &str) -> i32 {
    (hash(&[tenant, device]) % SESSION_SHARDS.cast_unsigned()).cast_signed()
}

/// The same for ever, on every machine.
fn hash(parts: &[&str]) -> u32 {
    fnv1a(parts.iter().flat_map(|part| part.bytes().chain([0])))
}

/// The kind of a row.
pub fn kind(text: &str) -> Result<Kind, StoreError> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| corrupt(format!("kind {text:?}")))
}

/// The key of a row.
pub fn key(kind_text: &str, tenant: &str, name: String) -> Result<ObjectKey, StoreError> {
    Ok(ObjectKey::new(kind(kind_text)?, &TenantId::new(tenant).map_err(corrupt)?, name))
}

pub fn write_object(object: &Object) -> Vec<u8> {
    wire::encode(object).encode_to_vec()
}

/// The object of a row that holds its revision besides: a credential's message has none.
pub fn read_object(bytes: &[u8], revision: i64) -> Result<Object, StoreError> {
    let mut object = decode_object(bytes)?;
    object.meta.revision = number(revision)?;
    Ok(object)
}

pub fn decode_object(bytes: &[u8]) -> Result<Object, StoreError> {
    let message = registry::Object::decode(bytes).map_err(corrupt)?;
    wire::decode(&message).map_err(corrupt)
}

pub fn write_change(change: &Change) -> Vec<u8> {
    wire::encode_change(change).encode_to_vec()
}

pub fn read_change(bytes: &[u8]) -> Result<Change, StoreError> {
    wire::decode_change(&registry::Change::decode(bytes).map_err(corrupt)?).map_err(corrupt)
}

/// A number as the database keeps it; what is larger than it can keep becomes the largest it can.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn number(signed: i64) -> Result<u64, StoreError> {
    u64::try_from(signed).map_err(|_| corrupt(format!("{signed} is below zero")))
}

pub fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            // A refusal has a cause outside as well: a right taken away, a table dropped by hand.
            Failure::Unavailable { .. } | Failure::Refused { .. } => {
                StoreError::Unavailable { reason: failure.to_string() }
            }
            Failure::Unreadable { reason } => StoreError::Corrupt { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_where_they_have_always_been() {
        let device = |name: &str| shard(&ObjectKey::new(Kind::Device, &TenantId::default_tenant(), name));
        assert_eq!([device("a"), device("thermostat-1"), device("é")], [4, 26, 19]);
        assert_eq!(session_shard("default", "a"), 3);
    }
}
