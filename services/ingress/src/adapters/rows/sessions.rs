//! The rows of a session: its head, its subscriptions, what it has received at QoS 2, and the messages of its inbox.

use std::sync::Arc;

use bytes::Bytes;
use drover_mqtt::{PacketId, SubscriptionId};
use drover_types::{DeviceId, TenantId, TopicName};
use prost::Message as _;

use super::{MessageRow, corrupt, parts, qos};
use crate::domain::message::{Forwarded, Publication};
use crate::domain::router::Options;
use crate::domain::session::Delivery;
use crate::domain::sessions::Will;
use crate::ports::StoreError;
use crate::ports::sessions::{Away, Head, Place, Row, Subscription};

#[derive(Clone, PartialEq, prost::Message)]
struct HeadRow {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(string, tag = "2")]
    device: String,
    #[prost(uint32, tag = "3")]
    expiry_s: u32,
    /// Milliseconds since the Unix epoch. Absent: a connection holds the session.
    #[prost(uint64, optional, tag = "4")]
    ends_ms: Option<u64>,
    #[prost(uint64, tag = "5")]
    will_ms: u64,
    #[prost(message, optional, tag = "6")]
    will: Option<WillRow>,
    #[prost(uint64, optional, tag = "7")]
    sent_epoch: Option<u64>,
    #[prost(uint32, tag = "8")]
    sent_number: u32,
    /// Of the change that has written this.
    #[prost(uint64, tag = "9")]
    stamp: u64,
    /// Name of the node that has written this.
    #[prost(string, tag = "10")]
    node: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WillRow {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
    #[prost(uint32, tag = "3")]
    qos: u32,
    #[prost(bool, tag = "4")]
    retain: bool,
    #[prost(bytes = "vec", tag = "5")]
    properties: Vec<u8>,
    #[prost(uint32, optional, tag = "6")]
    expiry_s: Option<u32>,
    #[prost(uint32, tag = "7")]
    delay_s: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscriptionsRow {
    #[prost(message, repeated, tag = "1")]
    all: Vec<SubscriptionRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SubscriptionRow {
    #[prost(string, tag = "1")]
    filter: String,
    #[prost(uint32, tag = "2")]
    qos: u32,
    #[prost(bool, tag = "3")]
    no_local: bool,
    #[prost(bool, tag = "4")]
    retain_as_published: bool,
    #[prost(uint32, optional, tag = "5")]
    id: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReceivedRow {
    #[prost(uint32, repeated, tag = "1")]
    packet_ids: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InboxRow {
    #[prost(uint32, tag = "1")]
    packet_id: u32,
    /// Of the delivery.
    #[prost(uint32, tag = "2")]
    qos: u32,
    #[prost(bool, tag = "3")]
    retain: bool,
    #[prost(uint32, repeated, tag = "4")]
    subscription_ids: Vec<u32>,
    #[prost(string, optional, tag = "5")]
    share: Option<String>,
    /// Absent: the client has it, and its PUBCOMP is awaited.
    #[prost(message, optional, tag = "6")]
    message: Option<MessageRow>,
}

/// The bytes of a head that the node of this name writes with `stamp`.
pub fn write_head(head: &Head, node: &str, stamp: u64) -> Vec<u8> {
    let will = head.will.as_ref().map(|will| {
        let publication = &will.publication;
        let (properties, expiry_s) = parts(publication.properties.as_deref());
        WillRow {
            topic: publication.topic.to_string(),
            payload: publication.payload.clone(),
            qos: publication.qos as u32,
            retain: publication.retain,
            properties,
            expiry_s,
            delay_s: will.delay_s,
        }
    });
    let row = HeadRow {
        epoch: head.epoch,
        device: head.device.to_string(),
        expiry_s: head.expiry_s,
        ends_ms: head.away.map(|away| away.ends_ms),
        will_ms: head.away.map_or(0, |away| away.will_ms),
        will,
        sent_epoch: head.sent.map(|sent| sent.epoch),
        sent_number: head.sent.map_or(0, |sent| sent.number),
        stamp,
        node: node.to_owned(),
    };
    row.encode_to_vec()
}

/// A head, the name of the node that wrote it, and its stamp.
pub fn read_head(bytes: &[u8]) -> Result<(Head, String, u64), StoreError> {
    let row = HeadRow::decode(bytes).map_err(corrupt)?;
    let will = row.will.map(|will| -> Result<Will, StoreError> {
        let publication = Publication {
            topic: TopicName::new(will.topic).map_err(corrupt)?,
            payload: will.payload,
            qos: qos(will.qos)?,
            retain: will.retain,
            dup: false,
            packet_id: 0,
            properties: Forwarded::from_parts(will.properties, will.expiry_s).map_err(corrupt)?,
        };
        Ok(Will { publication, delay_s: will.delay_s })
    });
    let head = Head {
        epoch: row.epoch,
        device: DeviceId::new(row.device).map_err(corrupt)?,
        expiry_s: row.expiry_s,
        away: row.ends_ms.map(|ends_ms| Away { ends_ms, will_ms: row.will_ms }),
        will: will.transpose()?,
        sent: row.sent_epoch.map(|epoch| Place { epoch, number: row.sent_number }),
    };
    Ok((head, row.node, row.stamp))
}

/// The bytes of all subscriptions of a session.
pub fn write_subscriptions(all: &[Subscription]) -> Vec<u8> {
    let row = |Subscription { filter, options }: &Subscription| SubscriptionRow {
        filter: filter.to_string(),
        qos: options.qos as u32,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        id: options.id.map(SubscriptionId::get),
    };
    SubscriptionsRow { all: all.iter().map(row).collect() }.encode_to_vec()
}

/// All subscriptions of a session.
pub fn read_subscriptions(bytes: &[u8]) -> Result<Vec<Subscription>, StoreError> {
    let read = |row: SubscriptionRow| {
        let options = Options {
            qos: qos(row.qos)?,
            no_local: row.no_local,
            retain_as_published: row.retain_as_published,
            id: row.id.map(subscription_id).transpose()?,
        };
        Ok(Subscription { filter: row.filter.into(), options })
    };
    SubscriptionsRow::decode(bytes).map_err(corrupt)?.all.into_iter().map(read).collect()
}

/// The bytes of packet ids.
pub fn write_received(packet_ids: &[PacketId]) -> Vec<u8> {
    ReceivedRow { packet_ids: packet_ids.iter().map(|id| u32::from(id.get())).collect() }.encode_to_vec()
}

/// Packet ids.
pub fn read_received(bytes: &[u8]) -> Result<Vec<PacketId>, StoreError> {
    ReceivedRow::decode(bytes).map_err(corrupt)?.packet_ids.into_iter().map(packet_id).collect()
}

/// The bytes of a message of an inbox.
pub fn write_row(row: &Row) -> Vec<u8> {
    let of = |delivery: &Delivery| InboxRow {
        packet_id: 0,
        qos: delivery.qos as u32,
        retain: delivery.retain,
        subscription_ids: delivery.ids.iter().map(|id| id.get()).collect(),
        share: delivery.share.as_ref().map(ToString::to_string),
        message: Some(MessageRow::of(&delivery.message)),
    };
    let packet_id = u32::from(row.packet_id.get());
    InboxRow { packet_id, ..row.delivery.as_ref().map(of).unwrap_or_default() }.encode_to_vec()
}

/// The message at `place` in an inbox of a client of `tenant`.
pub fn read_row(tenant: &TenantId, place: Place, bytes: &[u8]) -> Result<Row, StoreError> {
    let row = InboxRow::decode(bytes).map_err(corrupt)?;
    let packet_id = packet_id(row.packet_id)?;
    let Some(message) = row.message else { return Ok(Row { place, packet_id, delivery: None }) };
    let delivery = Delivery {
        message: Arc::new(message.message(tenant.clone())?),
        qos: qos(row.qos)?,
        retain: row.retain,
        ids: row.subscription_ids.into_iter().map(subscription_id).collect::<Result<_, _>>()?,
        share: row.share.map(Into::into),
    };
    Ok(Row { place, packet_id, delivery: Some(delivery) })
}

fn packet_id(number: u32) -> Result<PacketId, StoreError> {
    let id = u16::try_from(number).ok().and_then(PacketId::new);
    id.ok_or_else(|| corrupt(format!("packet id {number}")))
}

fn subscription_id(number: u32) -> Result<SubscriptionId, StoreError> {
    SubscriptionId::new(number).ok_or_else(|| corrupt(format!("subscription id {number}")))
}
