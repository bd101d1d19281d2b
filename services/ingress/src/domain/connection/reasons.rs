//! Reasons in words: the Reason String of MQTT 5, as far as the client wants it and has room for it.

use drover_mqtt::{Packet, Properties, Property, PropertyList};

use super::{Connection, Fault};

/// Longest reason, in bytes: it may quote what the client has sent.
const REASON_BYTES_MAX: usize = 256;

impl Connection {
    /// Sends the packet with the reason in words; without, if it would be larger than the client takes [MQTT-3.4.2-2,
    /// MQTT-3.5.2-2, MQTT-3.14.2-3, MQTT-3.2.2-19].
    pub(super) fn send_with_reason(&mut self, reason: &str, packet: impl Fn(Properties<'_>) -> Packet<'_>) {
        let mut list = PropertyList::default();
        let shown = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        list.push(Property::ReasonString(shown)).expect("short");
        if !self.try_send(&packet(list.as_properties())) {
            self.send(&packet(Properties::default()));
        }
    }
}

impl Fault {
    /// Whether one filter of a SUBSCRIBE is refused.
    pub fn is_about_a_filter(&self) -> bool {
        matches!(
            self,
            Fault::SubscribeDenied { .. }
                | Fault::FilterDenied { .. }
                | Fault::Filter(_)
                | Fault::TooManyFilters { .. }
        )
    }

    /// Whether the reason code says enough: who is not known is told nothing about what would be right.
    pub(super) fn is_about_identity(&self) -> bool {
        matches!(
            self,
            Fault::NoCredentials | Fault::NotAuthenticated | Fault::ConnectDenied { .. } | Fault::Authentication(_)
        )
    }
}
