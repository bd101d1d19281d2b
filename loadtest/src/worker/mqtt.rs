//! MQTT as a device speaks it: greets, subscribes, takes in what comes, answers.
//!
//! The codec is that of `drover_mqtt`; its client is not used, because an idle one is five times as large as a device.

use drover_mqtt::{
    Ack, ConnAck, Connect, Decoder, Disconnect, Packet, PacketId, Properties, Property, PropertyList, Publish,
    ReasonCode, Side, Subscribe, Subscription, SubscriptionList, SubscriptionOptions, Version, encode,
};
use drover_types::Qos;
use memchr::memmem;

use super::device::{Active, Device, Flight, Lost, Phase};
use super::hands::Hands;
use super::plan::Plan;
use super::schedule;
use crate::scenario::Answer;

/// Largest packet accepted, in bytes.
const PACKET_BYTES_MAX: u32 = 1024 * 1024;
/// Identifier of the one SUBSCRIBE of a connection; messages have those below.
const SUBSCRIBE_ID: u16 = u16::MAX;
/// Bit of the first byte of a PUBLISH that says it is delivered again (section 3.3.1.1).
const DUP: u8 = 0b1000;
/// The field of a payload that says when it was due.
const SENT_FIELD: &[u8] = b"\"sent_us\":";

/// Begins the connection.
pub fn greet(device: &mut Device, plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
    let (client_id, fleet) = (plan.device(device.number), &plan.fleet);
    let user = fleet.user.as_deref().map(|user| plan.fill(user, device.number));
    // A token goes with its device's name.
    let user = user.or_else(|| plan.password.as_ref().map(|_| client_id.clone()));
    let mut properties = PropertyList::default();
    if fleet.v5 && !fleet.clean {
        properties.push(Property::SessionExpiry((fleet.session_expiry.us() / 1_000_000) as u32))?;
    }
    let connect = Connect {
        clean_start: fleet.clean,
        keep_alive_s: (fleet.keep_alive.us() / 1_000_000) as u16,
        properties: properties.as_properties(),
        user_name: user.as_deref(),
        password: plan.password.as_deref().map(str::as_bytes),
        ..Connect::new(plan.version(), &client_id)
    };
    put(&Packet::Connect(connect), plan, hands)
}

pub fn ping(plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
    put(&Packet::PingReq, plan, hands)
}

pub fn disconnect(plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
    put(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)), plan, hands)
}

fn put(packet: &Packet<'_>, plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
    Ok(encode(packet, plan.version(), &mut hands.output)?)
}

/// Makes the messages of a connection that has ended wait again, as ones that may be delivered twice.
pub fn restart(active: &mut Active) {
    for flight in active.flights.iter_mut().take(active.in_flight) {
        flight.frame[0] |= DUP; // [MQTT-3.3.1-1]
    }
    active.in_flight = 0;
}

/// Takes the whole packets at the front of `bytes`; how many bytes they were.
pub fn take(device: &mut Device, plan: &Plan, index: u32, bytes: &[u8], hands: &mut Hands) -> Result<usize, Lost> {
    let decoder = Decoder { sender: Side::Server, version: plan.version(), packet_bytes_max: PACKET_BYTES_MAX };
    let mut taken = 0;
    while let Some((packet, packet_bytes)) = decoder.decode(&bytes[taken..])? {
        taken += packet_bytes;
        receive(device, plan, index, &packet, hands)?;
    }
    Ok(taken)
}

fn receive(device: &mut Device, plan: &Plan, index: u32, packet: &Packet<'_>, hands: &mut Hands) -> Result<(), Lost> {
    match packet {
        Packet::ConnAck(ack) if device.phase == Phase::Greeting => connected(device, plan, index, ack, hands),
        Packet::PubAck(ack) => {
            acknowledged(device, plan, ack, hands);
            Ok(())
        }
        Packet::Publish(message) => message_came(device, plan, message, hands),
        Packet::SubAck(ack) => {
            for reason in ack.reasons.iter().filter(|reason| reason.is_error()) {
                hands.tally.counts.refused += 1;
                hands.tally.error(format!("subscription refused: {reason}"));
            }
            Ok(())
        }
        Packet::PingResp => {
            device.awaits_pong = false;
            Ok(())
        }
        Packet::Disconnect(packet) => Err(Lost::Disconnected(packet.reason)),
        other => Err(Lost::Unexpected(other.packet_type())),
    }
}

fn connected(device: &mut Device, plan: &Plan, index: u32, ack: &ConnAck<'_>, hands: &mut Hands) -> Result<(), Lost> {
    if ack.reason.is_error() {
        return Err(Lost::Refused(ack.reason));
    }
    device.up(plan, index, hands);
    let is_kept = plan.keeps_sessions();
    if is_kept && device.has_session && !ack.session_present {
        hands.tally.counts.sessions_lost += 1;
    }
    device.has_session = is_kept;
    subscribe(device, plan, hands)?;
    device.send_waiting(plan, hands);
    Ok(())
}

