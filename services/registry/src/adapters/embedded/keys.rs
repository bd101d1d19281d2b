//! The rows of the embedded store: their keys, and their values as bytes.
//!
//! A key begins with one letter for its table; parts are separated by a zero byte, which no part but the last may
//! hold, and numbers are big-endian, so that the order of bytes is the order of names and numbers.

use drover_bus::Partition;
use drover_proto::registry::v1 as registry;
use drover_types::{ClientId, DeviceId, DeviceKey, TenantId};
use prost::Message;

use crate::audit::{Entry, Position};
use crate::object::{Digest, Kind, Object, ObjectKey};
use crate::ports::{OutboxRow, Session, SessionKey, StoreError};
use crate::wire;

/// Format of all rows.
pub const FORMAT: &[u8] = b"m\0format";
/// Number of the last write.
pub const SEQUENCE: &[u8] = b"m\0sequence";
/// Prefix of the outbox, whose keys are numbers of writes.
pub const OUTBOX: &[u8] = b"o";

/// Prefix of the objects of a kind; their names follow.
pub fn objects_of(kind: Kind, tenant: &TenantId) -> Vec<u8> {
    named(kind, tenant, "")
}

/// An object: value = revision, then `drover.registry.v1.Object`.
pub fn object(key: &ObjectKey) -> Vec<u8> {
    named(key.kind, &key.tenant, &key.name)
}

fn named(kind: Kind, tenant: &TenantId, name: &str) -> Vec<u8> {
    let table = match kind {
        Kind::Device => b'd',
        Kind::Credential => b'c',
        Kind::Policy => b'p',
        Kind::Rule => b'r',
        Kind::ApiToken => b'a',
        Kind::Function => b'f',
        Kind::CertificateAuthority => b'u',
        Kind::DeviceType => b'y',
        Kind::DeviceGroup => b'g',
    };
    [&[table], tenant.as_str().as_bytes(), &[0], name.as_bytes()].concat()
}

/// Index of credentials by digest: value = key of the credential's row.
pub fn digest(digest: &Digest) -> Vec<u8> {
    [b"i".as_slice(), digest].concat()
}

/// Prefix of the index of credentials by device; value = key of the credential's row. The row of the prefix alone is
/// the mark that the device has had credentials: its value is empty, and it is never removed.
pub fn credentials_of(device: &DeviceKey) -> Vec<u8> {
    [b"b", device.tenant.as_str().as_bytes(), &[0], device.device.as_str().as_bytes(), &[0]].concat()
}

/// Whose a Kafka topic, or a subject of certificate authorities, is: value = JSON.
pub fn topic(topic: &str) -> Vec<u8> {
    [b"t", topic.as_bytes()].concat()
}

/// A row of the outbox: value = `drover.registry.v1.Change`.
pub fn outbox(sequence: u64) -> Vec<u8> {
    [OUTBOX, &sequence.to_be_bytes()].concat()
}

/// Prefix of a tenant's audit trail; in the order of time.
pub fn audit_of(tenant: &TenantId) -> Vec<u8> {
    [b"h", tenant.as_str().as_bytes(), &[0]].concat()
}

/// An entry of it: value = `drover.registry.v1.AuditEntry`.
pub fn audit(tenant: &TenantId, at: &Position) -> Vec<u8> {
    let Position { time_ms, revision, object } = at;
    [&audit_of(tenant), time_ms.to_be_bytes().as_slice(), &revision.to_be_bytes(), object.as_bytes()].concat()
}

/// The time of an entry, by its key and the prefix of its trail.
pub fn time_of_audit(prefix: &[u8], key: &[u8]) -> Result<u64, StoreError> {
    read_number(key.get(prefix.len()..prefix.len() + 8).unwrap_or_default())
}

/// How many entries a tenant's audit trail has.
pub fn audit_count(tenant: &TenantId) -> Vec<u8> {
    [b"n", tenant.as_str().as_bytes()].concat()
}

pub fn write_entry(entry: &Entry) -> Vec<u8> {
    wire::encode_entry(entry).encode_to_vec()
}

pub fn read_entry(row: &[u8]) -> Result<Entry, StoreError> {
    wire::decode_entry(&registry::AuditEntry::decode(row).map_err(corrupt)?).map_err(corrupt)
}

/// Prefix of the presence view of a partition.
pub fn sessions(partition: Partition) -> Vec<u8> {
    [b"v".as_slice(), &partition.to_be_bytes()].concat()
}

/// Prefix of a device's sessions; the client id follows.
pub fn sessions_of(partition: Partition, device: &DeviceKey) -> Vec<u8> {
    let DeviceKey { tenant, device } = device;
    [&sessions(partition), tenant.as_str().as_bytes(), &[0], device.as_str().as_bytes(), &[0]].concat()
}

/// A session: value = JSON.
pub fn session(partition: Partition, key: &SessionKey) -> Vec<u8> {
    [&sessions_of(partition, &key.device), key.client.as_str().as_bytes()].concat()
}

/// Offset of the next event that the view of a partition has not seen.
pub fn next_event(partition: Partition) -> Vec<u8> {
    [b"w".as_slice(), &partition.to_be_bytes()].concat()
}

pub fn write_object(object: &Object) -> Vec<u8> {
    let mut row = object.meta.revision.to_be_bytes().to_vec();
    wire::encode(object).encode(&mut row).expect("a Vec grows");
    row
}

pub fn read_object(row: &[u8]) -> Result<Object, StoreError> {
    let (revision, message) = row.split_at_checked(8).ok_or_else(|| corrupt("object row is too short"))?;
    let message = registry::Object::decode(message).map_err(corrupt)?;
    let mut object = wire::decode(&message).map_err(corrupt)?;
    object.meta.revision = read_number(revision)?;
    Ok(object)
}

pub fn read_outbox(key: &[u8], row: &[u8]) -> Result<OutboxRow, StoreError> {
    let change = registry::Change::decode(row).map_err(corrupt)?;
    let sequence = read_number(&key[OUTBOX.len()..])?;
    Ok(OutboxRow { sequence, change: wire::decode_change(&change).map_err(corrupt)? })
}

pub fn write_session(session: &Session) -> Vec<u8> {
    serde_json::to_vec(session).expect("numbers and strings are JSON")
}

pub fn read_session(key: &[u8], row: &[u8]) -> Result<(SessionKey, Session), StoreError> {
    let after_partition = key.get(5..).ok_or_else(|| corrupt("session key is too short"))?;
    let mut parts = std::str::from_utf8(after_partition).map_err(corrupt)?.splitn(3, '\0');
    let (Some(tenant), Some(device), Some(client)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(corrupt("session key has too few parts"));
    };
    let device =
        DeviceKey { tenant: TenantId::new(tenant).map_err(corrupt)?, device: DeviceId::new(device).map_err(corrupt)? };
    let client = ClientId::new(client).map_err(corrupt)?;
    Ok((SessionKey { device, client }, serde_json::from_slice(row).map_err(corrupt)?))
}

pub fn read_number(bytes: &[u8]) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a number has 8 bytes"))
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}
