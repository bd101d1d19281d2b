//! Properties of MQTT 5 (section 2.2.2.2): one table of all of them, a borrowed list and a list to build.
//!
//! A list stays encoded. [`Properties`] from the decoder have been checked against the table: known, allowed where they
//! stand, not repeated, with values in range.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;
use drover_types::Qos;

use crate::wire::{self, Reader, VAR_INT_MAX};
use crate::{DecodeError, EncodeError, PacketType};

/// Where a list of properties stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Packet(PacketType),
    /// Among the will's fields in a CONNECT.
    Will,
}

impl Place {
    /// One bit for each place; the will has the bit of the reserved packet type 0.
    const fn bit(self) -> u16 {
        match self {
            Place::Packet(packet) => 1 << packet as u8,
            Place::Will => 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Packet(packet) => packet.fmt(f),
            Place::Will => f.write_str("will"),
        }
    }
}

/// Identifier of a subscription: 1 to 268,435,455 (section 3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The identifier `id`; `None` if it is out of range.
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).filter(|id| id.get() <= VAR_INT_MAX).map(Self)
    }

    /// The identifier as a number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// A type a property's value can have.
trait Value<'a>: Sized {
    /// Reads the value of property `id`.
    fn read(reader: &mut Reader<'a>, id: u8) -> Result<Self, DecodeError>;
    /// Whether the value can be written; only text and binary data can be too long.
    fn check(&self) -> Result<(), EncodeError> {
        Ok(())
    }
    fn write(&self, out: &mut Vec<u8>);
}

impl Value<'_> for bool {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err(DecodeError::PropertyValue { id }),
        }
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }
}

impl Value<'_> for Qos {
    /// Maximum QoS is 0 or 1; 2 is said by leaving the property out (section 3.2.2.3.4).
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, DecodeError> {
        let allowed = bool::read(reader, id)?;
        Ok(if allowed { Qos::AtLeastOnce } else { Qos::AtMostOnce })
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }
}

impl Value<'_> for u16 {
    fn read(reader: &mut Reader<'_>, _id: u8) -> Result<Self, DecodeError> {
        reader.u16()
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(*self);
    }
}

impl Value<'_> for u32 {
    fn read(reader: &mut Reader<'_>, _id: u8) -> Result<Self, DecodeError> {
        reader.u32()
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(*self);
    }
}

impl Value<'_> for NonZeroU16 {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, DecodeError> {
        NonZeroU16::new(reader.u16()?).ok_or(DecodeError::PropertyValue { id })
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.get());
    }
}

impl Value<'_> for NonZeroU32 {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, DecodeError> {
        NonZeroU32::new(reader.u32()?).ok_or(DecodeError::PropertyValue { id })
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.get());
    }
}

impl Value<'_> for SubscriptionId {
    fn read(reader: &mut Reader<'_>, id: u8) -> Result<Self, DecodeError> {
        SubscriptionId::new(reader.var_int()?).ok_or(DecodeError::PropertyValue { id })
    }
    fn write(&self, out: &mut Vec<u8>) {
        wire::put_var_int(out, self.get());
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(reader: &mut Reader<'a>, _id: u8) -> Result<Self, DecodeError> {
        reader.text()
    }
    fn check(&self) -> Result<(), EncodeError> {
        wire::binary_len(self.as_bytes()).map(|_| ())
    }
    fn write(&self, out: &mut Vec<u8>) {
        wire::put_binary(out, self.as_bytes());
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>, _id: u8) -> Result<Self, DecodeError> {
        reader.binary()
    }
    fn check(&self) -> Result<(), EncodeError> {
        wire::binary_len(self).map(|_| ())
    }
    fn write(&self, out: &mut Vec<u8>) {
        wire::put_binary(out, self);
    }
}

