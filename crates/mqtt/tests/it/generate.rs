//! Generated valid packets of both versions.
//!
//! One flat [`Sample`] owns the fields of every kind of packet, so that a borrowed packet can be made from it.

use std::num::{NonZeroU16, NonZeroU32};

use drover_mqtt::{
    Ack, Auth, ConnAck, Connect, Disconnect, FilterList, Packet, PacketType, Place, Properties, Property, PropertyList,
    Publish, ReasonCode, ReasonCodeList, RetainHandling, Side, SubAck, Subscribe, Subscription, SubscriptionId,
    SubscriptionList, SubscriptionOptions, UnsubAck, Unsubscribe, VAR_INT_MAX, Version, Will,
};
use drover_types::Qos;
use proptest::prelude::*;

/// The fields of one packet, whatever its type.
#[derive(Clone, Debug)]
pub struct Sample {
    pub version: Version,
    pub sender: Side,
    pub kind: PacketType,
    pub qos: Qos,
    /// dup or clean start; retain or session present; with user name; with password.
    pub flags: [bool; 4],
    pub number: NonZeroU16,
    pub reason: ReasonCode,
    pub topic: String,
    pub text: String,
    pub password: Vec<u8>,
    pub payload: Vec<u8>,
    pub properties: PropertyList,
    /// Present: a CONNECT has a will.
    pub will_properties: Option<PropertyList>,
    pub subscriptions: SubscriptionList,
    pub filters: FilterList,
    pub reasons: ReasonCodeList,
}

impl Sample {
    /// The packet these fields make.
    pub fn packet(&self) -> Packet<'_> {
        let (packet_id, properties, reason) = (self.number, self.properties.as_properties(), self.reason);
        let ack = Ack { packet_id, reason, properties };
        match self.kind {
            PacketType::Connect => Packet::Connect(self.connect(properties)),
            PacketType::ConnAck => {
                let session_present = self.flags[1] && !reason.is_error();
                Packet::ConnAck(ConnAck { session_present, reason, properties })
            }
            PacketType::Publish => Packet::Publish(self.publish(properties)),
            PacketType::PubAck => Packet::PubAck(ack),
            PacketType::PubRec => Packet::PubRec(ack),
            PacketType::PubRel => Packet::PubRel(ack),
            PacketType::PubComp => Packet::PubComp(ack),
            PacketType::Subscribe => {
                let subscriptions = self.subscriptions.as_subscriptions();
                Packet::Subscribe(Subscribe { packet_id, properties, subscriptions })
            }
            PacketType::SubAck => {
                Packet::SubAck(SubAck { packet_id, properties, reasons: self.reasons.as_reason_codes() })
            }
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: self.filters.as_filters() })
            }
            PacketType::UnsubAck => {
                Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: self.reasons.as_reason_codes() })
            }
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(Disconnect { reason, properties }),
            PacketType::Auth => Packet::Auth(Auth { reason, properties }),
        }
    }

    fn connect<'a>(&'a self, properties: Properties<'a>) -> Connect<'a> {
        let will = self.will_properties.as_ref().map(|properties| Will {
            qos: self.qos,
            retain: self.flags[1],
            properties: properties.as_properties(),
            topic: &self.topic,
            payload: &self.payload,
        });
        let [clean_start, _, with_user_name, with_password] = self.flags;
        let with_password = with_password && (with_user_name || self.version == Version::V5);
        Connect {
            version: self.version,
            clean_start,
            keep_alive_s: self.number.get(),
            properties,
            client_id: &self.text,
            will,
            user_name: with_user_name.then_some(self.topic.as_str()),
            password: with_password.then_some(self.password.as_slice()),
        }
    }

    fn publish<'a>(&'a self, properties: Properties<'a>) -> Publish<'a> {
        let acknowledged = self.qos != Qos::AtMostOnce;
        let topic = if properties.topic_alias().is_some() && self.flags[2] { "" } else { &self.topic };
        Publish {
            dup: self.flags[0] && acknowledged,
            qos: self.qos,
            retain: self.flags[1],
            topic,
            packet_id: acknowledged.then_some(self.number),
            properties,
            payload: &self.payload,
        }
    }

    /// The packet's bytes, written by the codec under test.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        drover_mqtt::encode(&self.packet(), self.version, &mut out).expect("a generated packet can be encoded");
        out
    }

    /// The decoder at the other end.
    pub fn decoder(&self) -> drover_mqtt::Decoder {
        drover_mqtt::Decoder::new(self.sender, self.version)
    }
}

