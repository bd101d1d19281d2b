//! What a peer sends: messages of the message layer, and requests with the options that are understood here.
//!
//! Pure. An option that is critical and not understood is answered with 4.02 (RFC 7252 section 5.4.1), not passed over.

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};

use super::block::Block;

/// Number of the option that holds a device's token: critical, so that nobody takes the request for one without
/// credentials, and unsafe to forward; of the range for experiments (RFC 7252 sections 5.4.6 and 12.2).
pub const TOKEN_OPTION: u16 = 65_003;
/// Number of Request-Tag (RFC 9175 section 3).
const REQUEST_TAG: u16 = 292;
/// Longest token of a device taken, in bytes; a JWT is the longest.
const KEY_BYTES_MAX: usize = 4 * 1024;

/// A datagram as the message layer sees it (RFC 7252 section 4).
#[derive(Debug)]
pub enum Received {
    Request(Box<Packet>),
    /// Our message of this id has arrived.
    Acknowledged(u16),
    /// Our message of this id means nothing to the peer.
    Reset(u16),
    /// To be answered with a Reset: a ping (section 4.3), or a confirmable message that cannot be.
    Unfit(u16),
    /// To be ignored.
    Ignored,
}

/// Reads a datagram.
pub fn receive(datagram: &[u8]) -> Received {
    let [first, _, high, low, ..] = datagram else { return Received::Ignored };
    if first >> 6 != 1 {
        return Received::Ignored; // another version (section 3)
    }
    let (id, confirmable) = (u16::from_be_bytes([*high, *low]), first >> 4 & 3 == 0);
    let unfit = if confirmable { Received::Unfit(id) } else { Received::Ignored };
    let Ok(packet) = Packet::from_bytes(datagram) else { return unfit };
    let marker_alone = datagram.last() == Some(&0xff)
        && packet.payload.is_empty()
        && packet.to_bytes_unlimited().is_ok_and(|bytes| bytes.len() < datagram.len());
    let empty = packet.header.code == MessageClass::Empty;
    match (packet.header.get_type(), packet.header.code) {
        _ if marker_alone || empty && datagram.len() > 4 => unfit, // section 3, section 4.1
        (MessageType::Acknowledgement, _) => Received::Acknowledged(id),
        (MessageType::Reset, _) => Received::Reset(id),
        (MessageType::Confirmable | MessageType::NonConfirmable, MessageClass::Request(_)) => {
            Received::Request(Box::new(packet))
        }
        (
            MessageType::Confirmable | MessageType::NonConfirmable,
            MessageClass::Empty | MessageClass::Response(_) | MessageClass::Reserved(_),
        ) => unfit,
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

/// A request that can be answered.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub path: Vec<String>,
    /// The parts of the query but for the token.
    pub query: Vec<String>,
    /// The device's token.
    pub key: Option<String>,
    pub observe: Option<u32>,
    pub block1: Option<Block>,
    pub block2: Option<Block>,
    pub size1: Option<u32>,
    pub content_format: Option<u16>,
    pub accept: Option<u16>,
    /// Tells bodies apart that are sent to one resource at the same time.
    pub tag: Vec<u8>,
    /// Classes of answers that are not wanted, as bits (RFC 7967 section 2.1).
    pub no_response: u32,
    pub payload: Bytes,
}

/// Why a request is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Unanswerable {
    pub code: ResponseType,
    pub message: String,
}

fn unanswerable(code: ResponseType, message: impl Into<String>) -> Unanswerable {
    Unanswerable { code, message: message.into() }
}

