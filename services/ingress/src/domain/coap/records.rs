//! What is looked at of a DTLS datagram (RFC 6347 section 4) before the library has it: which handshake it is about, and whose
//! key that needs. Whether any of it is true is the library's to find out.
//!
//! Pure. Only messages that come whole and in plain are seen: those of the first flights, which are small.

/// Bytes before the fragment of a record, and before the body of a message of the handshake.
const RECORD_HEADER_BYTES: usize = 13;
const MESSAGE_HEADER_BYTES: usize = 12;
/// Content type of the handshake.
const HANDSHAKE: u8 = 22;
/// Types of messages of the handshake.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CLIENT_KEY_EXCHANGE: u8 = 16;
/// Bytes of the random number of a ClientHello, behind two of the version.
const RANDOM_BYTES: usize = 32;

/// A fatal alert in plain, `decrypt_error`: what a peer is told whose key is not known, or another (RFC 4279 section 2). Its
/// record has a number beyond those of a handshake.
pub const REFUSAL: [u8; 15] = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 2, 2, 51];

/// A first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// 0: it is in plain.
    pub epoch: u16,
    pub is_handshake: bool,
}

/// A ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// 0: the client has nothing from here yet.
    pub sequence: u16,
    pub random: [u8; RANDOM_BYTES],
}

/// The first record of a datagram; `None`: it has none that is whole.
pub fn first(datagram: &[u8]) -> Option<First> {
    let (record, _) = split(datagram)?;
    Some(First { epoch: record.epoch, is_handshake: record.content == HANDSHAKE })
}

/// The ClientHello that a datagram begins with.
pub fn hello(datagram: &[u8]) -> Option<Hello> {
    let message = messages(datagram).into_iter().next().filter(|message| message.kind == CLIENT_HELLO)?;
    let random: [u8; RANDOM_BYTES] = message.body.get(2..2 + RANDOM_BYTES)?.try_into().ok()?;
    Some(Hello { sequence: message.sequence, random })
}

/// Whether the server goes on with a handshake here: it was shown that the client is where it says.
pub fn has_server_hello(datagram: &[u8]) -> bool {
    messages(datagram).iter().any(|message| message.kind == SERVER_HELLO)
}

/// The identity of a ClientKeyExchange with a pre-shared key (RFC 4279 section 2).
pub fn identity(datagram: &[u8]) -> Option<&[u8]> {
    let message = messages(datagram).into_iter().find(|message| message.kind == CLIENT_KEY_EXCHANGE)?;
    let [high, low, identity @ ..] = message.body else { return None };
    let bytes = usize::from(u16::from_be_bytes([*high, *low]));
    Some(identity).filter(|identity| identity.len() == bytes)
}

struct Record<'a> {
    content: u8,
    epoch: u16,
    fragment: &'a [u8],
}

struct Message<'a> {
    kind: u8,
    sequence: u16,
    body: &'a [u8],
}

/// The first record and what follows it.
fn split(datagram: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = datagram.split_at_checked(RECORD_HEADER_BYTES)?;
    let [content, _, _, epoch_high, epoch_low, .., high, low] = header else { return None };
    let (fragment, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((Record { content: *content, epoch: u16::from_be_bytes([*epoch_high, *epoch_low]), fragment }, rest))
}

/// The messages of the handshake that are whole and in plain.
fn messages(datagram: &[u8]) -> Vec<Message<'_>> {
    let (mut messages, mut rest) = (Vec::new(), datagram);
    while let Some((record, after)) = split(rest) {
        rest = after;
        if record.content != HANDSHAKE || record.epoch != 0 {
            continue;
        }
        let mut fragment = record.fragment;
        while let Some((header, after)) = fragment.split_at_checked(MESSAGE_HEADER_BYTES) {
            let number = |at: usize| header[at..at + 3].iter().fold(0, |all, byte| (all << 8) | usize::from(*byte));
            let (whole, offset, bytes) = (number(1), number(6), number(9));
            let Some((body, after)) = after.split_at_checked(bytes) else { break };
            fragment = after;
            if offset == 0 && bytes == whole {
                let sequence = u16::from_be_bytes([header[4], header[5]]);
                messages.push(Message { kind: header[0], sequence, body });
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: u8, epoch: u8, fragment: &[u8]) -> Vec<u8> {
        let bytes = u16::try_from(fragment.len()).expect("short").to_be_bytes();
        [[content, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 7].as_slice(), &bytes, fragment].concat()
    }

    fn message(kind: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
        let bytes = u8::try_from(body.len()).expect("short");
        [[kind, 0, 0, bytes, 0, sequence, 0, 0, 0, 0, 0, bytes].as_slice(), body].concat()
    }

    #[test]
    fn a_hello_is_told_by_its_random_number() {
        let body = [[0xfe, 0xfd].as_slice(), &[9; RANDOM_BYTES], &[0, 0]].concat();
        let datagram = record(HANDSHAKE, 0, &message(CLIENT_HELLO, 1, &body));
        assert_eq!(first(&datagram), Some(First { epoch: 0, is_handshake: true }));
        assert_eq!(hello(&datagram), Some(Hello { sequence: 1, random: [9; RANDOM_BYTES] }));
        assert!(identity(&datagram).is_none() && !has_server_hello(&datagram));
        assert_eq!(hello(&record(HANDSHAKE, 1, &message(CLIENT_HELLO, 1, &body))), None, "it is not in plain");
        assert_eq!(hello(&record(HANDSHAKE, 0, &message(CLIENT_HELLO, 1, &body[..20]))), None);
    }

    #[test]
    fn an_identity_is_found_among_the_records_of_a_flight() {
        let exchange = message(CLIENT_KEY_EXCHANGE, 2, b"\0\x09default/d");
        let flight = [record(HANDSHAKE, 0, &exchange), record(20, 0, &[1]), record(HANDSHAKE, 1, &[0; 40])].concat();
        assert_eq!(identity(&flight), Some(b"default/d".as_slice()));
        let twice = [message(SERVER_HELLO, 1, &[]), exchange.clone()].concat();
        let twice = record(HANDSHAKE, 0, &twice);
        assert!(has_server_hello(&twice) && identity(&twice).is_some());
        for wrong in [&b"\0\x08default/d"[..], b"\0\x0adefault/d", b"\0", b""] {
            let datagram = record(HANDSHAKE, 0, &message(CLIENT_KEY_EXCHANGE, 2, wrong));
            assert_eq!(identity(&datagram), None, "{wrong:?}");
        }
        let mut fragmented = record(HANDSHAKE, 0, &exchange);
        fragmented[RECORD_HEADER_BYTES + 3] += 1;
        assert_eq!(identity(&fragmented), None, "the rest of it is elsewhere");
    }

    #[test]
    fn whatever_is_cut_off_is_no_record() {
        let datagram = record(HANDSHAKE, 1, &[7; 30]);
        for bytes in 0..datagram.len() {
            assert_eq!(first(&datagram[..bytes]), None, "{bytes}");
            assert!(messages(&datagram[..bytes]).is_empty());
        }
        assert_eq!(first(&datagram), Some(First { epoch: 1, is_handshake: true }));
        assert_eq!(first(&REFUSAL), Some(First { epoch: 0, is_handshake: false }));
    }
}
