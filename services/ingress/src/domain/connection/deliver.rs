//! Messages to the client: as many as its window and its reading allow, in the order of its session.

use drover_mqtt::{Packet, PacketId, Property, PropertyList, Publish, Version, encoded_len};
use drover_types::Qos;

use super::{Connection, Effect, Live, Now, OUTPUT_BYTES_MAX};
use crate::domain::session::{Delivery, Dropped, Next};

impl Connection {
    /// Writes what waits in the session. To be called when messages came, and when output was written.
    pub fn deliver(&mut self, now: Now) {
        self.end_with_credential(now);
        while self.output.len() < OUTPUT_BYTES_MAX {
            let Some(live) = self.live() else { return };
            match live.session.next(live.publisher.epoch, live.window) {
                Next::Nothing => return,
                Next::Send { delivery, packet_id, dup } => self.send_delivery(&delivery, packet_id, dup, now),
            }
        }
    }

    /// The client has a message: the next may follow.
    pub(super) fn acknowledged(&mut self, packet_id: PacketId, now: Now) {
        if let Some(live) = self.live() {
            live.session.acknowledge(live.publisher.epoch, packet_id);
        }
        self.deliver(now);
    }

    fn send_delivery(&mut self, delivery: &Delivery, packet_id: Option<PacketId>, dup: bool, now: Now) {
        let Some(live) = self.live() else { return };
        let properties = live.properties(delivery, now);
        let telemetry = &delivery.message.telemetry;
        let packet = Packet::Publish(Publish {
            dup,
            qos: if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce },
            retain: delivery.retain,
            topic: telemetry.topic.as_str(),
            packet_id,
            properties: properties.as_properties(),
            payload: &telemetry.payload,
        });
        let unfit = live.unfit(delivery, &packet, dup, now);
        let Some(dropped) = unfit else {
            self.send(&packet);
            self.effects.push_back(Effect::Delivered { qos0: packet_id.is_none() });
            return;
        };
        if let Some(packet_id) = packet_id {
            live.session.acknowledge(live.publisher.epoch, packet_id);
        }
        self.effects.push_back(Effect::Dropped(dropped));
    }
}

impl Live {
    /// Why a message is not sent, if it is not. Once begun, a delivery is completed (section 4.4).
    fn unfit(&self, delivery: &Delivery, packet: &Packet<'_>, dup: bool, now: Now) -> Option<Dropped> {
        let expired = delivery.message.expires_ms().is_some_and(|expires_ms| expires_ms <= now.unix_ms);
        if expired && !dup {
            return Some(Dropped::Expired);
        }
        let fits = encoded_len(packet, self.version).is_ok_and(|bytes| bytes <= self.packet_bytes_max);
        (!fits).then_some(Dropped::TooLarge)
    }

    fn properties(&self, delivery: &Delivery, now: Now) -> PropertyList {
        let mut list = PropertyList::default();
        if self.version == Version::V311 {
            return list;
        }
        let mut push = |property| list.push(property).expect("it has arrived in such a list");
        if let Some(expires_ms) = delivery.message.expires_ms() {
            let left_s = expires_ms.saturating_sub(now.unix_ms).div_ceil(1_000); // [MQTT-3.3.2-6]
            push(Property::MessageExpiry(u32::try_from(left_s).unwrap_or(u32::MAX)));
        }
        delivery.ids.iter().for_each(|id| push(Property::SubscriptionId(*id))); // [MQTT-3.3.4-3]
        if let Some(forwarded) = &delivery.message.properties {
            forwarded.properties().iter().for_each(push);
        }
        list
    }
}
