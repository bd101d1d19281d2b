//! What ingress nodes tell each other, as it travels: messages as MQTT 5 PUBLISH packets, for that is what subscribers
//! get.

use bytes::Bytes;
use drover_mqtt::{Decoder, Packet, PacketId, Property, PropertyList, Publish, Side, Version, encode};
use drover_proto::ingress::v1::{ForwardedMessage, Group as WireGroup, Groups, Interest, Share as WireShare};
use drover_types::{ApiError, ClientId, DeviceId, Qos, RecordId, TenantId, TopicName};

use crate::domain::interest::{HASHES_MAX, News};
use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::domain::shares::{GROUPS_MAX, Group, Share};

/// The packet id of every packet between nodes: it says nothing there.
const PACKET_ID: PacketId = PacketId::MIN;

/// A message on its way to another node.
pub fn write(message: &Message) -> ForwardedMessage {
    let telemetry = &message.telemetry;
    let mut properties = PropertyList::default();
    if let Some(forwarded) = &message.properties {
        let expiry = forwarded.expiry_s.map(Property::MessageExpiry);
        let all = forwarded.properties().iter().chain(expiry);
        all.for_each(|property| properties.push(property).expect("it has arrived in such a list"));
    }
    let qos = telemetry.qos.min(Qos::AtLeastOnce);
    let publish = Packet::Publish(Publish {
        dup: false,
        qos,
        retain: telemetry.retain,
        topic: telemetry.topic.as_str(),
        packet_id: (qos > Qos::AtMostOnce).then_some(PACKET_ID),
        properties: properties.as_properties(),
        payload: &telemetry.payload,
    });
    let mut packet = Vec::with_capacity(message.bytes() + 64);
    encode(&publish, Version::V5, &mut packet).expect("it has arrived in such a packet");
    ForwardedMessage {
        tenant: telemetry.tenant.to_string(),
        device: telemetry.device.to_string(),
        client: telemetry.client.to_string(),
        time_ms: telemetry.time_ms,
        packet,
        shares: Vec::new(),
        id: telemetry.id.0.to_vec(),
    }
}

/// The same, to be given to one member of each of `shares`.
pub fn write_for(message: &Message, shares: &[Share]) -> ForwardedMessage {
    let write_share =
        |share: &Share| WireShare { filter: share.filter.to_string(), absent: share.absent, again: share.again };
    ForwardedMessage { shares: shares.iter().map(write_share).collect(), ..write(message) }
}

/// The shared subscriptions that have members here.
pub fn write_groups(groups: &[Group]) -> Groups {
    let write = |group: &Group| WireGroup { tenant: group.tenant.to_string(), filter: group.filter.to_string() };
    Groups { all: groups.iter().map(write).collect() }
}

/// The shared subscriptions that another node has told of.
pub fn read_groups(groups: Groups) -> Result<Vec<Group>, ApiError> {
    if groups.all.len() > GROUPS_MAX {
        return Err(ApiError::invalid("groups.all", "too many groups").over(GROUPS_MAX, groups.all.len()));
    }
    let read = |group: WireGroup| {
        let tenant = TenantId::new(&group.tenant);
        let tenant = tenant.map_err(|error| ApiError::invalid("groups.all.tenant", error.to_string()))?;
        Ok(Group { tenant, filter: group.filter.into() })
    };
    groups.all.into_iter().map(read).collect()
}

/// For which shared subscriptions a message that was forwarded is to be given to a member.
pub fn read_shares(forwarded: &mut ForwardedMessage) -> Result<Vec<Share>, ApiError> {
    let shares = std::mem::take(&mut forwarded.shares);
    if shares.len() > GROUPS_MAX {
        return Err(ApiError::invalid("messages.shares", "too many shares").over(GROUPS_MAX, shares.len()));
    }
    let read = |WireShare { filter, absent, again }| Share { filter: filter.into(), absent, tried: Vec::new(), again };
    Ok(shares.into_iter().map(read).collect())
}

/// What this node tells of its subscribers' wishes.
pub fn write_news(news: &News) -> Interest {
    let News { full, everything, from, to, ref hashes, .. } = *news;
    Interest { full, everything, from, to, hashes: hashes.clone() }
}