/// Subscribes to everything, also in a session that the server has kept: that changes nothing there.
fn subscribe(device: &Device, plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
    let own = plan.fleet.subscribe.iter().map(|subscribe| (subscribe.filter.as_str(), subscribe.qos));
    let answers = plan.fleet.answer.iter().map(|answer| (answer.filter.as_str(), 1));
    let mut list = SubscriptionList::default();
    for (filter, qos) in own.chain(answers) {
        let qos = if qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let filter = plan.fill(filter, device.number);
        list.push(Subscription { filter: &filter, options: SubscriptionOptions::new(qos) })?;
    }
    if plan.fleet.subscribe.is_empty() && plan.fleet.answer.is_empty() {
        return Ok(());
    }
    let packet_id = PacketId::new(SUBSCRIBE_ID).expect("it is not 0");
    let packet = Subscribe { packet_id, properties: Properties::default(), subscriptions: list.as_subscriptions() };
    put(&Packet::Subscribe(packet), plan, hands)
}

/// A message of ours is there, or is refused.
fn acknowledged(device: &mut Device, plan: &Plan, ack: &Ack<'_>, hands: &mut Hands) {
    let Some(active) = &mut device.active else { return };
    let mut sent = active.flights.iter().take(active.in_flight);
    let Some(at) = sent.position(|flight| flight.packet_id == ack.packet_id.get()) else { return };
    active.in_flight -= 1;
    let Some(flight) = active.flights.remove(at) else { return };
    landed(device, plan, &flight, ack.reason, hands);
    device.send_waiting(plan, hands);
}

fn landed(device: &Device, plan: &Plan, flight: &Flight, reason: ReasonCode, hands: &mut Hands) {
    if reason.is_error() {
        hands.tally.counts.refused += 1;
        hands.tally.error(format!("message refused: {reason}"));
        return;
    }
    flight.landed(1, hands);
    if let Some(number) = flight.number.filter(|_| hands.journal.is_some()) {
        let name = plan.device(device.number);
        hands.book(|journal| journal.acknowledged(&name, number));
    }
}

/// A message for this device: counted, booked, acknowledged, answered.
fn message_came(device: &mut Device, plan: &Plan, message: &Publish<'_>, hands: &mut Hands) -> Result<(), Lost> {
    hands.tally.counts.received += 1;
    let now_unix_us = hands.clock.unix_us(hands.clock.now_us());
    if let Some(sent_us) = sent_us(message.payload) {
        hands.tally.end_to_end.record(now_unix_us.saturating_sub(sent_us));
    }
    // Who only answers is promised nothing.
    if hands.journal.is_some() && !plan.fleet.subscribe.is_empty() {
        let consumer = plan.device(device.number);
        hands.book(|journal| journal.received(&consumer, message.payload));
    }
    if let Some(packet_id) = message.packet_id {
        put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)), plan, hands)?;
    }
    let is_for = |answer: &&Answer| {
        drover_types::matches(&plan.fill(&answer.filter, device.number), message.topic)
            && message.topic.ends_with(&answer.ending[0])
    };
    let Some(answer) = plan.fleet.answer.iter().find(is_for) else { return Ok(()) };
    let stem = message.topic.strip_suffix(answer.ending[0].as_str()).unwrap_or(message.topic);
    let state: Option<Asked<'_>> = serde_json::from_slice(message.payload).ok();
    let state = state.and_then(|asked| asked.state).map_or("null", serde_json::value::RawValue::get);
    let payload = plan.fill(&answer.payload.replace("{state}", state), device.number);
    let topic = format!("{stem}{}", answer.ending[1]);
    hands.tally.counts.answered += 1;
    schedule::answer(device, plan, &topic, payload.as_bytes(), hands)
}

/// What an answer may speak of.
#[derive(serde::Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    state: Option<&'a serde_json::value::RawValue>,
}

/// When a payload says it was due, in microseconds since 1970.
fn sent_us(payload: &[u8]) -> Option<u64> {
    let at = memmem::find(payload, SENT_FIELD)? + SENT_FIELD.len();
    let digits = payload[at..].trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// The packet of a message; at QoS 1 with an identifier that none of the device's other messages has.
pub fn frame(
    active: &mut Active,
    version: Version,
    qos: Qos,
    topic: &str,
    payload: &[u8],
) -> Result<(u16, Vec<u8>), Lost> {
    let packet_id = if qos == Qos::AtMostOnce {
        None
    } else {
        loop {
            active.packet_id = if active.packet_id >= SUBSCRIBE_ID - 1 { 1 } else { active.packet_id + 1 };
            let id = active.packet_id;
            if !active.flights.iter().any(|flight| flight.packet_id == id) {
                break PacketId::new(id);
            }
        }
    };
    let mut frame = Vec::with_capacity(topic.len() + payload.len() + 16);
    let message = Publish { qos, packet_id, ..Publish::new(topic, payload) };
    encode(&Packet::Publish(message), version, &mut frame)?;
    Ok((packet_id.map_or(0, PacketId::get), frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_a_message_was_due_is_found_in_its_payload() {
        assert_eq!(sent_us(br#"{"n": 1, "sent_us": 1795669200000123}"#), Some(1_795_669_200_000_123));
        assert_eq!(sent_us(br#"{"sent_us":5,"n":1}"#), Some(5));
        assert_eq!((sent_us(b"{}"), sent_us(br#"{"sent_us": "x"}"#)), (None, None));
    }
}
