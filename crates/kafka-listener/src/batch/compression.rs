//! The four compressions of Kafka, undone with a bound on what comes out.
//!
//! Protocol layer, pure.

use std::io::Read;

use bytes::{Buf, Bytes};

/// Frame header of snappy as the Java client writes it (xerial), with its version and compatible version.
const XERIAL_MAGIC: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// Why records could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("compression type {kind} does not exist")]
    Unknown { kind: u8 },
    #[error("records decompress to more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("compressed records are damaged: {0}")]
    Damaged(#[from] std::io::Error),
}

/// Undoes compression `kind` (the low three bits of a batch's attributes); at most `bytes_max` bytes come out.
pub fn decompress(kind: u8, packed: Bytes, bytes_max: usize) -> Result<Bytes, CompressionError> {
    match kind {
        0 => Ok(packed),
        1 => bounded(flate2::read::MultiGzDecoder::new(packed.reader()), bytes_max),
        2 => snappy(packed, bytes_max),
        3 => bounded(lz4::Decoder::new(packed.reader())?, bytes_max),
        4 => bounded(zstd::stream::read::Decoder::new(packed.reader())?, bytes_max),
        kind => Err(CompressionError::Unknown { kind }),
    }
}

fn bounded(reader: impl Read, bytes_max: usize) -> Result<Bytes, CompressionError> {
    let mut unpacked = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut unpacked)?;
    match unpacked.len() <= bytes_max {
        true => Ok(unpacked.into()),
        false => Err(CompressionError::TooLarge { limit: bytes_max }),
    }
}

/// Xerial blocks as the Java client writes them, or one raw block as librdkafka does.
fn snappy(mut packed: Bytes, bytes_max: usize) -> Result<Bytes, CompressionError> {
    let mut unpacked = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        snappy_block(&packed, &mut unpacked, bytes_max)?;
        return Ok(unpacked.into());
    }
    packed.advance(XERIAL_MAGIC.len());
    while packed.has_remaining() {
        let cut_off = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let length = packed.try_get_u32().map_err(|_| cut_off())? as usize;
        if length > packed.len() {
            return Err(cut_off().into());
        }
        snappy_block(&packed.split_to(length), &mut unpacked, bytes_max)?;
    }
    Ok(unpacked.into())
}

fn snappy_block(block: &[u8], unpacked: &mut Vec<u8>, bytes_max: usize) -> Result<(), CompressionError> {
    let claimed = snap::raw::decompress_len(block).map_err(std::io::Error::from)?;
    let start = unpacked.len();
    if claimed > bytes_max - start {
        return Err(CompressionError::TooLarge { limit: bytes_max });
    }
    unpacked.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut unpacked[start..]).map_err(std::io::Error::from)?;
    unpacked.truncate(start + written);
    Ok(())
}
