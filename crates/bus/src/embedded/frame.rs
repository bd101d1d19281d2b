//! Frames: the unit of writing and of recovery, shared by the journal and the topic segments.
//!
//! A frame is `mark | head length | body length | synced | crc of all that and the head | head | body`. The mark is eight
//! random bytes that each file draws for itself: payloads, which anybody may send, cannot pretend to be frames. `synced`
//! says up to which byte the file was known durable when the frame was written. That tells a torn write from damage: a
//! broken frame is a tail to cut unless a valid frame behind it claims that this place had been synced.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::codec::{Malformed, Take};

/// Bytes of a mark.
const MARK_BYTES: usize = 8;
/// Bytes before the head.
pub(super) const FIXED_BYTES: usize = MARK_BYTES + 20;
/// Where `synced` stands, and the checksum behind it.
const SYNCED_AT: usize = MARK_BYTES + 8;
const CRC_AT: usize = SYNCED_AT + 8;

/// First bytes of every frame of one file, found again when searching behind a broken one. The file's first frame tells
/// it, so it needs no place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark([u8; MARK_BYTES]);

impl Mark {
    /// Of index files: they are found by name, read from their start, and hold no payloads.
    pub const INDEX: Self = Self(*b"drv-indx");

    /// One that nobody can foresee.
    pub fn draw() -> Self {
        let mut mark = [0; MARK_BYTES];
        getrandom::fill(&mut mark).expect("the operating system has a random source");
        Self(mark)
    }

    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    pub fn take(from: &mut Bytes) -> Result<Self, Malformed> {
        let bytes = from.take_exact(MARK_BYTES)?;
        bytes.first_chunk().copied().map(Self).ok_or(Malformed)
    }

    /// The mark of a file of at least one frame; `None` if it is shorter than a mark.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let mut mark = [0; MARK_BYTES];
        match file.read_exact_at(&mut mark, 0) {
            Ok(()) => Ok(Some(Self(mark))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub head_bytes: usize,
    pub body_bytes: usize,
    pub synced: u64,
    crc: u32,
}

impl Fixed {
    /// `None` if these are not the first bytes of a frame with this mark.
    pub fn parse(bytes: &[u8], mark: Mark) -> Option<Self> {
        let (found, rest) = bytes.get(..FIXED_BYTES)?.split_first_chunk::<MARK_BYTES>()?;
        let (head, rest) = rest.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_first_chunk::<4>()?;
        let (synced, rest) = rest.split_first_chunk::<8>()?;
        let crc = rest.first_chunk::<4>()?;
        (*found == mark.0).then(|| Self {
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
    frame.extend_from_slice(&[0; MARK_BYTES]);
    frame.extend_from_slice(&(head.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(body_bytes as u32).to_le_bytes());
    frame.extend_from_slice(&[0; FIXED_BYTES - SYNCED_AT]);
    frame.extend_from_slice(head);
    frame
}

/// Writes the file's mark, `synced` and the checksum into a joined frame.
pub(super) fn seal(frame: &mut [u8], head_bytes: usize, mark: Mark, synced: u64) {
    frame[..MARK_BYTES].copy_from_slice(&mark.0);
    frame[SYNCED_AT..CRC_AT].copy_from_slice(&synced.to_le_bytes());
    let (fixed, rest) = frame.split_at_mut(FIXED_BYTES);
    let crc = checksum(fixed, &rest[..head_bytes]);
    fixed[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(fixed: &[u8], head: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&fixed[..CRC_AT]);
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

/// Reads the frame at `at` of a file with this mark that ends at `end`. `Ok(None)` at the end.
pub(super) fn read(file: &File, mark: Mark, at: u64, end: u64) -> io::Result<Result<Option<Frame>, Broken>> {
    let left = end.saturating_sub(at);
    if left == 0 {
        return Ok(Ok(None));
    }
    if left < FIXED_BYTES as u64 {
        return Ok(Err(Broken::Incomplete));
    }
    let mut bytes = [0; FIXED_BYTES];
    file.read_exact_at(&mut bytes, at)?;
    let Some(fixed) = Fixed::parse(&bytes, mark) else { return Ok(Err(Broken::NoFrame)) };
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
pub(super) fn was_durable(file: &File, mark: Mark, at: u64, end: u64) -> io::Result<bool> {
    let mut rest = vec![0; end.saturating_sub(at) as usize];
    file.read_exact_at(&mut rest, at)?;
    Ok((1..rest.len()).any(|i| rest[i..].starts_with(&mark.0) && proves(&rest[i..], mark, at)))
}

fn proves(bytes: &[u8], mark: Mark, at: u64) -> bool {
    let Some(fixed) = Fixed::parse(bytes, mark) else { return false };
    let head = bytes.get(FIXED_BYTES..FIXED_BYTES.saturating_add(fixed.head_bytes));
    fixed.synced > at && head.is_some_and(|head| fixed.matches(&bytes[..FIXED_BYTES], head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(mark: Mark, body: &[u8], synced: u64) -> Vec<u8> {
        let mut frame = join(b"head", body.len());
        frame.extend_from_slice(body);
        seal(&mut frame, 4, mark, synced);
        frame
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(bytes, 0).expect("writes");
        file
    }

    #[test]
    fn a_frame_of_another_file_proves_nothing() {
        let (mark, other) = (Mark::draw(), Mark::draw());
        for (inner, damaged) in [(mark, true), (other, false)] {
            let mut bytes = frame(mark, b"first", 0);
            let broken = bytes.len() as u64;
            bytes.extend_from_slice(b"torn");
            bytes.extend_from_slice(&frame(inner, b"payload", broken + 1));
            let end = bytes.len() as u64;
            let file = file(&bytes);
            assert_eq!(Mark::of(&file).expect("reads"), Some(mark));
            assert_eq!(was_durable(&file, mark, broken, end).expect("reads"), damaged);
        }
    }
}
