//! CoAP as a device speaks it (RFC 7252): one confirmable POST at a time to `/t/TOPIC`, sent again until it is answered; at
//! QoS 0 a non-confirmable one, which is not. The codec is `coap-lite`, as in the ingress.
//!
//! In buffers a datagram follows its length (two bytes, big-endian), so that connections of all kinds share their way.

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use drover_types::Qos;

use super::device::{Active, Device, Lost};
use super::hands::Hands;
use super::plan::Plan;

/// Longest payload, in bytes: longer ones would need blocks (RFC 7959).
pub const PAYLOAD_BYTES_MAX: usize = 1_024;
/// Longest datagram, in bytes: the payload and its options.
pub const DATAGRAM_BYTES_MAX: usize = 4_096;
/// Bytes of the length before a datagram.
pub const LENGTH_BYTES: usize = 2;
/// The option of a device's token (`docs/coap.md`).
const TOKEN_OPTION: u16 = 65_003;
/// `application/json` (section 12.3).
const JSON: u8 = 50;
/// Class of the codes of success.
const SUCCESS: u8 = 2;
/// `ACK_TIMEOUT`, what `ACK_RANDOM_FACTOR` adds to it, and `MAX_RETRANSMIT` (section 4.8).
const ACK_TIMEOUT_US: u64 = 2_000_000;
const ACK_RANDOM_US: u64 = 1_000_000;
const REPEATS_MAX: u8 = 4;
/// `MAX_TRANSMIT_WAIT` (section 4.8.2): what has no answer by then has none.
const WAIT_US: u64 = 93_000_000;

/// How far the one request that is under way has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchange {
    sent_us: u64,
    /// When it is sent again, and the pause before that.
    repeat_us: u64,
    pause_us: u64,
    repeats: u8,
    /// Whether the server has said that the answer will come by itself.
    is_taken: bool,
}

impl Exchange {
    /// That of a request which leaves now.
    pub fn begin(now_us: u64, random: &mut fastrand::Rng) -> Self {
        let pause_us = ACK_TIMEOUT_US + random.u64(0..=ACK_RANDOM_US);
        Self { sent_us: now_us, repeat_us: now_us + pause_us, pause_us, repeats: 0, is_taken: false }
    }

    /// Whether it is time to send it again; books that.
    fn is_due(&mut self, now_us: u64) -> bool {
        let is_due = !self.is_taken && self.repeats < REPEATS_MAX && now_us >= self.repeat_us;
        if is_due {
            self.repeats += 1;
            self.pause_us *= 2;
            self.repeat_us = now_us + self.pause_us;
        }
        is_due
    }
}

/// The request of a message, and its message id; 0 at QoS 0. By `id` the server recognises it in a later connection.
pub fn frame(
    active: &mut Active,
    plan: &Plan,
    qos: Qos,
    topic: &str,
    id: &str,
    payload: &[u8],
) -> Result<(u16, Vec<u8>), Lost> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let bytes = payload.len();
        return Err(Lost::Coap(format!("payload must be at most {PAYLOAD_BYTES_MAX} bytes, but is {bytes}")));
    }
    active.packet_id = active.packet_id.checked_add(1).unwrap_or(1);
    let (message_id, is_confirmable) = (active.packet_id, qos != Qos::AtMostOnce);
    let mut packet = Packet::new();
    let kind = if is_confirmable { MessageType::Confirmable } else { MessageType::NonConfirmable };
    packet.header.set_type(kind);
    packet.header.code = MessageClass::Request(RequestType::Post);
    packet.header.message_id = message_id;
    packet.set_token(message_id.to_be_bytes().to_vec());
    packet.add_option(CoapOption::UriPath, b"t".to_vec());
    for level in topic.split('/') {
        packet.add_option(CoapOption::UriPath, level.as_bytes().to_vec());
    }
    packet.add_option(CoapOption::ContentFormat, vec![JSON]);
    packet.add_option(CoapOption::UriQuery, format!("id={id}").into_bytes());
    if let Some(token) = &plan.password {
        packet.add_option(CoapOption::Unknown(TOKEN_OPTION), token.clone().into_bytes());
    }
    packet.payload = payload.to_vec();
    let mut framed = Vec::new();
    put(&packet, &mut framed)?;
    Ok((if is_confirmable { message_id } else { 0 }, framed))
}

fn put(packet: &Packet, out: &mut Vec<u8>) -> Result<(), Lost> {
    let datagram =
        packet.to_bytes_with_limit(DATAGRAM_BYTES_MAX).map_err(|error| Lost::Coap(format!("not sendable: {error}")))?;
    out.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
    out.extend_from_slice(&datagram);
    Ok(())
}