impl<'a> Value<'a> for (&'a str, &'a str) {
    fn read(reader: &mut Reader<'a>, _id: u8) -> Result<Self, DecodeError> {
        Ok((reader.text()?, reader.text()?))
    }
    fn check(&self) -> Result<(), EncodeError> {
        self.0.check()?;
        self.1.check()
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
}

/// The bits of all places a property is allowed in.
macro_rules! places {
    ($($place:ident)*) => { $(places!(@ $place))|* };
    (@ Will) => { Place::Will.bit() };
    (@ $packet:ident) => { Place::Packet(PacketType::$packet).bit() };
}

macro_rules! properties {
    (
        once { $($(#[$doc:meta])* $name:ident = $id:literal, $get:ident: $type:ty, in $($place:ident)*;)* }
        repeated { $($(#[$rdoc:meta])* $rname:ident = $rid:literal, $rget:ident: $rtype:ty, in $($rplace:ident)*;)* }
    ) => {
        /// One property and its value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> { $($(#[$doc])* $name($type),)* $($(#[$rdoc])* $rname($rtype),)* }

        impl<'a> Property<'a> {
            /// The property's identifier (table 2-4).
            pub fn id(self) -> u8 {
                match self { $(Property::$name(_) => $id,)* $(Property::$rname(_) => $rid,)* }
            }

            /// Whether the property may stand in `place` (table 2-4).
            pub fn allowed_in(self, place: Place) -> bool {
                let places = match self {
                    $(Property::$name(_) => places!($($place)*),)*
                    $(Property::$rname(_) => places!($($rplace)*),)*
                };
                places & place.bit() != 0
            }

            fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match reader.var_int()? {
                    $($id => <$type as Value>::read(reader, $id).map(Property::$name),)*
                    $($rid => <$rtype as Value>::read(reader, $rid).map(Property::$rname),)*
                    id => Err(DecodeError::PropertyUnknown { id }),
                }
            }

            fn check_value(self) -> Result<(), EncodeError> {
                match self {
                    $(Property::$name(value) => Value::check(&value),)*
                    $(Property::$rname(value) => Value::check(&value),)*
                }
            }

            fn write_value(self, out: &mut Vec<u8>) {
                match self {
                    $(Property::$name(value) => Value::write(&value, out),)*
                    $(Property::$rname(value) => Value::write(&value, out),)*
                }
            }
        }

        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                pub fn $get(self) -> Option<$type> {
                    self.iter().find_map(|property| if let Property::$name(value) = property { Some(value) } else { None })
                }
            )*
            $(
                $(#[$rdoc])*
                pub fn $rget(self) -> impl Iterator<Item = $rtype> + 'a {
                    self.iter().filter_map(|property| if let Property::$rname(value) = property { Some(value) } else { None })
                }
            )*
        }
    };
}

properties! {
    once {
        /// Whether the payload is declared to be UTF-8 text.
        PayloadFormat = 0x01, payload_format: bool, in Publish Will;
        /// How long the message may be delivered, in seconds.
        MessageExpiry = 0x02, message_expiry_s: u32, in Publish Will;
        /// What the payload is, in the sender's words.
        ContentType = 0x03, content_type: &'a str, in Publish Will;
        /// Where an answer shall be published.
        ResponseTopic = 0x08, response_topic: &'a str, in Publish Will;
        /// What the requester knows its request by.
        CorrelationData = 0x09, correlation_data: &'a [u8], in Publish Will;
        /// How long the session outlives the connection, in seconds; `u32::MAX` = for ever.
        SessionExpiry = 0x11, session_expiry_s: u32, in Connect ConnAck Disconnect;
        /// The client identifier the server has chosen.
        AssignedClientId = 0x12, assigned_client_id: &'a str, in ConnAck;
        /// The keep-alive the client has to use, in seconds.
        ServerKeepAlive = 0x13, server_keep_alive_s: u16, in ConnAck;
        /// Name of the extended authentication method.
        AuthenticationMethod = 0x15, authentication_method: &'a str, in Connect ConnAck Auth;
        /// Data of the extended authentication method.
        AuthenticationData = 0x16, authentication_data: &'a [u8], in Connect ConnAck Auth;
        /// Whether reason strings and user properties may be sent with failures; absent = true.
        RequestProblemInformation = 0x17, request_problem_information: bool, in Connect;
        /// How long the will waits for the session to resume, in seconds.
        WillDelay = 0x18, will_delay_s: u32, in Will;
        /// Whether the client asks for response information.
        RequestResponseInformation = 0x19, request_response_information: bool, in Connect;
        /// Basis of a response topic.
        ResponseInformation = 0x1a, response_information: &'a str, in ConnAck;
        /// Another server to use.
        ServerReference = 0x1c, server_reference: &'a str, in ConnAck Disconnect;
        /// The reason code in words, for people.
        ReasonString = 0x1f, reason_string: &'a str,
            in ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth;
        /// Most unacknowledged QoS 1 and 2 messages the sender of this takes; absent = 65,535.
        ReceiveMaximum = 0x21, receive_maximum: NonZeroU16, in Connect ConnAck;
        /// Highest topic alias the sender of this takes; absent = 0, none.
        TopicAliasMaximum = 0x22, topic_alias_maximum: u16, in Connect ConnAck;
        /// A number for the topic.
        TopicAlias = 0x23, topic_alias: NonZeroU16, in Publish;
        /// Highest QoS the server takes, 0 or 1; absent = 2.
        MaximumQos = 0x24, maximum_qos: Qos, in ConnAck;
        /// Whether the server keeps retained messages; absent = true.
        RetainAvailable = 0x25, retain_available: bool, in ConnAck;
        /// Largest packet the sender of this takes, in bytes.
        MaximumPacketSize = 0x27, maximum_packet_size: NonZeroU32, in Connect ConnAck;
        /// Whether the server takes filters with wildcards; absent = true.
        WildcardSubscriptionAvailable = 0x28, wildcard_subscription_available: bool, in ConnAck;
        /// Whether the server takes subscription identifiers; absent = true.
        SubscriptionIdAvailable = 0x29, subscription_id_available: bool, in ConnAck;
        /// Whether the server takes shared subscriptions; absent = true.
        SharedSubscriptionAvailable = 0x2a, shared_subscription_available: bool, in ConnAck;
    }
    repeated {
        /// Identifiers of the subscriptions that matched; at most one in a SUBSCRIBE.
        SubscriptionId = 0x0b, subscription_ids: SubscriptionId, in Publish Subscribe;
        /// Names and values of the application's own, in order [MQTT-3.3.2-18].
        UserProperty = 0x26, user_properties: (&'a str, &'a str),
            in Connect Will ConnAck Publish PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck
            Disconnect Auth;
    }
}

/// Largest identifier of a property that may stand in a list only once, so that a set of them fits 64 bits.
const ID_MAX: u8 = 63;

/// A checked list of properties, in the order sent; empty in MQTT 3.1.1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Reads the length and the list, and checks it as one of `place`.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>, place: Place) -> Result<Self, DecodeError> {
        let length = reader.var_int()?;
        let properties = Self { bytes: reader.take(length as usize)? };
        if length > 0 {
            properties.check(place)?;
        }
        Ok(properties)
    }

    /// Whether a list may stand in `place` (section 2.2.2.2).
    fn check(self, place: Place) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self.bytes);
        let mut seen = 0u64;
        while !reader.is_empty() {
            let property = Property::read(&mut reader).map_err(zero_alias)?;
            let id = property.id();
            debug_assert!(id <= ID_MAX);
            if !property.allowed_in(place) {
                return Err(DecodeError::PropertyNotAllowed { id, place });
            }
            if seen & 1 << id != 0 && !property.repeats_in(place) {
                return Err(DecodeError::PropertyTwice { id });
            }
            seen |= 1 << id;
            property.check_text()?;
        }
        let (method, data) = (Property::AuthenticationMethod("").id(), Property::AuthenticationData(&[]).id());
        if seen & 1 << data != 0 && seen & 1 << method == 0 {
            return Err(DecodeError::AuthenticationDataAlone);
        }
        Ok(())
    }

