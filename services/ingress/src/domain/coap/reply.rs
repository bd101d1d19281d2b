//! What a request is answered with, and what an observer is told: codes, options, and the datagram they become.
//!
//! Pure. An error carries its reason in words (RFC 7252 section 5.5.2), but to a peer that has not shown who it is no more
//! than [`AMPLIFICATION`] times its own bytes: its address may be somebody else's (section 11.3).

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, ResponseType};
use drover_types::{ApiError, ErrorCode};

use super::block::{Block, uint};
use super::request::{Request, Unanswerable};

/// Bytes of an answer for each byte of a request whose sender is not known.
pub const AMPLIFICATION: usize = 3;
/// Largest datagram sent, in bytes.
const DATAGRAM_BYTES_MAX: usize = 64_000;
/// Longest reason in words, in bytes.
const REASON_BYTES_MAX: usize = 512;
/// When it may be tried again after an answer that says "not now", in seconds.
const RETRY_S: u32 = 2;

/// An answer or a notification.
#[derive(Clone, Debug)]
pub struct Reply {
    pub code: ResponseType,
    pub payload: Bytes,
    pub observe: Option<u32>,
    pub block1: Option<Block>,
    pub block2: Option<Block>,
    /// Of the whole body.
    pub size2: Option<usize>,
    /// The most that a body may have.
    pub size1: Option<usize>,
    pub etag: Option<[u8; 8]>,
    pub content_format: Option<u16>,
    pub max_age_s: Option<u32>,
    /// Segments of the path that the payload is from, where the request has named several.
    pub location: Vec<String>,
    /// Who is answered has shown who it is.
    pub known: bool,
}

impl Reply {
    /// An answer without payload.
    pub fn new(code: ResponseType) -> Self {
        Self {
            code,
            payload: Bytes::new(),
            observe: None,
            block1: None,
            block2: None,
            size2: None,
            size1: None,
            etag: None,
            content_format: None,
            max_age_s: None,
            location: Vec::new(),
            known: false,
        }
    }

    /// An answer that says in words what is wrong.
    pub fn refusing(code: ResponseType, reason: &str) -> Self {
        let max_age_s =
            matches!(code, ResponseType::ServiceUnavailable | ResponseType::TooManyRequests).then_some(RETRY_S);
        let reason = Bytes::copy_from_slice(cut(reason, REASON_BYTES_MAX).as_bytes());
        Self { payload: reason, max_age_s, ..Self::new(code) }
    }

    /// As it is sent in answer to `request`, or as a notification of it.
    pub fn encode(&self, kind: MessageType, id: u16, token: &[u8]) -> Vec<u8> {
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Response(self.code);
        packet.header.message_id = id;
        packet.header.set_type(kind);
        packet.set_token(token.to_vec());
        let mut add = |option, value| packet.add_option(option, value);
        if let Some(etag) = self.etag {
            add(CoapOption::ETag, etag.to_vec());
        }
        if let Some(sequence) = self.observe {
            add(CoapOption::Observe, uint(sequence));
        }
        self.location.iter().for_each(|segment| add(CoapOption::LocationPath, segment.as_bytes().to_vec()));
        if let Some(format) = self.content_format {
            add(CoapOption::ContentFormat, uint(format.into()));
        }
        if let Some(seconds) = self.max_age_s {
            add(CoapOption::MaxAge, uint(seconds));
        }
        for (option, block) in [(CoapOption::Block2, self.block2), (CoapOption::Block1, self.block1)] {
            if let Some(block) = block {
                add(option, block.write());
            }
        }
        for (option, bytes) in [(CoapOption::Size2, self.size2), (CoapOption::Size1, self.size1)] {
            if let Some(bytes) = bytes {
                add(option, uint(u32::try_from(bytes).unwrap_or(u32::MAX)));
            }
        }
        packet.payload = self.payload.to_vec();
        packet.to_bytes_with_limit(DATAGRAM_BYTES_MAX).unwrap_or_else(|_| empty(kind, id).to_vec())
    }

    /// No larger than a peer that is not known may be sent for `request_bytes`.
    pub fn bounded(mut self, request_bytes: usize, token_bytes: usize) -> Self {
        if self.known {
            return self;
        }
        let room = (request_bytes * AMPLIFICATION).saturating_sub(HEAD_BYTES + token_bytes);
        match std::str::from_utf8(&self.payload) {
            Ok(reason) => self.payload = self.payload.slice(..cut(reason, room).len()),
            Err(_) => self.payload.truncate(room),
        }
        self
    }
}

/// Header, Max-Age, Size1 and Content-Format of an answer to somebody unknown, and the marker of its payload.
const HEAD_BYTES: usize = 4 + 3 + 5 + 2 + 1;

/// A message that says nothing but what it is: an acknowledgement or a reset of message `id`.
pub fn empty(kind: MessageType, id: u16) -> [u8; 4] {
    let kind = match kind {
        MessageType::Confirmable => 0,
        MessageType::NonConfirmable => 1,
        MessageType::Acknowledgement => 2,
        MessageType::Reset => 3,
    };
    let [high, low] = id.to_be_bytes();
    [0x40 | kind << 4, 0, high, low]
}

/// The beginning of a text, no longer than that.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl From<Unanswerable> for Reply {
    fn from(Unanswerable { code, message }: Unanswerable) -> Self {
        Self::refusing(code, &message)
    }
}

