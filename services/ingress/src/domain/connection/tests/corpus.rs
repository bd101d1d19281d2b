//! A client from its first byte on: whatever it sends, in whatever pieces, and whatever the node does meanwhile.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::inputs::packets;
use super::*;

/// Bytes of a piece, and of what waits behind a CONNECT besides.
const PIECE_BYTES_MAX: usize = 500;

/// What happens next to a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    Read(usize),
    /// The registry answers, if it was asked; whether it knows the client.
    Authenticated(bool),
    /// The session is there, if it was asked for.
    Attached,
    /// The log has so many messages.
    Stored(usize),
    /// A SUBSCRIBE or UNSUBSCRIBE may be answered.
    Settled,
    /// So many milliseconds pass.
    Pass(u64),
    Stop(Stop),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..PIECE_BYTES_MAX).prop_map(Event::Read),
        3 => any::<bool>().prop_map(Event::Authenticated),
        3 => Just(Event::Attached),
        3 => (0usize..4).prop_map(Event::Stored),
        2 => Just(Event::Settled),
        1 => (0u64..20_000).prop_map(Event::Pass),
        1 => prop_oneof![Just(Stop::Drain), Just(Stop::TakenOver), Just(Stop::Revoked)].prop_map(Event::Stop),
    ]
}

fn connects() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(Version::V311), Just(Version::V5)];
    let client = prop_oneof![4 => Just("c"), 1 => Just("d"), 1 => Just("")];
    (version, client, any::<bool>(), 0u16..3).prop_map(|(version, client, clean_start, keep_alive_s)| {
        let mut bytes = Vec::new();
        let connect = Connect { clean_start, keep_alive_s, ..Connect::new(version, client) };
        encode(&Packet::Connect(connect), version, &mut bytes).expect("valid");
        bytes
    })
}

/// A CONNECT, packets behind it, and a few bytes that are others than they should be.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let sent = (connects(), proptest::collection::vec(packets(), 0..20));
    (sent, changes).prop_map(|((connect, packets), changes)| {
        let mut stream = [connect, packets.concat()].concat();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

/// Whether these bytes are whole packets.
fn is_framed(mut bytes: &[u8]) -> bool {
    while let Some((_, rest)) = bytes.split_first() {
        let (mut length, mut shift, mut at) = (0, 0, 0);
        loop {
            let Some(byte) = rest.get(at) else { return false };
            length |= usize::from(byte & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(behind) = rest.get(at + length..) else { return false };
        bytes = behind;
    }
    true
}

/// What is true whatever happens: the client hears whole packets only, nothing comes after the end, and what waits is
/// bounded.
fn run(stream: &[u8], events: impl IntoIterator<Item = Event>) -> Result<(), TestCaseError> {
    let mut client = Client::new(Version::V5);
    let (mut sent, mut now_ms, mut seen, mut closed) = (0, 0, 0, false);
    let (mut asked, mut attaching, mut open, mut unsettled) = (false, false, 0, 0);
    for event in events {
        let was_closed = closed;
        match event {
            Event::Read(bytes) if client.connection.wants_bytes(client.input.len()) => {
                let end = (sent + bytes).min(stream.len());
                client.input.put_slice(&stream[sent..end]);
                sent = end;
            }
            Event::Authenticated(known) if std::mem::take(&mut asked) => {
                let unknown = || AuthenticateError::Wrong { reason: "nobody".to_owned() };
                client.connection.authenticated(if known { Ok(Arc::new(identity())) } else { Err(unknown()) });
            }
            Event::Attached if std::mem::take(&mut attaching) => client.attach(false),
            Event::Stored(count) => {
                let count = count.min(open);
                open -= count;
                client.connection.stored(count, at(now_ms));
            }
            Event::Settled if unsettled > 0 => {
                unsettled -= 1;
                client.connection.subscribed(at(now_ms));
            }
            Event::Pass(ms) => {
                now_ms += ms;
                client.connection.tick(at(now_ms));
            }
            Event::Stop(stop) => client.connection.stop(stop),
            Event::Read(_) | Event::Authenticated(_) | Event::Attached | Event::Settled => {}
        }
        client.go(now_ms);
        for effect in &client.effects[seen..] {
            prop_assert!(!closed, "{:?} comes after the end", effect);
            match effect {
                Effect::Authenticate(_) => asked = true,
                Effect::Attach(_) => attaching = true,
                Effect::Publish(_) => open += 1,
                Effect::Subscribe(_) | Effect::Unsubscribe(_) => unsettled += 1,
                Effect::Close(_) => closed = true,
                _ => {}
            }
        }
        seen = client.effects.len();
        let output = client.connection.output().split();
        prop_assert!(is_framed(&output), "{:?}", output);
        prop_assert!(output.is_empty() || !was_closed, "{:?} is said after the end", output);
        prop_assert!(client.input.len() <= BEHIND_CONNECT_BYTES_MAX + CONNECT_BYTES_MAX as usize + PIECE_BYTES_MAX);
        if closed {
            prop_assert!(!client.connection.wants_bytes(0) && client.connection.deadline_ms().is_none());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_a_client_sends_from_the_first_byte_on_is_answered_in_whole_packets_or_ended(
        stream in streams(),
        events in proptest::collection::vec(events(), 1..120),
    ) {
        run(&stream, events)?;
    }
}

#[test]
fn streams_worth_remembering_are_answered_in_whole_packets_or_ended_in_whatever_pieces() {
    let lines = include_str!("corpus.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let streams: Vec<Vec<u8>> = lines.map(bytes_of_hex).collect();
    assert!(streams.len() > 10);
    for stream in &streams {
        for piece in [1, 2, 7, PIECE_BYTES_MAX] {
            let others = [Event::Authenticated(true), Event::Attached, Event::Stored(1), Event::Settled];
            let turn = [Event::Read(piece)].into_iter().chain(others);
            let events = std::iter::repeat_n(turn, stream.len() + 4).flatten();
            run(stream, events).unwrap_or_else(|error| panic!("{stream:02x?} in pieces of {piece}: {error}"));
        }
    }
}

fn bytes_of_hex(line: &str) -> Vec<u8> {
    let digits: String = line.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
