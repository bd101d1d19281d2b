//! Messages from the client: what is checked, and in which order they are acknowledged.
//!
//! A PUBACK or PUBREC leaves when its message is durable and all earlier ones have left theirs [MQTT-4.6.0-2,
//! MQTT-4.6.0-3]. A forbidden or impossible topic costs a client of MQTT 5 that one message: PUBACK or PUBREC with the
//! reason, nothing at QoS 0. MQTT 3.1.1 has no negative acknowledgement; of the two ways it leaves
//! [3.1.1 MQTT-3.3.5-2] the connection is closed unless [`Limits::acknowledge_denied`] says otherwise, for a device that
//! is told all is well keeps losing its messages.
//!
//! A message of QoS 2 is taken once: its packet id is noted in the session before it goes to the log, and forgotten at
//! PUBREL. Sent again after its connection ended in between, it goes to the log once more, marked as a repeat.
//!
//! While a subscriber has no room for what the client has published, nothing is acknowledged (ADR 40), unless it drains.

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
use crate::domain::log_topics::is_for_shadows;
use crate::domain::message::{Forwarded, Publication};
use crate::domain::quotas::Quotas;
use crate::domain::session::{Begun, RECEIVED_MAX, Released};

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
    /// Those of QoS 1 and 2 among them.
    unacknowledged: usize,
    /// Messages of QoS 2 whose PUBREC has left on this connection, and whose PUBREL has not come.
    unreleased: usize,
    /// Takes no packets before, monotonic: the client has published more than a quota allows. 0: it has not.
    pub(super) rests_until_ms: u64,
    /// Topics by alias - 1 (MQTT 5 section 3.3.2.3.4); grows as aliases come.
    aliases: Vec<Option<TopicName>>,
}

struct Waiting {
    qos: Qos,
    /// `None`: QoS 0.
    packet_id: Option<PacketId>,
    bytes: usize,
    outcome: Outcome,
}

enum Outcome {
    /// On its way into the log.
    Open,
    Stored,
    /// It was taken before, and what came of it is durable as of this position of the journal; 0: it is.
    Repeated(u64),
    Refused(Box<Refusal>),
}

/// Why a message is refused.
struct Refusal {
    reason: ReasonCode,
    /// In words, where the code alone does not say it.
    text: Option<String>,
}