/// A property with this identifier made of the given material; `None` if there is no such property.
fn property<'a>(id: u8, number: u32, text: &'a str, blob: &'a [u8]) -> Option<Property<'a>> {
    let flag = number % 2 == 1;
    let short = number as u16;
    let positive = NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    let short_positive = NonZeroU16::new(short).unwrap_or(NonZeroU16::MIN);
    Some(match id {
        0x01 => Property::PayloadFormat(flag),
        0x02 => Property::MessageExpiry(number),
        0x03 => Property::ContentType(text),
        0x08 => Property::ResponseTopic(if text.is_empty() { "answer" } else { text }),
        0x09 => Property::CorrelationData(blob),
        0x0b => Property::SubscriptionId(SubscriptionId::new(number % VAR_INT_MAX + 1).expect("in range")),
        0x11 => Property::SessionExpiry(number),
        0x12 => Property::AssignedClientId(text),
        0x13 => Property::ServerKeepAlive(short),
        0x15 => Property::AuthenticationMethod(text),
        0x16 => Property::AuthenticationData(blob),
        0x17 => Property::RequestProblemInformation(flag),
        0x18 => Property::WillDelay(number),
        0x19 => Property::RequestResponseInformation(flag),
        0x1a => Property::ResponseInformation(text),
        0x1c => Property::ServerReference(text),
        0x1f => Property::ReasonString(text),
        0x21 => Property::ReceiveMaximum(short_positive),
        0x22 => Property::TopicAliasMaximum(short),
        0x23 => Property::TopicAlias(short_positive),
        0x24 => Property::MaximumQos(if flag { Qos::AtLeastOnce } else { Qos::AtMostOnce }),
        0x25 => Property::RetainAvailable(flag),
        0x26 => Property::UserProperty((text, text)),
        0x27 => Property::MaximumPacketSize(positive),
        0x28 => Property::WildcardSubscriptionAvailable(flag),
        0x29 => Property::SubscriptionIdAvailable(flag),
        0x2a => Property::SharedSubscriptionAvailable(flag),
        _ => return None,
    })
}

/// Whether `sender` may put `property` there, beyond what table 2-4 says.
fn sender_may(property: Property<'_>, place: Place, sender: Side) -> bool {
    match (place, sender) {
        (Place::Packet(PacketType::Publish), Side::Client) => property.id() != 0x0b,
        (Place::Packet(PacketType::Disconnect), Side::Client) => property.id() != 0x1c,
        (Place::Packet(PacketType::Disconnect), Side::Server) => property.id() != 0x11,
        (Place::Packet(_) | Place::Will, Side::Client | Side::Server) => true,
    }
}

/// Valid lists of properties for `place`.
fn properties(place: Place, version: Version, sender: Side) -> BoxedStrategy<PropertyList> {
    if version == Version::V311 {
        return Just(PropertyList::default()).boxed();
    }
    prop::collection::vec((0u8..0x2b, any::<u32>(), text(), blob()), 0..16)
        .prop_map(move |material| {
            let (mut list, mut seen) = (PropertyList::default(), Vec::new());
            for (id, number, text, blob) in &material {
                let Some(property) = property(*id, *number, text, blob) else { continue };
                let repeats = *id == 0x26 || *id == 0x0b && place == Place::Packet(PacketType::Publish);
                let needs_method = *id == 0x16 && !seen.contains(&0x15);
                let allowed = property.allowed_in(place) && sender_may(property, place, sender);
                if allowed && !needs_method && (repeats || !seen.contains(id)) {
                    list.push(property).expect("short enough");
                    seen.push(*id);
                }
            }
            list
        })
        .boxed()
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9é€/ ]{0,12}"
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][..])
}

