//! Messages to the client: as many as its window and its reading allow, in the order of its session.

use drover_mqtt::{Ack, Packet, PacketId, Property, PropertyList, Publish, ReasonCode, Version};

use super::aliases::Alias;
use super::{Connection, Effect, Fault, Live, Now, OUTPUT_BYTES_MAX};
use crate::domain::session::{Answer, Answered, Delivery, Dropped, Next};

impl Connection {
    /// Writes what waits in the session. To be called when messages came, when output was written, and when the store has
    /// what the connection waits for.
    pub fn deliver(&mut self, now: Now) {
        self.end_with_credential(now);
        if self.live().is_some_and(|live| live.begins_with_repeat()) {
            self.stored(0, now); // the store may have by now what came of it
        }
        while self.output_bytes() < OUTPUT_BYTES_MAX {
            let Some(live) = self.live() else { return };
            match live.session.next(live.epoch, usize::from(live.window)) {
                Next::Nothing => return,
                Next::Release { packet_id } => self.send(&Packet::PubRel(Ack::new(packet_id, ReasonCode::Success))),
                Next::Complete { packet_id } => self.send(&Packet::PubComp(Ack::new(packet_id, ReasonCode::Success))),
                Next::Send { delivery, packet_id, dup } => self.send_delivery(&delivery, packet_id, dup, now),
            }
        }
    }

    /// The client has answered a message: the next may follow. An id that is not in flight belongs to a session that the
    /// client remembers and the server does not; a PUBREC of it is answered so that the client forgets it as well.
    pub(super) fn answered(&mut self, packet_id: PacketId, answer: Answer, now: Now) -> Result<(), Fault> {
        let Some(live) = self.live() else { return Ok(()) };
        let reason = match live.session.answer(live.epoch, packet_id, answer) {
            Answered::Done | Answered::Later => None,
            Answered::Release => Some(ReasonCode::Success), // [MQTT-4.3.3-4]
            Answered::Unknown => (answer == Answer::Received).then_some(ReasonCode::PacketIdNotFound),
            Answered::Unfit => return Err(Fault::Answer { packet_id }),
        };
        if let Some(reason) = reason {
            self.send(&Packet::PubRel(Ack::new(packet_id, reason)));
        }
        self.deliver(now);
        Ok(())
    }

    fn send_delivery(&mut self, delivery: &Delivery, packet_id: Option<PacketId>, dup: bool, now: Now) {
        let sent = if Live::is_too_old(delivery, dup, now) {
            Err(Dropped::Expired)
        } else if self.write_delivery(delivery, packet_id, dup, now) {
            Ok(Effect::Delivered { qos: delivery.qos })
        } else {
            Err(Dropped::TooLarge) // [MQTT-3.1.2-25]
        };
        let effect = sent.unwrap_or_else(|dropped| {
            if let (Some(live), Some(packet_id)) = (self.live(), packet_id) {
                live.session.give_up(live.epoch, packet_id);
            }
            Effect::Dropped(dropped)
        });
        self.want(effect);
    }

    /// Writes a message, with a topic alias if it has one; false if it is larger than the client takes.
    fn write_delivery(&mut self, delivery: &Delivery, packet_id: Option<PacketId>, dup: bool, now: Now) -> bool {
        let Some(live) = self.live() else { return false };
        let telemetry = &delivery.message.telemetry;
        let properties = live.properties(delivery, now);
        let alias = live.aliases.as_ref().and_then(|aliases| aliases.find(telemetry.topic.as_str()));
        let plain = Publish {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: telemetry.topic.as_str(),
            packet_id,
            properties: properties.as_properties(),
            payload: &telemetry.payload,
        };
        let Some(alias) = alias else { return self.try_send(&Packet::Publish(plain)) };
        let mut aliased = properties.clone();
        aliased.push(Property::TopicAlias(alias.get())).expect("a number");
        let topic = if matches!(alias, Alias::Known(_)) { "" } else { plain.topic };
        let properties = aliased.as_properties();
        if !self.try_send(&Packet::Publish(Publish { topic, properties, ..plain })) {
            return self.try_send(&Packet::Publish(plain));
        }
        if let (Alias::Free(_), Some(Live { aliases: Some(aliases), .. })) = (alias, self.live()) {
            aliases.set(plain.topic);
        }
        true
    }
}

impl Live {
    /// Whether nobody wants the message any more [MQTT-3.3.2-5]. Once begun, a delivery is completed (section 4.4).
    fn is_too_old(delivery: &Delivery, dup: bool, now: Now) -> bool {
        !dup && delivery.message.expires_ms().is_some_and(|expires_ms| expires_ms <= now.unix_ms)
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