impl From<&ApiError> for Reply {
    fn from(error: &ApiError) -> Self {
        let ApiError { field, message, limit, value, .. } = error;
        let mut reason = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default() + message;
        if let Some((limit, value)) = limit.as_ref().zip(value.as_ref()) {
            reason += &format!(" (limit {limit}, is {value})");
        }
        Self::refusing(code(error.code), &reason)
    }
}

/// Every code of ours has one of CoAP.
fn code(code: ErrorCode) -> ResponseType {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition | ErrorCode::OutOfRange => ResponseType::BadRequest,
        ErrorCode::Unauthenticated => ResponseType::Unauthorized,
        ErrorCode::PermissionDenied => ResponseType::Forbidden,
        ErrorCode::NotFound => ResponseType::NotFound,
        ErrorCode::AlreadyExists | ErrorCode::Aborted => ResponseType::Conflict,
        ErrorCode::ResourceExhausted => ResponseType::TooManyRequests,
        ErrorCode::Unimplemented => ResponseType::NotImplemented,
        ErrorCode::Unavailable | ErrorCode::Cancelled => ResponseType::ServiceUnavailable,
        ErrorCode::DeadlineExceeded => ResponseType::GatewayTimeout,
        ErrorCode::Unknown | ErrorCode::Internal | ErrorCode::DataLoss => ResponseType::InternalServerError,
    }
}

/// An answer's first block of a body in the size that `request` wants, or the whole of it if it is small.
pub fn first_block(reply: &mut Reply, wanted: Option<Block>, body: &Bytes, etag: [u8; 8]) {
    let size = wanted.unwrap_or(Block { number: 0, more: false, exponent: super::block::EXPONENT_MAX });
    block(reply, size, 0, body, etag);
    if wanted.is_none() && reply.block2.is_none_or(|block| !block.more) {
        (reply.block2, reply.etag, reply.size2) = (None, None, None);
    }
}

/// Puts block `number` of a body into an answer; false if the body has no such block.
pub fn block(reply: &mut Reply, size: Block, number: u32, body: &Bytes, etag: [u8; 8]) -> bool {
    let Some(block) = size.of(number, body.len()) else { return false };
    let from = block.offset();
    reply.payload = body.slice(from..body.len().min(from + block.bytes()));
    (reply.block2, reply.etag) = (Some(block), Some(etag));
    reply.size2 = (number == 0).then_some(body.len());
    true
}

/// Whether an answer's payload is of a format that `request` takes.
pub fn is_acceptable(request: &Request, format: Option<u16>) -> bool {
    match (request.accept, format) {
        (Some(accepted), Some(format)) => accepted == format,
        (Some(_) | None, None) | (None, Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_and_says_what_is_wrong() {
        for code in ErrorCode::ALL {
            let reply = Reply::from(&ApiError::new(code, "why"));
            assert!(reply.code.is_error() && reply.payload == "why", "{code}");
        }
        let over = Reply::from(&ApiError::invalid("topic", "is too long").over(3, 4));
        assert_eq!(over.payload, "topic: is too long (limit 3, is 4)");
        let busy = Reply::from(&ApiError::new(ErrorCode::ResourceExhausted, "slow down"));
        assert_eq!((busy.code, busy.max_age_s), (ResponseType::TooManyRequests, Some(RETRY_S)));
    }

    #[test]
    fn whoever_is_not_known_gets_three_times_its_bytes_and_no_more() {
        let reason = "é".repeat(300);
        for request_bytes in [4, 5, 6, 10, 40, 200] {
            let reply = Reply::from(&ApiError::new(ErrorCode::Unavailable, reason.clone()));
            let bounded = reply.clone().bounded(request_bytes, 0);
            let sent = bounded.encode(MessageType::Acknowledgement, 1, &[]).len();
            assert!(sent <= request_bytes * AMPLIFICATION, "{sent} for {request_bytes}");
            let known = Reply { known: true, ..reply }.bounded(request_bytes, 0);
            assert_eq!(known.payload.len(), REASON_BYTES_MAX);
        }
    }

    #[test]
    fn a_body_that_fits_is_not_cut_and_a_large_one_comes_in_blocks() {
        let of = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        let mut small = Reply::new(ResponseType::Content);
        first_block(&mut small, None, &of(1_024), [1; 8]);
        assert_eq!((small.payload.len(), small.block2, small.etag, small.size2), (1_024, None, None, None));
        let mut large = Reply::new(ResponseType::Content);
        first_block(&mut large, None, &of(1_025), [1; 8]);
        assert_eq!((large.payload.len(), large.block2.map(|b| b.more), large.size2), (1_024, Some(true), Some(1_025)));
        assert!(block(&mut large, Block { number: 0, more: false, exponent: 6 }, 1, &of(1_025), [1; 8]));
        assert_eq!(
            (large.payload.len(), large.block2.map(|b| (b.number, b.more)), large.size2),
            (1, Some((1, false)), None)
        );
        assert!(!block(&mut large, Block { number: 0, more: false, exponent: 6 }, 2, &of(1_025), [1; 8]));
        let mut wanted = Reply::new(ResponseType::Content);
        first_block(&mut wanted, Block::read(&[0]), &of(3), [1; 8]);
        assert_eq!(wanted.block2.map(|b| (b.more, b.exponent)), Some((false, 0)), "whoever asks for blocks is told");
    }
}
