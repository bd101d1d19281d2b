//! Frames of a WebSocket (RFC 6455) as they come: which of the bytes read are payload.
//!
//! Pure. No frame is in memory as a whole: its payload is unmasked where it lies and handed on as far as it has come, so
//! that a connection in the midst of one keeps the head of the frame and nothing else. Where packets begin and end is not
//! looked at: they may share frames, or be split over them [MQTT-6.0.0-2].

use std::fmt;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest head of a frame, bytes (section 5.2).
const HEAD_BYTES_MAX: usize = 14;
/// Longest payload of a control frame, bytes (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Why a frame is not taken. Its text is what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [MQTT-6.0.0-1]
    Text,
    /// A message of so many bytes, where a packet has at most so many.
    TooLarge { bytes: u64, limit: u64 },
    /// Where the next frame begins is not known after it.
    NoFrame,
}

impl Refusal {
    /// Its code (section 7.4.1).
    pub fn code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::TooLarge { .. } => CloseCode::Size,
            Self::NoFrame => CloseCode::Protocol,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("MQTT is sent in binary frames, this one is text"),
            Self::TooLarge { bytes, limit } => write!(f, "message has {bytes} bytes, limit is {limit}"),
            Self::NoFrame => f.write_str("not a frame of RFC 6455 that may come here"),
        }
    }
}

/// What the payload of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
    /// It is not wanted.
    Skipped,
}

/// The frame whose payload comes.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// Bytes of its payload that have not come.
    left: u64,
    /// As for the next byte of the payload.
    mask: [u8; 4],
}

/// The frames that one client sends.
#[derive(Debug)]
pub struct Frames {
    message_bytes_max: u64,
    /// The first bytes of a head that has not come as a whole.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    frame: Option<Frame>,
    /// Bytes of the message that more frames belong to.
    message_bytes: Option<u64>,
    /// Payload of a control frame, as far as it has come.
    control: Vec<u8>,
    pong: Option<Vec<u8>>,
    /// Why the first frame that was not taken is not.
    refusal: Option<Refusal>,
    closed: Option<CloseCode>,
}

impl Frames {
    /// Nothing has come yet. A message, and so a frame, may have `message_bytes_max`.
    pub fn new(message_bytes_max: u64) -> Self {
        Self {
            message_bytes_max,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            frame: None,
            message_bytes: None,
            control: Vec::new(),
            pong: None,
            refusal: None,
            closed: None,
        }
    }