impl Request {
    /// Reads what a packet asks for.
    pub fn read(packet: Packet) -> Result<Self, Unanswerable> {
        let bad = |name: &str| unanswerable(ResponseType::BadOption, format!("option {name} is malformed"));
        let method = match packet.header.code {
            MessageClass::Request(RequestType::Get) => Method::Get,
            MessageClass::Request(RequestType::Post) => Method::Post,
            MessageClass::Request(_) | MessageClass::Empty | MessageClass::Response(_) | MessageClass::Reserved(_) => {
                return Err(unanswerable(ResponseType::MethodNotAllowed, "only GET and POST are served"));
            }
        };
        refuse_unknown(&packet)?;
        let one = |option| packet.get_first_option(option).map(Vec::as_slice);
        let number = |option, name| one(option).map(|bytes| uint(bytes).ok_or_else(|| bad(name))).transpose();
        let block = |option, name| one(option).map(|bytes| Block::read(bytes).ok_or_else(|| bad(name))).transpose();
        let format =
            |option, name| number(option, name)?.map(|value| u16::try_from(value).map_err(|_| bad(name))).transpose();
        let (mut query, mut key) = (Vec::new(), None);
        for part in texts(&packet, CoapOption::UriQuery, "Uri-Query")? {
            match part.strip_prefix("token=") {
                Some(token) => key = Some(token.to_owned()),
                None => query.push(part),
            }
        }
        if let Some(bytes) = one(CoapOption::Unknown(TOKEN_OPTION)) {
            key = Some(String::from_utf8(bytes.to_vec()).map_err(|_| bad("token"))?);
        }
        if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(bad("token"));
        }
        Ok(Self {
            method,
            path: texts(&packet, CoapOption::UriPath, "Uri-Path")?,
            query,
            key,
            observe: number(CoapOption::Observe, "Observe")?,
            block1: block(CoapOption::Block1, "Block1")?,
            block2: block(CoapOption::Block2, "Block2")?,
            size1: number(CoapOption::Size1, "Size1")?,
            content_format: format(CoapOption::ContentFormat, "Content-Format")?,
            accept: format(CoapOption::Accept, "Accept")?,
            tag: one(CoapOption::Unknown(REQUEST_TAG)).unwrap_or_default().to_vec(),
            no_response: number(CoapOption::NoResponse, "No-Response")?.unwrap_or(0),
            payload: packet.payload.into(),
        })
    }

    /// Whether an answer of this code is wanted.
    pub fn wants(&self, code: ResponseType) -> bool {
        Self::is_wanted(self.no_response, code)
    }

    /// As [`Request::wants`], for the bits of a request that is gone.
    pub fn is_wanted(no_response: u32, code: ResponseType) -> bool {
        let class = u8::from(MessageClass::Response(code)) >> 5;
        no_response >> (class - 1) & 1 == 0
    }
}

/// Critical options have odd numbers (section 5.4.6).
fn refuse_unknown(packet: &Packet) -> Result<(), Unanswerable> {
    for (number, values) in packet.options() {
        match CoapOption::from(*number) {
            _ if number % 2 == 0 => {}
            CoapOption::UriHost | CoapOption::UriPort => {}
            CoapOption::UriPath | CoapOption::UriQuery => {}
            CoapOption::ProxyUri | CoapOption::ProxyScheme => {
                return Err(unanswerable(ResponseType::ProxyingNotSupported, "this is no proxy"));
            }
            CoapOption::Accept | CoapOption::Block1 | CoapOption::Block2 | CoapOption::Unknown(TOKEN_OPTION)
                if values.len() == 1 => {}
            _ => return Err(unanswerable(ResponseType::BadOption, format!("option {number} is not understood"))),
        }
    }
    Ok(())
}

fn texts(packet: &Packet, option: CoapOption, name: &str) -> Result<Vec<String>, Unanswerable> {
    let values = packet.get_option(option).into_iter().flatten();
    let text = |value: &Vec<u8>| String::from_utf8(value.clone());
    values
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(|_| unanswerable(ResponseType::BadOption, format!("option {name} is no text")))
}

