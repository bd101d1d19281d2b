//! Frames: the unit of writing and of recovery, shared by the journal and the topic segments.
//!
//! A frame is `magic | head length | body length | synced | crc of all that and the head | head | body`. `synced` says
//! up to which byte the file was known durable when the frame was written. That tells a torn write from damage: a
//! broken frame is a tail to cut unless a valid frame behind it claims that this place had been synced.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

/// First bytes of every frame; found again when searching behind a broken one.
const MAGIC: [u8; 4] = [0xd7, b'd', b'f', 0x9e];
/// Bytes before the head.
pub(super) const FIXED_BYTES: usize = 24;

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub head_bytes: usize,
    pub body_bytes: usize,
    pub synced: u64,
    crc: u32,
}

impl Fixed {
    /// `None` if these are not the first bytes of a frame.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.get(..FIXED_BYTES)?.split_first_chunk::<4>()?;
        let (head, rest) = rest.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_first_chunk::<4>()?;
        let (synced, rest) = rest.split_first_chunk::<8>()?;
        let crc = rest.first_chunk::<4>()?;
        (*magic == MAGIC).then(|| Self {
            head_bytes: u32::from_le_bytes(*head) as usize,
            body_bytes: u32::from_le_bytes(*body) as usize,
            synced: u64::from_le_bytes(*synced),
            crc: u32::from_le_bytes(*crc),
        })
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        (FIXED_BYTES + self.head_bytes + self.body_bytes) as u64
    }

    /// Whether `fixed` (the bytes this was parsed from) and `head` are what was written.
    pub fn matches(&self, fixed: &[u8], head: &[u8]) -> bool {
        checksum(fixed, head) == self.crc
    }
}

/// Joins head and body to a frame that still needs [`seal`].
pub(super) fn join(head: &[u8], body_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FIXED_BYTES + head.len() + body_bytes);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(head.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(body_bytes as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(head);
    frame
}

/// Writes `synced` and the checksum into a joined frame.
pub(super) fn seal(frame: &mut [u8], head_bytes: usize, synced: u64) {
    frame[12..20].copy_from_slice(&synced.to_le_bytes());
    let (fixed, rest) = frame.split_at_mut(FIXED_BYTES);
    let crc = checksum(fixed, &rest[..head_bytes]);
    fixed[20..].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(fixed: &[u8], head: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&fixed[..20]);
    crc.update(head);
    crc.finalize()
}

/// A frame read back; its head is checked, its body is not.
#[derive(Debug)]
pub(super) struct Frame {
    pub fixed: Fixed,
    pub head: Bytes,
    pub body: Bytes,
}

/// Why frames end before the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("incomplete frame")]
    Incomplete,
    #[error("not the beginning of a frame")]
    NoFrame,
    #[error("checksum mismatch")]
    Checksum,
}

/// Reads the frame at `at` of a file that ends at `end`. `Ok(None)` at the end.
pub(super) fn read(file: &File, at: u64, end: u64) -> std::io::Result<Result<Option<Frame>, Broken>> {
    let left = end.saturating_sub(at);
    if left == 0 {
        return Ok(Ok(None));
    }
    if left < FIXED_BYTES as u64 {
        return Ok(Err(Broken::Incomplete));
    }
    let mut bytes = [0; FIXED_BYTES];
    file.read_exact_at(&mut bytes, at)?;
    let Some(fixed) = Fixed::parse(&bytes) else { return Ok(Err(Broken::NoFrame)) };
    if fixed.frame_bytes() > left {
        return Ok(Err(Broken::Incomplete));
    }
    let mut rest = vec![0; fixed.head_bytes + fixed.body_bytes];
    file.read_exact_at(&mut rest, at + FIXED_BYTES as u64)?;
    if !fixed.matches(&bytes, &rest[..fixed.head_bytes]) {
        return Ok(Err(Broken::Checksum));
    }
    let mut head = Bytes::from(rest);
    let body = head.split_off(fixed.head_bytes);
    Ok(Ok(Some(Frame { fixed, head, body })))
}

/// Whether a valid frame behind the broken place `at` proves that `at` had been durable: then it is damage, not a tail.
pub(super) fn was_durable(file: &File, at: u64, end: u64) -> std::io::Result<bool> {
    let mut rest = vec![0; end.saturating_sub(at) as usize];
    file.read_exact_at(&mut rest, at)?;
    Ok((1..rest.len()).any(|i| rest[i..].starts_with(&MAGIC) && proves(&rest[i..], at)))
}

fn proves(bytes: &[u8], at: u64) -> bool {
    let Some(fixed) = Fixed::parse(bytes) else { return false };
    let head = bytes.get(FIXED_BYTES..FIXED_BYTES.saturating_add(fixed.head_bytes));
    fixed.synced > at && head.is_some_and(|head| fixed.matches(&bytes[..FIXED_BYTES], head))
}