    /// Takes bytes as they came, and moves those that are payload to the front; how many these are. Behind a frame that
    /// was refused, and behind the client's goodbye, there is none.
    pub fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut filled) = (0, 0);
        while at < bytes.len() && self.closed.is_none() && self.refusal != Some(Refusal::NoFrame) {
            let Some(frame) = &mut self.frame else {
                at += self.take_head(&bytes[at..]);
                self.finish();
                continue;
            };
            let rest = bytes.len() - at;
            let len = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
            let payload = &mut bytes[at..at + len];
            frame.unmask(payload);
            match frame.kind {
                Kind::Data => {
                    bytes.copy_within(at..at + len, filled);
                    filled += len;
                }
                Kind::Ping | Kind::Close => self.control.extend_from_slice(payload),
                Kind::Pong | Kind::Skipped => {}
            }
            at += len;
            self.finish();
        }
        filled
    }

    /// Why a frame was not taken, if one was not.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The code of the client's goodbye, once it has said it; [`CloseCode::Status`]: it has given none.
    pub fn closed(&self) -> Option<CloseCode> {
        self.closed
    }

    /// The answer to the latest ping that was not answered; those before it need none (section 5.5.3).
    pub fn take_pong(&mut self) -> Option<Vec<u8>> {
        self.pong.take()
    }

    /// Takes what belongs to the head of a frame; how many bytes these are.
    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let held = self.head_bytes;
        let more = bytes.len().min(HEAD_BYTES_MAX - held);
        self.head[held..held + more].copy_from_slice(&bytes[..more]);
        let mut head = Cursor::new(&self.head[..held + more]);
        match FrameHeader::parse(&mut head) {
            Ok(None) => {
                self.head_bytes += more;
                more
            }
            Ok(Some((header, len))) => {
                let taken = usize::try_from(head.position()).unwrap_or(HEAD_BYTES_MAX) - held;
                self.head_bytes = 0;
                self.begin(&header, len);
                taken
            }
            Err(_) => {
                self.refuse(Refusal::NoFrame);
                more
            }
        }
    }

    /// A frame begins, with a payload of `len` bytes.
    fn begin(&mut self, header: &FrameHeader, len: u64) {
        let kind = match self.check(header, len) {
            Ok(Kind::Data) if self.refusal.is_some() => Kind::Skipped,
            Ok(kind) => kind,
            Err(refusal) => {
                self.refuse(refusal);
                Kind::Skipped
            }
        };
        let mask = header.mask.unwrap_or_default(); // without one it is refused
        self.frame = Some(Frame { kind, left: len, mask });
    }

    /// The first refusal stays, but for one that makes an end of all frames.
    fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.is_none() || refusal == Refusal::NoFrame {
            self.refusal = Some(refusal);
        }
    }

    fn check(&mut self, header: &FrameHeader, len: u64) -> Result<Kind, Refusal> {
        let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
        if *rsv1 || *rsv2 || *rsv3 || mask.is_none() {
            return Err(Refusal::NoFrame); // sections 5.1 and 5.2
        }
        let data = match opcode {
            OpCode::Control(_) if !is_final || len > CONTROL_BYTES_MAX => return Err(Refusal::NoFrame),
            OpCode::Control(Control::Ping) => return Ok(Kind::Ping),
            OpCode::Control(Control::Pong) => return Ok(Kind::Pong),
            OpCode::Control(Control::Close) => return Ok(Kind::Close),
            OpCode::Control(Control::Reserved(_)) => return Err(Refusal::NoFrame),
            OpCode::Data(data) => data,
        };
        match (data, self.message_bytes) {
            (Data::Text, None) => return Err(Refusal::Text),
            (Data::Binary, None) | (Data::Continue, Some(_)) => {}
            (Data::Text | Data::Binary | Data::Continue | Data::Reserved(_), _) => return Err(Refusal::NoFrame),
        }
        let bytes = self.message_bytes.unwrap_or_default().saturating_add(len);
        self.message_bytes = (!is_final).then_some(bytes);
        let limit = self.message_bytes_max;
        if bytes > limit { Err(Refusal::TooLarge { bytes, limit }) } else { Ok(Kind::Data) }
    }

    /// Does what a frame is for, if all of it has come.
    fn finish(&mut self) {
        let Some(Frame { kind, .. }) = self.frame.take_if(|frame| frame.left == 0) else { return };
        match kind {
            Kind::Data | Kind::Pong | Kind::Skipped => {}
            Kind::Ping => self.pong = Some(std::mem::take(&mut self.control)),
            Kind::Close => self.closed = Some(code(&std::mem::take(&mut self.control))),
        }
    }
}