/// What another node has told of its subscribers' wishes.
pub fn read_news(interest: Interest) -> Result<News, ApiError> {
    let Interest { full, everything, from, to, hashes } = interest;
    if hashes.len() > HASHES_MAX {
        return Err(ApiError::invalid("interest.hashes", "too many hashes").over(HASHES_MAX, hashes.len()));
    }
    // The generation is its sender's own.
    Ok(News { full, everything, from, to, generation: 0, hashes })
}

/// The message that another node has forwarded. Its record is in the log already; a session that comes to have it by two ways
/// knows it by its id.
pub fn read(forwarded: ForwardedMessage) -> Result<Message, ApiError> {
    let invalid = |field: &'static str, reason: String| ApiError::invalid(field, reason);
    let decoded = Decoder::new(Side::Client, Version::V5).decode(&forwarded.packet);
    let (packet, _) = decoded.map_err(|e| invalid("packet", e.to_string()))?.unzip();
    let Some(Packet::Publish(publish)) = packet else {
        return Err(invalid("packet", "is not a PUBLISH".to_owned()));
    };
    let publication = Publication {
        topic: TopicName::new(publish.topic).map_err(|e| invalid("packet", e.to_string()))?,
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        dup: false,
        packet_id: 0,
        properties: Forwarded::of(publish.properties),
    };
    let publisher = Publisher {
        tenant: TenantId::new(&forwarded.tenant).map_err(|e| invalid("tenant", e.to_string()))?,
        device: DeviceId::new(&forwarded.device).map_err(|e| invalid("device", e.to_string()))?,
        client: ClientId::new(&forwarded.client).map_err(|e| invalid("client", e.to_string()))?,
        epoch: 0,
    };
    let id = match forwarded.id.len() {
        0 => [0; 16],
        _ => forwarded.id.as_slice().try_into().map_err(|_| invalid("id", "has not 16 bytes".to_owned()))?,
    };
    let stamp = Stamp { id: RecordId(id), time_ms: forwarded.time_ms, traceparent: None };
    Ok(publication.stamp(publisher, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_at_another_node_as_its_subscribers_would_have_got_it() {
        let mut list = PropertyList::default();
        for property in [
            Property::UserProperty(("k", "1")),
            Property::ContentType("text/plain"),
            Property::MessageExpiry(9),
            Property::UserProperty(("k", "2")),
        ] {
            list.push(property).expect("short");
        }
        let publisher = Publisher {
            tenant: TenantId::new("home").expect("valid"),
            device: DeviceId::new("d").expect("valid"),
            client: ClientId::new("c").expect("valid"),
            epoch: 0,
        };
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let publication = Publication {
                topic: TopicName::new("a/b").expect("valid"),
                payload: Bytes::from_static(b"\x00\xff"),
                qos,
                retain: true,
                dup: false,
                packet_id: 0,
                properties: Forwarded::of(list.as_properties()),
            };
            let stamp = Stamp { id: RecordId([7; 16]), time_ms: 1_000, traceparent: None };
            let sent = publication.stamp(publisher.clone(), stamp);
            let absent = Share { absent: true, again: true, ..Share::new("$share/h/#".into()) };
            let shares = [Share::new("$share/g/a/b".into()), absent];
            let mut forwarded = write_for(&sent, &shares);
            assert_eq!(read_shares(&mut forwarded), Ok(shares.to_vec()));
            let arrived = read(forwarded).expect("readable");
            assert_eq!(arrived, sent);
            assert_eq!(arrived.expires_ms(), Some(10_000));
        }
        let groups = [Group { tenant: publisher.tenant, filter: "$share/g/a/b".into() }];
        assert_eq!(read_groups(write_groups(&groups)), Ok(groups.to_vec()));
        let rubbish = ForwardedMessage { packet: vec![0xc0, 0], ..ForwardedMessage::default() };
        assert_eq!(read(rubbish).expect_err("a PINGREQ").field.as_deref(), Some("packet"));
        let sent = crate::domain::session::tests::message(vec![1]);
        let short = ForwardedMessage { id: vec![7; 15], ..write(&sent) };
        assert_eq!(read(short).expect_err("15 bytes").field.as_deref(), Some("id"));
        let nameless = ForwardedMessage { id: Vec::new(), ..write(&sent) };
        assert_eq!(read(nameless).expect("of an earlier version").telemetry.id, RecordId([0; 16]));
    }
}