    /// All properties, in the order sent.
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> + 'a {
        let mut reader = Reader::new(self.bytes);
        // A list that exists has been checked or built from properties, so reading ends where its bytes end.
        std::iter::from_fn(move || if reader.is_empty() { None } else { Property::read(&mut reader).ok() })
    }

    /// Whether there is no property.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The list as encoded, without its length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

/// Topic alias 0 has a reason code of its own (section 3.3.2.3.4).
fn zero_alias(error: DecodeError) -> DecodeError {
    let alias = Property::TopicAlias(NonZeroU16::MIN).id();
    if error == (DecodeError::PropertyValue { id: alias }) { DecodeError::TopicAliasZero } else { error }
}

impl Property<'_> {
    /// Whether a second one of its kind may stand in the same list.
    fn repeats_in(self, place: Place) -> bool {
        match place {
            Place::Packet(PacketType::Publish) => {
                matches!(self, Property::UserProperty(_) | Property::SubscriptionId(_))
            }
            Place::Packet(_) | Place::Will => matches!(self, Property::UserProperty(_)),
        }
    }

    /// A response topic is a topic name, without wildcards [MQTT-3.3.2-14].
    fn check_text(self) -> Result<(), DecodeError> {
        if let Property::ResponseTopic(topic) = self
            && (topic.is_empty() || topic.contains(['+', '#']))
        {
            return Err(DecodeError::PropertyValue { id: self.id() });
        }
        Ok(())
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A list of properties to send; empty, it owns no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyList(Vec<u8>);

impl PropertyList {
    /// Appends `property`. That it is allowed where the list will stand is the caller's duty.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        property.check_value()?;
        self.0.put_u8(property.id());
        property.write_value(&mut self.0);
        Ok(())
    }

    /// The list that [`Properties::as_bytes`] was kept of, checked as one of `place`.
    pub fn decode(bytes: Vec<u8>, place: Place) -> Result<Self, DecodeError> {
        Properties { bytes: &bytes }.check(place)?;
        Ok(Self(bytes))
    }

    /// The list as a packet takes it.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.0 }
    }
}