impl Frame {
    /// Unmasks the next bytes of the payload (section 5.3).
    fn unmask(&mut self, payload: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = payload.as_chunks_mut::<8>();
        words.iter_mut().for_each(|word| *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes());
        rest.iter_mut().zip(self.mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        self.mask.rotate_left(payload.len() % 4);
        self.left -= payload.len() as u64;
    }
}

/// The code of a goodbye; one that nobody may send is a fault (section 7.4.2).
fn code(payload: &[u8]) -> CloseCode {
    let Some(code) = payload.first_chunk() else { return CloseCode::Status };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if code.is_allowed() { code } else { CloseCode::Protocol }
}

/// Adds a frame of ours to `out`, whole and not masked.
pub fn put(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let (head, len) = head(opcode, payload.len());
    out.extend_from_slice(&head[..len]);
    out.extend_from_slice(payload);
}

/// The head of a frame of ours with so many bytes of payload, and its length.
pub fn head(opcode: OpCode, payload_bytes: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let (mut head, bytes) = ([0; HEAD_BYTES_MAX], payload_bytes as u64);
    header.format(bytes, &mut &mut head[..]).expect("no head is longer");
    (head, header.len(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 100;

    /// A frame of a client: the first byte of its head as given, masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(len) if len < 126 => bytes.push(0x80 | len),
            Ok(_) | Err(_) => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&u16::try_from(payload.len()).expect("short").to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The payload of frames that come in parts of `part` bytes, and what stays.
    fn decoded(bytes: &[u8], part: usize) -> (Vec<u8>, Frames) {
        let (mut payload, mut frames) = (Vec::new(), Frames::new(LIMIT));
        for part in bytes.chunks(part) {
            let mut part = part.to_vec();
            let filled = frames.decode(&mut part);
            payload.extend_from_slice(&part[..filled]);
        }
        (payload, frames)
    }

    #[test]
    fn payload_is_the_same_however_the_frames_come() {
        let bytes = [
            frame(0x82, b"one"),
            frame(0x89, b"there?"),
            frame(0x02, &[7; 60]),
            frame(0x8a, b""),
            frame(0x89, b"still there?"),
            frame(0x80, &[8; 40]),
            frame(0x82, b""),
            frame(0x82, b"last"),
        ]
        .concat();
        let wanted = [b"one".to_vec(), vec![7; 60], vec![8; 40], b"last".to_vec()].concat();
        for part in 1..=bytes.len() {
            let (payload, mut frames) = decoded(&bytes, part);
            assert_eq!((payload, frames.refusal()), (wanted.clone(), None), "parts of {part}");
            assert_eq!(frames.take_pong().as_deref(), Some(&b"still there?"[..]), "the latest");
            assert!(frames.frame.is_none() && frames.control.capacity() == 0, "nothing is kept between frames");
        }
    }

    /// Frames that may come, some that may not, and bytes that are none.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let binary = prop_oneof![4 => Just(0x82_u8), 1 => Just(0x02), 1 => Just(0x80)];
        let first = prop_oneof![8 => binary, 2 => Just(0x89), 1 => Just(0x8a), 1 => Just(0x88), 1 => any::<u8>()];
        let payload = proptest::collection::vec(any::<u8>(), 0..140);
        let framed = (first, payload).prop_map(|(first, payload)| frame(first, &payload));
        let piece = prop_oneof![9 => framed, 1 => proptest::collection::vec(any::<u8>(), 0..20)];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_the_same_in_whatever_pieces(
            bytes in streams(),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let (whole, at_once) = decoded(&bytes, bytes.len().max(1));
            let (mut payload, mut frames, mut rest) = (Vec::new(), Frames::new(LIMIT), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                let mut piece = piece.to_vec();
                let filled = frames.decode(&mut piece);
                payload.extend_from_slice(&piece[..filled]);
                prop_assert!(frames.control.len() as u64 <= CONTROL_BYTES_MAX);
                rest = behind;
            }
            prop_assert_eq!(payload, whole);
            prop_assert_eq!((frames.refusal(), frames.closed()), (at_once.refusal(), at_once.closed()));
        }
    }

    #[test]
    fn what_may_not_come_is_refused_and_nothing_behind_it_is_taken() {
        let large = |bytes| Refusal::TooLarge { bytes, limit: LIMIT };
        let mut unmasked = frame(0x82, b"");
        unmasked[1] = 0;
        for (bytes, refusal) in [
            (frame(0x81, b"text"), Refusal::Text),
            (frame(0x82, &[0; 101]), large(101)),
            ([frame(0x02, &[0; 60]), frame(0x80, &[0; 41])].concat(), large(101)),
            (frame(0x80, b"continues nothing"), Refusal::NoFrame),
            ([frame(0x02, b"goes on"), frame(0x82, b"begins")].concat(), Refusal::NoFrame),
            (frame(0xc2, b"reserved bit"), Refusal::NoFrame),
            (frame(0x83, b"reserved opcode"), Refusal::NoFrame),
            (frame(0x09, b"split ping"), Refusal::NoFrame),
            (frame(0x89, &[0; 126]), Refusal::NoFrame),
            (unmasked, Refusal::NoFrame),
        ] {
            let bytes = [frame(0x82, b"before"), bytes, frame(0x82, b"behind")].concat();
            for part in [1, bytes.len()] {
                let (payload, frames) = decoded(&bytes, part);
                assert!(payload.starts_with(b"before") && !payload.ends_with(b"behind"));
                assert_eq!(frames.refusal(), Some(refusal));
            }
        }
        let (payload, frames) = decoded(&frame(0x82, &[1; LIMIT as usize]), 50);
        assert_eq!((payload.len(), frames.refusal()), (100, None), "at the limit");
    }

    #[test]
    fn a_goodbye_is_found_behind_what_was_refused_while_frames_are_told_apart() {
        let goodbye = frame(0x88, &[&1001u16.to_be_bytes()[..], b"bye"].concat());
        for (refused, found) in [(frame(0x81, b"text"), true), (frame(0x83, b"none"), false)] {
            let bytes = [refused.clone(), refused, goodbye.clone()].concat();
            for part in [1, 3, bytes.len()] {
                let (payload, frames) = decoded(&bytes, part);
                assert!(payload.is_empty() && frames.refusal().is_some());
                assert_eq!(frames.closed(), found.then_some(CloseCode::Away));
            }
        }
        for (payload, code) in
            [(&b""[..], CloseCode::Status), (&[3, 233][..], CloseCode::Away), (&[3, 237][..], CloseCode::Protocol)]
        {
            let (_, frames) = decoded(&frame(0x88, payload), 2);
            assert_eq!(frames.closed(), Some(code));
        }
    }

    #[test]
    fn a_frame_of_ours_has_the_shortest_head() {
        for (bytes, head_bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = Vec::new();
            put(&mut out, OpCode::Data(Data::Binary), &vec![0; bytes]);
            assert_eq!((out.len(), out[0]), (head_bytes + bytes, 0x82));
        }
    }
}