fn subscriptions(version: Version) -> impl Strategy<Value = SubscriptionList> {
    let handling =
        prop::sample::select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    prop::collection::vec(("[a-z/+]{1,8}", qos(), any::<[bool; 2]>(), handling), 1..5).prop_map(move |material| {
        let mut list = SubscriptionList::default();
        for (filter, qos, [no_local, retain_as_published], retain_handling) in &material {
            let options = match version {
                Version::V311 => SubscriptionOptions::new(*qos),
                Version::V5 => SubscriptionOptions {
                    qos: *qos,
                    no_local: *no_local,
                    retain_as_published: *retain_as_published,
                    retain_handling: *retain_handling,
                },
            };
            list.push(Subscription { filter, options }).expect("short enough");
        }
        list
    })
}

fn filters() -> impl Strategy<Value = FilterList> {
    prop::collection::vec("[a-z/+]{1,8}", 1..5).prop_map(|filters| {
        let mut list = FilterList::default();
        for filter in &filters {
            list.push(filter).expect("short enough");
        }
        list
    })
}

/// The reasons `kind` can state in `version`.
fn reasons(kind: PacketType, version: Version) -> Vec<ReasonCode> {
    let allowed = ReasonCode::ALL.iter().copied().filter(|reason| reason.allowed_in(kind));
    let said: Vec<_> = match (version, kind) {
        (Version::V5, _) => allowed.collect(),
        (Version::V311, PacketType::ConnAck) => {
            (0..=5).map(|code| ReasonCode::from_connect_return_code(code).expect("not reserved")).collect()
        }
        (Version::V311, PacketType::SubAck) => {
            allowed.filter(|reason| !reason.is_error() || *reason == ReasonCode::UnspecifiedError).collect()
        }
        (Version::V311, _) => vec![ReasonCode::Success],
    };
    if said.is_empty() { vec![ReasonCode::Success] } else { said }
}

/// A list of reasons of a SUBACK or UNSUBACK; UNSUBACK has none in MQTT 3.1.1.
fn reason_list(kind: PacketType, version: Version) -> impl Strategy<Value = ReasonCodeList> {
    let none = version == Version::V311 && kind == PacketType::UnsubAck;
    let count = if none { 0..1 } else { 1..5 };
    prop::collection::vec(prop::sample::select(reasons(kind, version)), count)
        .prop_map(|reasons| reasons.into_iter().collect())
}

/// Valid packets of one type.
fn sample_of(version: Version, sender: Side, kind: PacketType) -> impl Strategy<Value = Sample> {
    let fields = (
        qos(),
        any::<[bool; 4]>(),
        any::<NonZeroU16>(),
        prop::sample::select(reasons(kind, version)),
        "[a-z/é€]{1,20}",
        text(),
        blob(),
        prop::collection::vec(any::<u8>(), 0..300),
    );
    let lists = (
        properties(Place::Packet(kind), version, sender),
        prop::option::of(properties(Place::Will, version, sender)),
        subscriptions(version),
        filters(),
        reason_list(kind, version),
    );
    (fields, lists).prop_map(move |(fields, lists)| {
        let (qos, flags, number, reason, topic, text, password, payload) = fields;
        let (properties, will_properties, subscriptions, filters, reasons) = lists;
        Sample {
            version,
            sender,
            kind,
            qos,
            flags,
            number,
            reason,
            topic,
            text,
            password,
            payload,
            properties,
            will_properties,
            subscriptions,
            filters,
            reasons,
        }
    })
}

/// Valid packets of all types either side sends in `version`.
pub fn sample(version: Version) -> impl Strategy<Value = Sample> {
    let kinds: Vec<_> = [Side::Client, Side::Server]
        .into_iter()
        .flat_map(|sender| PacketType::ALL.map(|kind| (sender, kind)))
        .filter(|(sender, kind)| kind.sent_by(*sender, version))
        .collect();
    prop::sample::select(kinds).prop_flat_map(move |(sender, kind)| sample_of(version, sender, kind))
}

/// Valid packets of both versions.
pub fn any_sample() -> impl Strategy<Value = Sample> {
    prop_oneof![sample(Version::V311), sample(Version::V5)]
}
