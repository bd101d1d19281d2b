//! The keys of the embedded store.
//!
//! Parts are ended by a zero byte, which no part may hold, so that the order of bytes is that of the parts. A topic, a place
//! or the kind of a row ends the key.

use drover_types::{ClientId, TenantId, TopicName};

use crate::adapters::rows::corrupt;
use crate::domain::sessions::Key;
use crate::ports::StoreError;
use crate::ports::sessions::Place;

/// Rows of a session besides its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Head = 1,
    Subscriptions = 2,
    Received = 3,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Head, Self::Subscriptions, Self::Received];
}

/// The retained message of a topic; of what topics begin with, the prefix of theirs.
pub fn topic(tenant: &TenantId, topic: &str) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], topic.as_bytes()].concat()
}

/// Tenant and topic of a retained message.
pub fn read_topic(key: &[u8]) -> Result<(TenantId, TopicName), StoreError> {
    let text = std::str::from_utf8(key).map_err(corrupt)?;
    let (tenant, topic) = text.split_once('\0').ok_or_else(|| corrupt("key without a topic"))?;
    Ok((TenantId::new(tenant).map_err(corrupt)?, TopicName::new(topic).map_err(corrupt)?))
}

/// What all rows of a session begin with.
pub fn session((tenant, client): &Key) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], client.as_str().as_bytes(), &[0]].concat()
}

/// A row of a session.
pub fn part(key: &Key, kind: Kind) -> Vec<u8> {
    let mut bytes = session(key);
    bytes.push(kind as u8);
    bytes
}

/// A message of a session's inbox.
pub fn message(key: &Key, place: Place) -> Vec<u8> {
    let mut bytes = session(key);
    bytes.extend(place.epoch.to_be_bytes());
    bytes.extend(place.number.to_be_bytes());
    bytes
}

/// Whose a row of a session is, and of which kind.
pub fn read_part(bytes: &[u8]) -> Result<(Key, Option<Kind>), StoreError> {
    let (kind, text) = bytes.split_last().ok_or_else(|| corrupt("an empty key"))?;
    let mut parts = std::str::from_utf8(text).map_err(corrupt)?.split('\0');
    let (Some(tenant), Some(client)) = (parts.next(), parts.next()) else {
        return Err(corrupt("key of no session"));
    };
    let key = (TenantId::new(tenant).map_err(corrupt)?, ClientId::new(client).map_err(corrupt)?);
    Ok((key, Kind::ALL.into_iter().find(|known| *known as u8 == *kind)))
}

/// The place of a message in its inbox.
pub fn read_place(key: &[u8]) -> Result<Place, StoreError> {
    let place = key.len().checked_sub(12).map(|at| key[at..].split_at(8));
    let (epoch, number) = place.ok_or_else(|| corrupt("key without a place"))?;
    let (epoch, number) = (epoch.try_into().map_err(corrupt)?, number.try_into().map_err(corrupt)?);
    Ok(Place { epoch: u64::from_be_bytes(epoch), number: u32::from_be_bytes(number) })
}
