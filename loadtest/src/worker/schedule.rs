//! When a device measures, uploads and publishes: by the clock alone, whatever the server does (open loop).

use std::io::Write as _;

use super::device::{Active, Device, FLIGHTS_MAX, Flight, Lost, Phase, exponential};
use super::hands::{Alarm, Hands};
use super::plan::{Plan, Sends};
use super::{coap, http, mqtt};
use crate::payload::{Message, Reading, random};
use crate::scenario::{Protocol, Timing};
use drover_types::Qos;

/// Rows of one upload; the server's default limit (`ingress.http.batch_rows`). Further measurements are unsent.
const BATCH_ROWS_MAX: u32 = 10_000;

/// Sets a device's alarms for the whole run. Its first message is due at a time of its own after it arrives, so that a
/// fleet is not one drum.
pub fn begin(device: &Device, index: u32, plan: &Plan, hands: &mut Hands) {
    let arrives_us = plan.arrives_us(device.number);
    hands.timers.set(arrives_us, index, Alarm::Connect);
    let Some(sends) = &plan.sends else { return };
    let mut phase = random(plan.seed, plan.number, device.number);
    let within = |every_us: u64, share: f64| arrives_us.saturating_add((every_us as f64 * share) as u64);
    let first = if sends.publish.at_arrival { 0.0 } else { phase.f64() };
    hands.timers.set(within(sends.every_us, first), index, Alarm::Measure);
    if sends.publish.timing == Timing::Batch {
        hands.timers.set(within(sends.upload_us, phase.f64()), index, Alarm::Upload);
    }
}

/// A measurement is due: publishes it, keeps it, or drops it, and sets the next.
pub fn measure(device: &mut Device, index: u32, due_us: u64, hands: &mut Hands) {
    let plan = device.plan(hands);
    let Some(sends) = &plan.sends else { return };
    let every_us = sends.every_us;
    let gap_us = match sends.publish.timing {
        Timing::Poisson => exponential(every_us as f64, &mut hands.random).max(1),
        Timing::Fixed | Timing::Change | Timing::Batch => every_us,
    };
    hands.timers.set(due_us.saturating_add(gap_us), index, Alarm::Measure);
    // A device that is away by its own choice has nothing to send.
    if device.phase == Phase::Away {
        return;
    }
    let number = device.number;
    let active = device.active();
    let start = || sends.models.sensors(random(plan.seed, plan.number, number));
    let sensors = active.sensors.get_or_insert_with(start);
    let readings = sends.models.measure(sensors, due_us.saturating_mul(sends.speed));
    if !has_changed(active, sends, &readings, due_us) {
        return;
    }
    match sends.publish.timing {
        Timing::Batch => keep_row(device, &plan, sends, &readings, due_us, hands),
        Timing::Fixed | Timing::Poisson | Timing::Change => post(device, index, &plan, sends, &readings, due_us, hands),
    }
}

/// Whether there is none to watch, or the watched value differs enough from what was sent last, or that is too long ago.
fn has_changed(active: &mut Active, sends: &Sends, readings: &[Reading], due_us: u64) -> bool {
    let Some(value) = sends.watched.map(|watched| readings[watched].number()) else { return true };
    let is_news = active.last.is_none_or(|(last, at_us)| {
        (value - last).abs() >= sends.publish.by || due_us.saturating_sub(at_us) >= sends.at_most_us
    });
    if is_news {
        active.last = Some((value, due_us));
    }
    is_news
}

/// The payload of the device's next message, which is booked as sent.
fn payload(
    device: &mut Device,
    plan: &Plan,
    sends: &Sends,
    readings: &[Reading],
    due_us: u64,
    hands: &mut Hands,
) -> (u64, String) {
    let (index, name) = (device.number, plan.device(device.number));
    let active = device.active();
    let number = active.next_number;
    active.next_number += 1;
    let mut text = String::new();
    let sent_us = hands.clock.unix_us(due_us);
    sends.template.put(&Message { device: &name, index, number, sent_us, readings }, &mut text);
    while text.len() < sends.publish.pad {
        text.push(' ');
    }
    hands.book(|journal| journal.sent(&name, number));
    (number, text)
}

