//! Messages from the client: what is checked, and in which order they are acknowledged.
//!
//! A PUBACK leaves when its message is durable and all earlier ones have left theirs [MQTT-4.6.0-2]. A forbidden or
//! impossible topic costs a client of MQTT 5 that one message: PUBACK with the reason at QoS 1, nothing at QoS 0. MQTT
//! 3.1.1 has no negative acknowledgement; of the two ways it leaves [3.1.1 MQTT-3.3.5-2] the connection is closed, for
//! a device that is told all is well keeps losing its messages.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::num::NonZeroU16;

use bytes::Bytes;
use drover_mqtt::{Ack, Packet, PacketId, Publish, ReasonCode, Version};
use drover_types::limits::CLIENT_TOKEN_BYTES_MAX;
use drover_types::shadow::ShadowRequest;
use drover_types::{Qos, TopicName};
use serde::Deserialize;
use serde_json::json;

use super::{Connection, Effect, Fault, Limits, Live, Now, raw};
use crate::domain::message::{Forwarded, Publication};

/// Messages taken and not yet durable, of any QoS; at it nothing is read. QoS 0 has no window of its own.
pub const PUBLISHES_WAITING_MAX: usize = 1_000;
/// Their bytes; at it nothing is read.
pub const PUBLISHES_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Code of a rejection that trying again does not change; AWS's, as in HTTP.
const FORBIDDEN: u16 = 403;

/// The client's messages that are not done.
#[derive(Default)]
pub(super) struct Inbound {
    /// In the order they came.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Those of QoS 1 among them.
    unacknowledged: usize,
    /// Topics by alias - 1 (MQTT 5 section 3.3.2.3.4); grows as aliases come.
    aliases: Vec<Option<TopicName>>,
}

struct Waiting {
    /// `None`: QoS 0.
    packet_id: Option<PacketId>,
    bytes: usize,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    /// On its way into the log.
    Open,
    Stored,
    Refused(ReasonCode),
}

impl Inbound {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another message may be read. A client of MQTT 5 knows its receive maximum; one of 3.1.1 is just not
    /// read beyond it.
    pub(super) fn has_room(&self, version: Version, limits: &Limits) -> bool {
        let window = version == Version::V5 || self.unacknowledged < usize::from(limits.receive_maximum);
        window && self.waiting.len() < PUBLISHES_WAITING_MAX && self.waiting_bytes < PUBLISHES_WAITING_BYTES_MAX
    }

    fn push(&mut self, packet_id: Option<PacketId>, bytes: usize, outcome: Outcome) {
        self.unacknowledged += usize::from(packet_id.is_some());
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { packet_id, bytes, outcome });
    }

    /// Takes the oldest message off if it is done.
    fn pop_done(&mut self) -> Option<Waiting> {
        let done = self.waiting.pop_front_if(|waiting| waiting.outcome != Outcome::Open)?;
        self.unacknowledged -= usize::from(done.packet_id.is_some());
        self.waiting_bytes -= done.bytes;
        Some(done)
    }

    /// The topic of a PUBLISH, by its name, its alias or both [MQTT-3.3.2-8 to -12].
    fn topic(&mut self, publish: &Publish<'_>, limit: u16) -> Result<TopicName, Fault> {
        let Some(alias) = publish.properties.topic_alias().map(NonZeroU16::get) else {
            return TopicName::new(publish.topic).map_err(Fault::Topic);
        };
        if alias > limit {
            return Err(Fault::AliasOverLimit { alias, limit });
        }
        let at = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            return self.aliases.get(at).cloned().flatten().ok_or(Fault::AliasUnknown { alias });
        }
        let topic = TopicName::new(publish.topic).map_err(Fault::Topic)?;
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        self.aliases[at] = Some(topic.clone());
        Ok(topic)
    }
}

