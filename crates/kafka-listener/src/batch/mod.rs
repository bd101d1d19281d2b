//! Kafka's record batches, format 2: what producers send and consumers get.
//!
//! Protocol layer, pure. Own code instead of the codec crate's: that one keeps one header of a name where Kafka keeps
//! all, reserves memory for as many headers as a record claims, and decompresses without a bound.

mod compression;
mod decode;
mod encode;
mod varint;

pub use decode::{Batch, BatchError, decode};
pub use encode::{encode, encode_gap};

/// Bytes of a batch in front of its records.
const HEADER_BYTES: usize = 61;
/// Bytes of a batch in front of the part that the length counts: base offset and length.
const LENGTH_END: usize = 12;
/// Place of the format version.
const MAGIC_AT: usize = 16;
/// Place of the checksum; it covers everything behind itself.
const CRC_AT: usize = 17;
const CRC_END: usize = 21;
/// The one format version spoken.
const MAGIC: u8 = 2;

#[cfg(test)]
mod tests;