/// Puts one message among those that wait, and sends it if it can be.
fn post(
    device: &mut Device,
    index: u32,
    plan: &Plan,
    sends: &Sends,
    readings: &[Reading],
    due_us: u64,
    hands: &mut Hands,
) {
    hands.tally.counts.due += 1;
    if device.active().flights.len() >= FLIGHTS_MAX {
        hands.tally.counts.unsent += 1;
        return;
    }
    let (number, payload) = payload(device, plan, sends, readings, due_us, hands);
    let topic = plan.fill(&sends.publish.topic, device.number);
    let framed = match plan.fleet.protocol {
        Protocol::Http | Protocol::Https => {
            let path = format!("/v1/topics/{topic}?qos={}", u8::from(sends.qos));
            Ok((0, http::request(plan, &path, payload.as_bytes())))
        }
        Protocol::Coap => {
            // As in a batch: the id tells devices and runs apart.
            let id = format!("{}-{}-{number}", hands.clock.start_unix_us() / 1_000, plan.device(device.number));
            coap::frame(device.active(), plan, sends.qos, &topic, &id, payload.as_bytes())
        }
        Protocol::Mqtt | Protocol::Mqtts | Protocol::Ws | Protocol::Wss => {
            mqtt::frame(device.active(), plan.version(), sends.qos, &topic, payload.as_bytes())
        }
    };
    match framed {
        Ok((packet_id, frame)) => {
            let is_repeatable = packet_id > 0;
            let flight =
                Flight { due_us, number: Some(number), messages: 1, packet_id, is_repeatable, was_sent: false, frame };
            launch(device, index, plan, flight, hands);
        }
        Err(lost) => {
            hands.tally.counts.unsent += 1;
            hands.tally.error(lost.to_string());
        }
    }
}

/// Keeps one measurement for the next upload.
fn keep_row(device: &mut Device, plan: &Plan, sends: &Sends, readings: &[Reading], due_us: u64, hands: &mut Hands) {
    hands.tally.counts.due += 1;
    if device.active().row_count >= BATCH_ROWS_MAX {
        hands.tally.counts.unsent += 1;
        return;
    }
    let (number, payload) = payload(device, plan, sends, readings, due_us, hands);
    let name = plan.device(device.number);
    let topic = plan.fill(&sends.publish.topic, device.number);
    let (time_ms, run) = (hands.clock.unix_us(due_us) / 1_000, hands.clock.start_unix_us() / 1_000);
    let active = device.active();
    // The id tells runs apart, or a run would repeat what the one before has sent.
    writeln!(
        active.rows,
        r#"{{"device":"{name}","topic":"{topic}","payload":{payload},"time":{time_ms},"qos":{},"id":"{run}-{number}"}}"#,
        u8::from(sends.qos),
    )
    .expect("a vector takes all");
    active.row_count += 1;
}

/// An upload is due: what was kept becomes one request.
pub fn upload(device: &mut Device, index: u32, due_us: u64, hands: &mut Hands) {
    let plan = device.plan(hands);
    let Some(sends) = &plan.sends else { return };
    hands.timers.set(due_us.saturating_add(sends.upload_us), index, Alarm::Upload);
    let active = device.active();
    if active.row_count == 0 || active.flights.len() >= FLIGHTS_MAX {
        return;
    }
    let (rows, messages) = (std::mem::take(&mut active.rows), std::mem::take(&mut active.row_count));
    let number = active.next_number - u64::from(messages);
    let frame = http::request(&plan, "/v1/batch", &rows);
    let flight =
        Flight { due_us, number: Some(number), messages, packet_id: 0, is_repeatable: true, was_sent: false, frame };
    launch(device, index, &plan, flight, hands);
}

fn launch(device: &mut Device, index: u32, plan: &Plan, flight: Flight, hands: &mut Hands) {
    let is_first = device.active().flights.is_empty();
    device.active().flights.push_back(flight);
    // A connection of HTTP that rested is opened when there is something to say.
    if plan.fleet.protocol.is_http() && is_first && device.phase == Phase::Absent {
        device.due_us = hands.now_us;
        hands.timers.set(hands.now_us, index, Alarm::Connect);
    }
    device.send_waiting(plan, hands);
    if device.phase == Phase::Up
        && let Err(lost) = device.write_out(plan, hands)
    {
        device.lost(index, &lost, hands);
    }
}

/// Answers what came, at QoS 1; it goes out with this turn.
pub fn answer(device: &mut Device, plan: &Plan, topic: &str, payload: &[u8], hands: &mut Hands) -> Result<(), Lost> {
    let due_us = hands.now_us;
    let active = device.active();
    if active.flights.len() >= FLIGHTS_MAX {
        hands.tally.counts.unsent += 1;
        return Ok(());
    }
    let (packet_id, frame) = mqtt::frame(active, plan.version(), Qos::AtLeastOnce, topic, payload)?;
    active.flights.push_back(Flight {
        due_us,
        number: None,
        messages: 1,
        packet_id,
        is_repeatable: true,
        was_sent: false,
        frame,
    });
    hands.tally.counts.due += 1;
    device.send_waiting(plan, hands);
    Ok(())
}

/// Counts what is not sent, or not acknowledged, when the run is over, and forgets it.
pub fn settle(device: &mut Device, hands: &mut Hands) {
    let Some(active) = &mut device.active else { return };
    active.in_flight = 0;
    for flight in active.flights.drain(..) {
        if flight.was_sent {
            flight.give_up(hands);
        } else {
            hands.tally.counts.unsent += u64::from(flight.messages);
        }
    }
    hands.tally.counts.unsent += u64::from(std::mem::take(&mut active.row_count));
}