impl Connection {
    pub(super) fn publish(&mut self, publish: Publish<'_>) -> Result<(), Fault> {
        let environment = self.environment.clone();
        let limits = &environment.limits;
        let Some(live) = self.live() else { return Ok(()) };
        check(&publish, live, limits)?;
        let allowed = live.inbound.topic(&publish, limits.topic_alias_max).and_then(|topic| live.allowed(topic));
        let version = live.version;
        match allowed {
            Ok(topic) if !limits.shadows && ShadowRequest::of_topic(topic.as_str()).is_some() => {
                self.reject(&publish, &topic);
                Ok(())
            }
            Ok(topic) => {
                live.inbound.push(publish.packet_id, publish.payload.len(), Outcome::Open);
                self.effects.push_back(Effect::Publish(publication(&publish, topic)));
                Ok(())
            }
            Err(fault @ (Fault::PublishDenied { .. } | Fault::Topic(_))) if version == Version::V5 => {
                self.refuse(&publish, fault);
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Answers a request to a shadow where nobody serves them, as AWS answers what it does not allow. A client of MQTT 5
    /// that has not subscribed to the answer learns of it as well.
    fn reject(&mut self, publish: &Publish<'_>, topic: &TopicName) {
        let fault = Fault::NoShadows { topic: topic.to_string() };
        let answer = TopicName::new(format!("{topic}/rejected"));
        let answer = answer.map(|topic| Publication {
            topic,
            payload: rejection(publish.payload),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: 0,
            properties: None,
        });
        self.effects.extend(answer.ok().map(Effect::Answer));
        match self.live() {
            Some(live) if live.version == Version::V311 => {
                live.inbound.push(publish.packet_id, 0, Outcome::Stored);
                self.effects.push_back(Effect::Refused(fault));
                self.acknowledge_done();
            }
            Some(_) => self.refuse(publish, fault),
            None => {}
        }
    }

    /// Refuses this one message, in its turn.
    fn refuse(&mut self, publish: &Publish<'_>, fault: Fault) {
        if let (Some(live), Some(packet_id)) = (self.live(), publish.packet_id) {
            live.inbound.push(Some(packet_id), 0, Outcome::Refused(fault.reason_code()));
        }
        self.effects.push_back(Effect::Refused(fault));
        self.acknowledge_done();
    }

    /// The oldest `count` messages given out by [`Effect::Publish`] and not answered yet are durable.
    pub fn stored(&mut self, count: usize, now: Now) {
        let paused = !self.takes_packets();
        let Some(live) = self.live() else { return };
        let open = live.inbound.waiting.iter_mut().filter(|waiting| waiting.outcome == Outcome::Open);
        open.take(count).for_each(|waiting| waiting.outcome = Outcome::Stored);
        self.acknowledge_done();
        let drained = self.live().is_some_and(|live| live.draining && live.inbound.is_empty());
        if drained {
            self.fail(Fault::Drain);
        }
        self.resume(paused, now);
    }

    /// The log did not take them, or their fate is unknown: no PUBACK leaves, and the client sends them again (P1).
    pub fn not_stored(&mut self) {
        self.fail(Fault::NotStored);
    }

    fn acknowledge_done(&mut self) {
        while let Some(done) = self.live().and_then(|live| live.inbound.pop_done()) {
            let reason = match done.outcome {
                Outcome::Refused(reason) => reason,
                Outcome::Open | Outcome::Stored => ReasonCode::Success,
            };
            if let Some(packet_id) = done.packet_id {
                self.send(&Packet::PubAck(Ack::new(packet_id, reason)));
            }
        }
    }
}

impl Live {
    fn allowed(&self, topic: TopicName) -> Result<TopicName, Fault> {
        let allowed = self.identity.policy.may_publish(topic.as_str(), self.publisher.client.as_str());
        if allowed { Ok(topic) } else { Err(Fault::PublishDenied { topic: topic.to_string() }) }
    }
}

/// The body of a rejected request to a shadow, with the client's own token if it sent one.
fn rejection(request: &[u8]) -> Bytes {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'r> {
        #[serde(borrow)]
        client_token: Cow<'r, str>,
    }
    let mut body = json!({"code": FORBIDDEN, "message": "Shadows are not served here"});
    let token = serde_json::from_slice(request).ok().map(|request: Request<'_>| request.client_token);
    if let Some(token) = token.filter(|token| token.len() <= CLIENT_TOKEN_BYTES_MAX) {
        body["clientToken"] = token.into();
    }
    body.to_string().into()
}

/// What ends the connection.
fn check(publish: &Publish<'_>, live: &Live, limits: &Limits) -> Result<(), Fault> {
    let (bytes, limit) = (publish.payload.len(), limits.payload_bytes_max);
    if publish.qos == Qos::ExactlyOnce {
        return Err(Fault::Qos2); // [MQTT-3.2.2-11]
    }
    if publish.retain && live.version == Version::V5 {
        return Err(Fault::Retain); // [MQTT-3.2.2-14]; 3.1.1 has no way to say it, its flag is kept in the log
    }
    if bytes > limit {
        return Err(Fault::PayloadTooLarge { bytes, limit });
    }
    if publish.packet_id.is_some() && live.inbound.unacknowledged >= usize::from(limits.receive_maximum) {
        return Err(Fault::ReceiveMaximum { limit: limits.receive_maximum }); // section 3.3.4
    }
    Ok(())
}

fn publication(publish: &Publish<'_>, topic: TopicName) -> Publication {
    Publication {
        topic,
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: raw(publish.packet_id),
        properties: Forwarded::of(publish.properties),
    }
}