impl Inbound {
    /// Whether nothing in it matters any more.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unreleased == 0 && self.rests_until_ms == 0 && self.aliases.is_empty()
    }

    /// Whether another message may be read. A client of MQTT 5 knows its receive maximum; one of 3.1.1 is just not
    /// read beyond it.
    fn has_room(&self, version: Version, limits: &Limits) -> bool {
        let window = version == Version::V5 || self.unacknowledged < usize::from(limits.receive_maximum);
        window && self.waiting.len() < PUBLISHES_WAITING_MAX && self.waiting_bytes < PUBLISHES_WAITING_BYTES_MAX
    }

    /// Whether another message may be read of a client whose own acknowledgements are behind its messages.
    fn has_place(&self) -> bool {
        self.waiting.len() < PUBLISHES_WAITING_MAX
    }

    /// Takes off what is done and has no acknowledgement to wait for.
    fn forget_unanswered(&mut self) {
        self.waiting.retain(|waiting| {
            let stays = waiting.packet_id.is_some() || matches!(waiting.outcome, Outcome::Open);
            self.waiting_bytes -= if stays { 0 } else { waiting.bytes };
            stays
        });
    }

    fn push(&mut self, publish: &Publish<'_>, bytes: usize, outcome: Outcome) {
        let Publish { qos, packet_id, .. } = *publish;
        self.unacknowledged += usize::from(packet_id.is_some());
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { qos, packet_id, bytes, outcome });
    }

    /// What counts against the receive maximum: until PUBACK, PUBCOMP or a PUBREC that says failure (section 4.9).
    fn open(&self) -> usize {
        self.unacknowledged + self.unreleased
    }

    /// Whether the oldest message is one that was taken before.
    fn begins_with_repeat(&self) -> bool {
        self.waiting.front().is_some_and(|waiting| matches!(waiting.outcome, Outcome::Repeated(_)))
    }

    /// Takes the oldest message off if it is done; `durable` says whether a position of the journal is.
    fn pop_done(&mut self, durable: impl Fn(u64) -> bool) -> Option<Waiting> {
        let done = self.waiting.pop_front_if(|waiting| match waiting.outcome {
            Outcome::Open => false,
            Outcome::Repeated(position) => durable(position),
            Outcome::Stored | Outcome::Refused(_) => true,
        })?;
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
    pub(super) fn publish(&mut self, publish: Publish<'_>, now: Now) -> Result<(), Fault> {
        let environment = self.environment.clone();
        let limits = &environment.limits;
        let Some(live) = self.live() else { return Ok(()) };
        check(&publish, live, limits)?;
        let topic = live.inbound().topic(&publish, limits.topic_alias_max);
        if topic.is_ok() && live.is_repeat(&publish) {
            self.answer_repeat(&publish);
            return Ok(());
        }
        let version = live.version;
        let topic = topic.and_then(|topic| live.allowed(topic));
        match topic.and_then(|topic| live.within_quotas(&publish, topic, &environment.quotas, now)) {
            Ok(topic) if !limits.shadows && is_for_shadows(topic.as_str()) => {
                self.reject(&publish, &topic);
                Ok(())
            }
            Ok(topic) => {
                let rests = live.rests_until_ms() > 0;
                let Some(dup) = live.begin(&publish)? else {
                    self.answer_repeat(&publish); // the log has answered just now
                    return Ok(());
                };
                live.inbound().push(&publish, publish.payload.len(), Outcome::Open);
                self.want(Effect::Publish(publication(&Publish { dup, ..publish }, topic)));
                if rests {
                    self.want(Effect::Delayed);
                }
                Ok(())
            }
            Err(fault @ (Fault::PublishDenied { .. } | Fault::Topic(_) | Fault::OverQuota(_)))
                if version == Version::V5 =>
            {
                self.refuse(&publish, fault);
                Ok(())
            }
            Err(fault @ Fault::PublishDenied { .. }) if limits.acknowledge_denied => {
                self.refuse(&publish, fault);
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Answers a message that was taken before, in its turn: as the first time when the store has what came of it.
    fn answer_repeat(&mut self, publish: &Publish<'_>) {
        if let Some(live) = self.live() {
            let position = live.session.repeated();
            live.inbound().push(publish, 0, Outcome::Repeated(position));
        }
        self.acknowledge_done();
    }

    /// Answers a request to a shadow where nobody serves them, as AWS answers what it does not allow. A client of MQTT 5
    /// that has not subscribed to the answer learns of it as well; it alone learns it of an answer to a command.
    fn reject(&mut self, publish: &Publish<'_>, topic: &TopicName) {
        let fault = Fault::NoShadows { topic: topic.to_string() };
        let is_request = ShadowRequest::of_topic(topic.as_str()).is_some();
        let answer = TopicName::new(format!("{topic}/rejected")).ok().filter(|_| is_request);
        let answer = answer.map(|topic| Publication {
            topic,
            payload: rejection(publish.payload),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: 0,
            properties: None,
        });
        if let Some(answer) = answer {
            self.want(Effect::Answer(answer));
        }
        self.refuse(publish, fault);
    }

    /// Refuses this one message, in its turn. MQTT 3.1.1 has no word for that: there it is acknowledged, and is nowhere.
    fn refuse(&mut self, publish: &Publish<'_>, fault: Fault) {
        if let Some(live) = self.live().filter(|_| publish.packet_id.is_some()) {
            let text = (!matches!(fault, Fault::PublishDenied { .. })).then(|| fault.to_string());
            let refusal = || Outcome::Refused(Box::new(Refusal { reason: fault.reason_code(), text }));
            let outcome = if live.version == Version::V5 { refusal() } else { Outcome::Stored };
            live.inbound().push(publish, 0, outcome);
        }
        self.want(Effect::Refused(fault));
        self.acknowledge_done();
    }

    /// Whether acknowledgements are withheld from now on: a subscriber has no room for what the client has published.
    pub fn withhold(&mut self, withheld: bool, now: Now) {
        let Some(live) = self.live() else { return };
        let was_withheld = std::mem::replace(&mut live.withheld, withheld);
        if was_withheld && !withheld {
            self.stored(0, now);
        }
    }

    /// The oldest `count` messages given out by [`Effect::Publish`] and not answered yet are durable.
    pub fn stored(&mut self, count: usize, now: Now) {
        let paused = !self.takes_packets();
        let Some(live) = self.live() else { return };
        if let Some(inbound) = &mut live.inbound {
            let open = inbound.waiting.iter_mut().filter(|waiting| matches!(waiting.outcome, Outcome::Open));
            open.take(count).for_each(|waiting| waiting.outcome = Outcome::Stored);
            if live.withheld {
                inbound.forget_unanswered();
            }
        }
        self.acknowledge_done();
        self.end_if_drained();
        self.resume(paused, now);
    }

    /// Takes no more packets, and closes when all publishes are acknowledged. Nothing is withheld any more: it publishes
    /// nothing that a subscriber would have to have room for.
    pub(super) fn drain(&mut self) {
        let Some(live) = self.live() else { return };
        live.draining = true;
        self.acknowledge_done();
        self.end_if_drained();
    }

    fn end_if_drained(&mut self) {
        if self.live().is_some_and(|live| live.draining && live.is_done()) {
            self.fail(Fault::Drain);
        }
    }

    /// The log did not take them, or their fate is unknown: no PUBACK leaves, and the client sends them again (P1).
    pub fn not_stored(&mut self) {
        self.fail(Fault::NotStored);
    }

    fn acknowledge_done(&mut self) {
        let next = |live: &mut Live| {
            let Live { inbound, session, withheld, draining, .. } = live;
            let inbound = inbound.as_mut().filter(|_| !*withheld || *draining)?;
            inbound.pop_done(|position| session.is_durable(position))
        };
        while let Some(done) = self.live().and_then(next) {
            let Some(packet_id) = done.packet_id else { continue };
            match done.outcome {
                Outcome::Open | Outcome::Stored | Outcome::Repeated(_) => {
                    if let Some(live) = self.live().filter(|_| done.qos == Qos::ExactlyOnce) {
                        live.inbound().unreleased += 1;
                    }
                    // [MQTT-4.3.2-4], [MQTT-4.3.3-8]
                    self.send(&answer(done.qos, Ack::new(packet_id, ReasonCode::Success)));
                }
                Outcome::Refused(refusal) => self.send_refusal(packet_id, done.qos, &refusal),
            }
        }
    }

    /// The reason in words only to a client that wants to know [MQTT-3.1.2-29].
    fn send_refusal(&mut self, packet_id: PacketId, qos: Qos, refusal: &Refusal) {
        let reason = refusal.reason;
        match refusal.text.as_deref().filter(|_| self.live().is_some_and(|live| live.problem_information)) {
            Some(text) => self.send_with_reason(text, |properties| answer(qos, Ack { packet_id, reason, properties })),
            None => self.send(&answer(qos, Ack::new(packet_id, reason))),
        }
    }

    /// PUBREL: the client knows that its message is kept. It is answered whether or not there was one [MQTT-4.3.3-11]:
    /// to a client of 3.1.1 there is no other word for "nothing of that id".
    pub(super) fn released(&mut self, packet_id: PacketId) {
        let Some(live) = self.live() else { return };
        let released = live.session.released(live.epoch, packet_id);
        if let Some(inbound) = live.inbound.as_mut().filter(|_| released != Released::Unknown) {
            inbound.unreleased = inbound.unreleased.saturating_sub(1);
        }
        let reason = match released {
            Released::Known => ReasonCode::Success,
            Released::Unknown => ReasonCode::PacketIdNotFound,
            Released::Later => return,
        };
        self.send(&Packet::PubComp(Ack::new(packet_id, reason)));
    }
}

impl Live {
    /// For a message that has come.
    pub(super) fn inbound(&mut self) -> &mut Inbound {
        self.inbound.get_or_insert_default()
    }

    /// Whether none of its messages wait.
    pub(super) fn is_done(&self) -> bool {
        self.inbound.as_ref().is_none_or(|inbound| inbound.waiting.is_empty())
    }

    /// As [`Inbound::begins_with_repeat`].
    pub(super) fn begins_with_repeat(&self) -> bool {
        self.inbound.as_ref().is_some_and(|inbound| inbound.begins_with_repeat())
    }

    /// Takes no packets before, monotonic; 0: it takes them.
    pub(super) fn rests_until_ms(&self) -> u64 {
        self.inbound.as_ref().map_or(0, |inbound| inbound.rests_until_ms)
    }

    /// Gives back what its messages took, if none is left: not after each, for the next may follow at once.
    pub(super) fn tidy(&mut self) {
        self.inbound.take_if(|inbound| inbound.is_idle());
    }

    /// Whether another message may be read. While its acknowledgements are withheld, a client that has messages to
    /// acknowledge itself is read on: else its inbox, and those whose acknowledgements wait for it, might wait for ever.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        let Some(inbound) = &self.inbound else { return true };
        let is_awaited = || self.session.awaits_answers(self.epoch);
        inbound.has_room(self.version, limits) || self.withheld && inbound.has_place() && is_awaited()
    }

    /// Whether the message was taken before: it is answered as it was then, whatever the policies say by now.
    fn is_repeat(&self, publish: &Publish<'_>) -> bool {
        let packet_id = publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce);
        packet_id.is_some_and(|packet_id| self.session.has_received(self.epoch, packet_id))
    }

    /// Whether the message may have been taken before: refused, its id would be free, and what is in the log taken twice.
    fn is_doubtful(&self, publish: &Publish<'_>) -> bool {
        let packet_id = publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce);
        packet_id.is_some_and(|packet_id| self.session.doubts(self.epoch, packet_id))
    }

    /// Whether a message is to be taken, and then whether it may have been taken before; `None`: it was.
    fn begin(&self, publish: &Publish<'_>) -> Result<Option<bool>, Fault> {
        let Some(packet_id) = publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce) else {
            return Ok(Some(publish.dup));
        };
        match self.session.begin(self.epoch, packet_id) {
            Begun::New { reused } => Ok(Some(publish.dup && !reused)),
            Begun::Doubtful => Ok(Some(true)),
            Begun::Repeat => Ok(None),
            Begun::Full => Err(Fault::Unreleased { limit: RECEIVED_MAX }),
            Begun::Lost => Err(Fault::TakenOver),
        }
    }

    /// Counts a message against the quotas. One beyond them is refused where the client can be told which one that is;
    /// else it is taken, and the client is not read before the next one's time.
    fn within_quotas(
        &mut self,
        publish: &Publish<'_>,
        topic: TopicName,
        quotas: &Quotas,
        now: Now,
    ) -> Result<TopicName, Fault> {
        let is_refusable = self.version == Version::V5 && publish.packet_id.is_some() && !self.is_doubtful(publish);
        let (tenant, device) = (self.session.tenant(), &self.identity.device);
        if is_refusable {
            quotas.take(tenant, device, now.monotonic_ms).map_err(Fault::OverQuota)?;
        } else {
            let wait_ms = quotas.owe(tenant, device, now.monotonic_ms);
            self.inbound().rests_until_ms = if wait_ms > 0 { now.monotonic_ms + wait_ms } else { 0 };
        }
        Ok(topic)
    }

    fn allowed(&self, topic: TopicName) -> Result<TopicName, Fault> {
        let allowed = self.identity.may_publish(topic.as_str(), self.session.client().as_str());
        if allowed { Ok(topic) } else { Err(Fault::PublishDenied { topic: topic.to_string() }) }
    }
}

/// The answer to a PUBLISH of QoS 1 or 2.
fn answer(qos: Qos, ack: Ack<'_>) -> Packet<'_> {
    if qos == Qos::AtLeastOnce { Packet::PubAck(ack) } else { Packet::PubRec(ack) }
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
    if bytes > limit {
        return Err(Fault::PayloadTooLarge { bytes, limit });
    }
    let told = live.version == Version::V5 && publish.packet_id.is_some();
    let open = live.inbound.as_ref().map_or(0, |inbound| inbound.open());
    if told && open >= usize::from(limits.receive_maximum) {
        return Err(Fault::ReceiveMaximum { limit: limits.receive_maximum }); // [MQTT-3.3.4-9]
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
