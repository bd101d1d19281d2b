//! Kafka's framing: a 4-byte big-endian length, then that many bytes.
//!
//! Protocol layer: cuts frames off a buffer; the caller owns the socket.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;

/// Bytes of the length in front of every frame.
pub const PREFIX_BYTES: usize = 4;

/// Cuts the first whole frame off `buffer`; `None` while it is incomplete. A length beyond `bytes_max` is refused
/// before anything is read for it.
pub fn cut(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, Malformed> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let claimed = i32::from_be_bytes(*prefix);
    let oversize = || Malformed::FrameSize { bytes: claimed.into(), limit: bytes_max };
    let length = usize::try_from(claimed).map_err(|_| oversize())?;
    if length > bytes_max {
        return Err(oversize());
    }
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_out_only_when_it_is_whole() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 3, 1, 2][..]);
        assert_eq!(cut(&mut buffer, 3), Ok(None));
        buffer.extend_from_slice(&[3, 9]);
        assert_eq!(cut(&mut buffer, 3), Ok(Some(Bytes::from_static(&[1, 2, 3]))));
        assert_eq!(&buffer[..], [9]);
    }

    #[test]
    fn a_frame_at_the_limit_passes_and_one_byte_more_or_a_negative_length_is_refused() {
        assert_eq!(cut(&mut BytesMut::from(&[0, 0, 0, 1, 7][..]), 1), Ok(Some(Bytes::from_static(&[7]))));
        let refused = cut(&mut BytesMut::from(&[0, 0, 0, 2][..]), 1);
        assert_eq!(refused, Err(Malformed::FrameSize { bytes: 2, limit: 1 }));
        let refused = cut(&mut BytesMut::from(&[0xff; 4][..]), 1);
        assert_eq!(refused, Err(Malformed::FrameSize { bytes: -1, limit: 1 }));
    }
}