fn uint(bytes: &[u8]) -> Option<u32> {
    (bytes.len() <= 4).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[(u16, &[u8])]) -> Packet {
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Request(RequestType::Post);
        options.iter().for_each(|(number, value)| packet.add_option(CoapOption::from(*number), value.to_vec()));
        packet
    }

    #[test]
    fn datagrams_that_are_no_messages_are_ignored_or_reset() {
        for (datagram, reset) in [
            (&[][..], false),
            (&[0x40, 1, 0], false),
            (&[0x00, 1, 0, 7], false),                           // version 0
            (&[0x80, 1, 0, 7], false),                           // version 2
            (&[0x40, 0, 0, 7], true),                            // ping
            (&[0x50, 0, 0, 7], false),                           // empty, non-confirmable
            (&[0x40, 0, 0, 7, 1], true),                         // empty with bytes behind it
            (&[0x49, 1, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9], true), // a token of 9 bytes
            (&[0x42, 1, 0, 7, 1], true),                         // a token cut off
            (&[0x40, 1, 0, 7, 0xff], true),                      // a marker without payload
            (&[0x50, 1, 0, 7, 0xff], false),
            (&[0x40, 1, 0, 7, 0xb2, b't'], true), // an option cut off
            (&[0x40, 1, 0, 7, 0xf0], true),       // a reserved delta
            (&[0x40, 0x45, 0, 7], true),          // a response to no request
            (&[0x40, 0x20, 0, 7], true),          // class 1 is reserved
        ] {
            let received = receive(datagram);
            match reset {
                true => assert!(matches!(received, Received::Unfit(7)), "{datagram:x?} {received:?}"),
                false => assert!(matches!(received, Received::Ignored), "{datagram:x?} {received:?}"),
            }
        }
        assert!(matches!(receive(&[0x60, 0, 0, 7]), Received::Acknowledged(7)));
        assert!(matches!(receive(&[0x70, 0, 0, 7]), Received::Reset(7)));
        assert!(matches!(receive(&[0x40, 1, 0, 7]), Received::Request(_)));
        assert!(matches!(receive(&[0x40, 1, 0, 7, 0xb1, 0xff]), Received::Request(_)), "0xff ends an option here");
    }

    #[test]
    fn the_token_comes_in_its_option_or_in_the_query() {
        let read = |options: &[(u16, &[u8])]| Request::read(packet(options));
        let both = read(&[(11, b"t"), (11, b"a"), (15, b"qos=0"), (15, b"token=q")]).expect("a request");
        assert_eq!(
            (both.path, both.query, both.key.as_deref()),
            (vec!["t".into(), "a".into()], vec!["qos=0".to_owned()], Some("q"))
        );
        let option = read(&[(15, b"token=q"), (TOKEN_OPTION, b"o")]).expect("a request");
        assert_eq!(option.key.as_deref(), Some("o"), "the option counts first");
        assert_eq!(TOKEN_OPTION & 3, 3, "critical, and unsafe to forward");
    }

    #[test]
    fn what_is_critical_and_not_understood_is_refused_and_all_else_passed_over() {
        for (number, code) in [
            (1, Some(ResponseType::BadOption)), // If-Match
            (9, Some(ResponseType::BadOption)), // OSCORE
            (65_001, Some(ResponseType::BadOption)),
            (35, Some(ResponseType::ProxyingNotSupported)),
            (4, None),   // ETag
            (252, None), // Echo
            (3, None),
        ] {
            assert_eq!(Request::read(packet(&[(number, b"x")])).err().map(|refused| refused.code), code, "{number}");
        }
        for (number, value) in
            [(11, &[0xff][..]), (23, &[7]), (27, &[0; 4]), (6, &[0; 5]), (12, &[1, 0, 0]), (TOKEN_OPTION, &[0xff])]
        {
            assert_eq!(Request::read(packet(&[(number, value)])).expect_err("malformed").code, ResponseType::BadOption);
        }
        let twice = packet(&[(23, &[0]), (23, &[0x10])]);
        assert_eq!(Request::read(twice).expect_err("twice").code, ResponseType::BadOption);
        let mut put = packet(&[]);
        put.header.code = MessageClass::Request(RequestType::Put);
        assert_eq!(Request::read(put).expect_err("not served").code, ResponseType::MethodNotAllowed);
    }

    #[test]
    fn answers_are_not_wanted_by_their_class() {
        let wants = |bits: u8, code| Request::read(packet(&[(258, &[bits])])).expect("a request").wants(code);
        assert!(!wants(2, ResponseType::Changed) && wants(2, ResponseType::Forbidden));
        assert!(!wants(26, ResponseType::Changed) && !wants(26, ResponseType::Forbidden));
        assert!(!wants(16, ResponseType::ServiceUnavailable) && wants(0, ResponseType::Changed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn no_datagram_does_harm(first in 0x40..0x50_u8, code: u8, mut rest in prop::collection::vec(any::<u8>(), 0..60), at: usize) {
            if !rest.is_empty() {
                let at = at % rest.len();
                rest[at] = 0xff; // the marker, or an extended length
            }
            let datagram = [&[first, code][..], &rest].concat();
            if let Received::Request(packet) = receive(&datagram) {
                let read = Request::read(*packet);
                prop_assert!(read.is_err() || read.is_ok_and(|request| request.payload.len() < datagram.len()));
            }
        }

        #[test]
        fn a_request_is_read_as_it_was_written(
            path in prop::collection::vec("[a-z#+/é]{0,20}", 0..5),
            key in "[!-~]{1,200}",
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let segments: Vec<(u16, &[u8])> = path.iter().map(|segment| (11, segment.as_bytes())).collect();
            let mut sent = packet(&segments);
            sent.add_option(CoapOption::Unknown(TOKEN_OPTION), key.as_bytes().to_vec());
            sent.payload = payload.clone();
            let Received::Request(packet) = receive(&sent.to_bytes().expect("small")) else { panic!("it is one") };
            let request = Request::read(*packet).expect("it can be answered");
            prop_assert_eq!((request.path, request.key, request.payload.to_vec()), (path, Some(key), payload));
        }
    }
}
