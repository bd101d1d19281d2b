//! HTTP/1.1 as a device speaks it: one request at a time over a connection that stays.

use std::io::Write as _;

use super::device::{Active, Device, Lost};
use super::hands::Hands;
use super::plan::Plan;

/// Headers of an answer that are read.
const HEADERS_MAX: usize = 64;
/// Longest body of an answer, in bytes; that of a batch names refused rows.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Every row is kept, or only some (`docs/http.md`).
const OK: u16 = 200;
const PARTLY: u16 = 207;

/// A request with a JSON body.
pub fn request(plan: &Plan, path: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 256);
    let authority = &plan.authority;
    write!(frame, "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n")
        .expect("a vector takes all");
    if let Some(token) = &plan.password {
        write!(frame, "Authorization: Bearer {token}\r\n").expect("a vector takes all");
    }
    write!(frame, "Content-Length: {}\r\n\r\n", body.len()).expect("a vector takes all");
    frame.extend_from_slice(body);
    frame
}

/// What becomes of the request of a connection that has ended: a batch is sent again, since its rows have ids by which
/// they are recognised; a single message would be doubled, and is given up.
pub fn restart(active: &mut Active, hands: &mut Hands) {
    let is_given_up = active.in_flight > 0 && active.flights.front().is_some_and(|flight| !flight.is_repeatable);
    let given_up = is_given_up.then(|| active.flights.pop_front()).flatten();
    if let Some(flight) = given_up {
        flight.give_up(hands);
    }
    active.in_flight = 0;
}

/// Takes the whole answers at the front of `bytes`; how many bytes they were.
pub fn take(device: &mut Device, plan: &Plan, bytes: &[u8], hands: &mut Hands) -> Result<usize, Lost> {
    let mut taken = 0;
    while let Some((status, body, answer_bytes)) = answer(&bytes[taken..])? {
        taken += answer_bytes;
        answered(device, plan, status, body, hands);
    }
    Ok(taken)
}

/// Status, body and length of an answer.
type Answer<'b> = (u16, &'b [u8], usize);

/// The answer at the front of `bytes`, once it is there as a whole.
fn answer(bytes: &[u8]) -> Result<Option<Answer<'_>>, Lost> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|error| Lost::Http(error.to_string()))?;
    let httparse::Status::Complete(head_bytes) = parsed else { return Ok(None) };
    let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = header.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let length = length.ok_or_else(|| Lost::Http("no content-length".to_owned()))?;
    if length > BODY_BYTES_MAX {
        return Err(Lost::Http(format!("body must be at most {BODY_BYTES_MAX} bytes, but is {length}")));
    }
    let end = head_bytes + length;
    let body = bytes.get(head_bytes..end);
    Ok(body.map(|body| (head.code.unwrap_or_default(), body, end)))
}

/// The part of a batch's answer that is counted.
#[derive(serde::Deserialize)]
struct Kept {
    kept: u64,
}

fn answered(device: &mut Device, plan: &Plan, status: u16, body: &[u8], hands: &mut Hands) {
    let Some(active) = device.active.as_mut().filter(|active| active.in_flight > 0) else { return };
    active.in_flight = 0;
    let Some(flight) = active.flights.pop_front() else { return };
    let messages = u64::from(flight.messages);
    let kept = match status {
        OK => messages,
        PARTLY => serde_json::from_slice::<Kept>(body).map_or(0, |answer| answer.kept.min(messages)),
        _ => 0,
    };
    hands.tally.counts.refused += messages - kept;
    if kept > 0 {
        flight.landed(kept, hands);
    }
    if kept < messages {
        hands.tally.error(format!("http status {status}"));
    } else if let Some(first) = flight.number.filter(|_| hands.journal.is_some()) {
        let name = plan.device(device.number);
        for number in first..first + messages {
            hands.book(|journal| journal.acknowledged(&name, number));
        }
    }
    device.send_waiting(plan, hands);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_there_as_a_whole() {
        let bytes = b"HTTP/1.1 207 Multi-Status\r\nContent-Length: 10\r\n\r\n{\"kept\":3}HTTP/1.1";
        for part in 0..bytes.len() - 8 {
            assert!(answer(&bytes[..part]).is_ok_and(|answer| answer.is_none()), "{part}");
        }
        let (status, body, taken) = answer(bytes).expect("readable").expect("whole");
        assert_eq!((status, body, taken), (207, &b"{\"kept\":3}"[..], bytes.len() - 8));
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
    }
}
