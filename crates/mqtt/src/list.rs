//! The lists packets carry besides properties: subscriptions, filters and reason codes. They stay encoded.

use std::fmt;

use crate::packet::{Subscription, SubscriptionOptions};
use crate::wire::{self, Reader};
use crate::{DecodeError, EncodeError, PacketType, ReasonCode, Version};

/// The subscriptions of a SUBSCRIBE, in the order sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    bytes: &'a [u8],
}

impl<'a> Subscriptions<'a> {
    /// Takes the rest of a SUBSCRIBE and checks it.
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Err(DecodeError::NoFilter { packet: PacketType::Subscribe }); // [MQTT-3.8.3-2]
        }
        while !reader.is_empty() {
            read_subscription(&mut reader, version)?;
        }
        Ok(Self { bytes })
    }

    /// All subscriptions, in the order sent.
    pub fn iter(self) -> impl Iterator<Item = Subscription<'a>> + 'a {
        let mut reader = Reader::new(self.bytes);
        // What MQTT 3.1.1 allows reads the same in MQTT 5.
        std::iter::from_fn(move || read_subscription(&mut reader, Version::V5).ok())
    }

    /// Bytes of the encoded list.
    pub(crate) fn encoded_len(self) -> usize {
        self.bytes.len()
    }
}

fn read_subscription<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Subscription<'a>, DecodeError> {
    let filter = read_filter(reader)?;
    let byte = reader.u8()?;
    let refused = DecodeError::SubscriptionOptions { options: byte };
    if version == Version::V311 && byte & !0b11 != 0 {
        return Err(refused); // [3.1.1 MQTT-3.8.3-4]
    }
    let options = SubscriptionOptions::from_byte(byte).ok_or(refused)?;
    if options.no_local && filter.starts_with("$share/") {
        return Err(DecodeError::NoLocalShared); // [MQTT-3.8.3-4]
    }
    Ok(Subscription { filter, options })
}

fn read_filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = reader.text()?;
    if filter.is_empty() { Err(DecodeError::TopicEmpty) } else { Ok(filter) } // [MQTT-4.7.3-1]
}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Subscriptions to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionList(Vec<u8>);

impl SubscriptionList {
    /// Appends a subscription. That the filter is valid is the caller's duty.
    pub fn push(&mut self, subscription: Subscription<'_>) -> Result<(), EncodeError> {
        let filter = subscription.filter.as_bytes();
        wire::binary_len(filter)?;
        wire::put_binary(&mut self.0, filter);
        self.0.push(subscription.options.to_byte());
        Ok(())
    }

    /// The list as a SUBSCRIBE takes it.
    pub fn as_subscriptions(&self) -> Subscriptions<'_> {
        Subscriptions { bytes: &self.0 }
    }
}

/// The filters of an UNSUBSCRIBE, in the order sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    bytes: &'a [u8],
}

impl<'a> Filters<'a> {
    /// Takes the rest of an UNSUBSCRIBE and checks it.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Err(DecodeError::NoFilter { packet: PacketType::Unsubscribe }); // [MQTT-3.10.3-2]
        }
        while !reader.is_empty() {
            read_filter(&mut reader)?;
        }
        Ok(Self { bytes })
    }

    /// All filters, in the order sent.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + 'a {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || read_filter(&mut reader).ok())
    }

    /// The encoded list.
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Filters to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterList(Vec<u8>);

impl FilterList {
    /// Appends a filter. That it is valid is the caller's duty.
    pub fn push(&mut self, filter: &str) -> Result<(), EncodeError> {
        wire::binary_len(filter.as_bytes())?;
        wire::put_binary(&mut self.0, filter.as_bytes());
        Ok(())
    }

    /// The list as an UNSUBSCRIBE takes it.
    pub fn as_filters(&self) -> Filters<'_> {
        Filters { bytes: &self.0 }
    }
}

/// The only failure a SUBACK of MQTT 3.1.1 can state.
pub(crate) const SUBACK_FAILURE: u8 = ReasonCode::UnspecifiedError as u8;

/// The reason codes of a SUBACK or UNSUBACK, in order.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ReasonCodes<'a> {
    bytes: &'a [u8],
}

impl<'a> ReasonCodes<'a> {
    /// Takes the rest of `packet` and checks it.
    pub(crate) fn read(reader: &mut Reader<'a>, packet: PacketType, version: Version) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::NoReasonCode { packet });
        }
        for &code in bytes {
            let allowed = match version {
                Version::V311 => matches!(code, 0..=2 | SUBACK_FAILURE), // [3.1.1 MQTT-3.9.3-2]
                Version::V5 => ReasonCode::try_from(code).is_ok_and(|reason| reason.allowed_in(packet)),
            };
            if !allowed {
                return Err(DecodeError::ReasonCode { packet, code });
            }
        }
        Ok(Self { bytes })
    }

    /// All codes, in order.
    pub fn iter(self) -> impl Iterator<Item = ReasonCode> + 'a {
        self.bytes.iter().filter_map(|&code| ReasonCode::try_from(code).ok())
    }

    /// The encoded list.
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Reason codes to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonCodeList(Vec<u8>);

impl ReasonCodeList {
    /// Appends a code.
    pub fn push(&mut self, reason: ReasonCode) {
        self.0.push(reason as u8);
    }

    /// The list as a SUBACK or UNSUBACK takes it.
    pub fn as_reason_codes(&self) -> ReasonCodes<'_> {
        ReasonCodes { bytes: &self.0 }
    }
}

impl FromIterator<ReasonCode> for ReasonCodeList {
    fn from_iter<T: IntoIterator<Item = ReasonCode>>(reasons: T) -> Self {
        Self(reasons.into_iter().map(|reason| reason as u8).collect())
    }
}
