//! MQTT 3.1.1 and MQTT 5, without I/O: one version-neutral packet type, its codec, and a client state machine.
//!
//! Library layer: knows bytes, never sockets, tasks or clocks. The rule that keeps it simple: a decoded packet borrows
//! from the bytes it was read from, variable lists (properties, filters, reason codes) stay encoded and are read
//! through iterators, so no packet allocates. Whatever was decoded is valid as far as one packet alone can be; what
//! depends on the connection's state (order of packets, windows, aliases, policies) is the state machine's business.
//!
//! Normative statements are cited as `[MQTT-x.y.z-n]`, by their number in MQTT 5 unless `3.1.1` is added.

pub mod client;
mod decode;
mod encode;
mod error;
mod list;
mod packet;
mod property;
mod reason;
mod wire;

pub use decode::{Decoder, claimed_version};
pub use encode::{encode, encoded_len};
pub use error::{DecodeError, EncodeError};
pub use list::{FilterList, Filters, ReasonCodeList, ReasonCodes, SubscriptionList, Subscriptions};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PacketType, Publish, RetainHandling, Side, SubAck,
    Subscribe, Subscription, SubscriptionOptions, UnsubAck, Unsubscribe, Version, Will,
};
pub use property::{Place, Properties, Property, PropertyList, SubscriptionId};
pub use reason::ReasonCode;
pub use wire::VAR_INT_MAX;