/// The datagram at the front of `bytes`.
pub fn datagram(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

/// What becomes of the request of a connection that has ended: it is sent again, and recognised by its id.
pub fn restart(active: &mut Active) {
    active.in_flight = 0;
}

/// Takes the datagrams in `bytes`; how many bytes they were.
pub fn take(device: &mut Device, plan: &Plan, bytes: &[u8], hands: &mut Hands) -> Result<usize, Lost> {
    let mut taken = 0;
    while let Some(datagram) = datagram(&bytes[taken..]) {
        taken += LENGTH_BYTES + datagram.len();
        match Packet::from_bytes(datagram) {
            Ok(packet) => receive(device, plan, &packet, hands)?,
            Err(error) => hands.tally.error(format!("coap: unreadable: {error}")),
        }
    }
    Ok(taken)
}

fn receive(device: &mut Device, plan: &Plan, packet: &Packet, hands: &mut Hands) -> Result<(), Lost> {
    let (kind, code, id) = (packet.header.get_type(), packet.header.code, packet.header.message_id);
    let is_response = matches!(code, MessageClass::Response(_));
    if kind == MessageType::Confirmable && is_response {
        acknowledge(id, &mut hands.output)?;
    }
    let Some(active) = device.active.as_mut().filter(|active| active.in_flight > 0) else { return Ok(()) };
    let asked = active.flights.front().map_or(0, |flight| flight.packet_id);
    if is_response && packet.get_token() == asked.to_be_bytes() {
        answered(device, plan, code, hands);
    } else if id == asked && kind == MessageType::Acknowledgement {
        active.exchange.is_taken = true;
    } else if id == asked && kind == MessageType::Reset {
        answered(device, plan, code, hands);
    }
    Ok(())
}

/// An empty acknowledgement.
fn acknowledge(id: u16, out: &mut Vec<u8>) -> Result<(), Lost> {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Acknowledgement);
    packet.header.code = MessageClass::Empty;
    packet.header.message_id = id;
    put(&packet, out)
}

fn answered(device: &mut Device, plan: &Plan, code: MessageClass, hands: &mut Hands) {
    let Some(active) = &mut device.active else { return };
    active.in_flight = 0;
    let Some(flight) = active.flights.pop_front() else { return };
    if u8::from(code) >> 5 == SUCCESS {
        flight.landed(1, hands);
        if let Some(number) = flight.number.filter(|_| hands.journal.is_some()) {
            let name = plan.device(device.number);
            hands.book(|journal| journal.acknowledged(&name, number));
        }
    } else {
        hands.tally.counts.refused += 1;
        hands.tally.error(format!("coap {code}"));
    }
    device.send_waiting(plan, hands);
}

/// What a second without an answer asks for: sends the request again, or gives it up; puts it out with this turn.
pub fn tick(device: &mut Device, plan: &Plan, hands: &mut Hands) {
    let Some(active) = device.active.as_mut().filter(|active| active.in_flight > 0) else { return };
    if hands.now_us.saturating_sub(active.exchange.sent_us) > WAIT_US {
        active.in_flight = 0;
        if let Some(flight) = active.flights.pop_front() {
            flight.give_up(hands);
        }
        device.send_waiting(plan, hands);
    } else if active.exchange.is_due(hands.now_us)
        && let Some(flight) = active.flights.front()
    {
        hands.output.extend_from_slice(&flight.frame);
        hands.tally.error("coap request sent again".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_again_four_times_each_later_than_the_one_before() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut exchange = Exchange::begin(0, &mut random);
        let mut due_s = Vec::new();
        for second in 1..100 {
            if exchange.is_due(second * 1_000_000) {
                due_s.push(second);
            }
        }
        assert_eq!(due_s.len(), 4, "{due_s:?}");
        assert!((2..=3).contains(&due_s[0]) && due_s[3] < 60, "{due_s:?}");
        assert!(due_s.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{due_s:?}");
        let mut taken = Exchange { is_taken: true, ..Exchange::begin(0, &mut random) };
        assert!(!taken.is_due(90_000_000), "the answer will come by itself");
    }

    #[test]
    fn a_datagram_is_found_behind_its_length() {
        let mut out = Vec::new();
        acknowledge(7, &mut out).expect("it fits");
        let first = out.len();
        acknowledge(9, &mut out).expect("it fits");
        let ids = [&out[..], &out[first..]].map(|bytes| {
            Packet::from_bytes(datagram(bytes).expect("a datagram")).map(|packet| packet.header.message_id).ok()
        });
        assert_eq!(ids, [Some(7), Some(9)]);
        assert_eq!(datagram(&out[..first - 1]), None);
    }
}
