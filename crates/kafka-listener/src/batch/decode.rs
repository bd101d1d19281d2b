//! A producer's batch to records of the bus.
//!
//! Protocol layer, pure. Nothing is reserved on the word of a length field, no arithmetic on received numbers can
//! overflow.

use bytes::{Buf, Bytes};
use drover_bus::{Headers, Record};

use super::compression::{CompressionError, decompress};
use super::{CRC_AT, CRC_END, HEADER_BYTES, LENGTH_END, MAGIC, MAGIC_AT, varint};

/// Attribute bits: compression, transactional, control.
const COMPRESSION_BITS: u16 = 0b111;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
/// Smallest record: length, attributes, two deltas, two lengths, header count.
const RECORD_BYTES_MIN: usize = 7;

/// Who wrote a batch, for idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    /// Sequence of the batch's first record in its partition; wraps from `i32::MAX` to 0.
    pub sequence: i32,
}

/// A decoded batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// `None`: the producer is not idempotent.
    pub producer: Option<Producer>,
    pub is_transactional: bool,
    /// At least one.
    pub records: Vec<Record>,
}

/// Why a batch was refused. [`super::super::refusal`] maps each variant to one Kafka error.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("batch is cut off after {bytes} bytes")]
    Truncated { bytes: usize },
    #[error("batch has format {magic}, only {MAGIC} is spoken")]
    Format { magic: u8 },
    #[error("batch has checksum {actual:#010x}, its header says {expected:#010x}")]
    Checksum { expected: u32, actual: u32 },
    #[error("{bytes} bytes follow the first batch, a request holds one batch a partition")]
    Several { bytes: usize },
    #[error("control batches come from brokers only")]
    Control,
    #[error("batch claims {claimed} records, its bytes hold {held}")]
    Count { claimed: i32, held: usize },
    #[error("record {index} of the batch is malformed")]
    Record { index: usize },
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// Reads the one batch of a produce request; compressed records may unpack to at most `bytes_max` bytes.
pub fn decode(mut bytes: Bytes, bytes_max: usize) -> Result<Batch, BatchError> {
    check_frame(&bytes)?;
    bytes.advance(CRC_END);
    let attributes = bytes.get_u16();
    let _last_offset_delta = bytes.get_i32();
    let base_timestamp = bytes.get_i64();
    let _max_timestamp = bytes.get_i64();
    let (id, epoch, sequence) = (bytes.get_i64(), bytes.get_i16(), bytes.get_i32());
    let claimed = bytes.get_i32();
    if attributes & CONTROL_BIT != 0 {
        return Err(BatchError::Control);
    }
    let body = decompress((attributes & COMPRESSION_BITS) as u8, bytes, bytes_max)?;
    Ok(Batch {
        producer: (id >= 0).then_some(Producer { id, epoch, sequence }),
        is_transactional: attributes & TRANSACTIONAL_BIT != 0,
        records: records(body, claimed, base_timestamp)?,
    })
}

/// Length, format and checksum; behind it the fixed header can be read without further checks.
fn check_frame(bytes: &Bytes) -> Result<(), BatchError> {
    let truncated = || BatchError::Truncated { bytes: bytes.len() };
    let magic = *bytes.get(MAGIC_AT).ok_or_else(truncated)?;
    if magic != MAGIC {
        return Err(BatchError::Format { magic });
    }
    let length = (&bytes[LENGTH_END - 4..LENGTH_END]).get_i32();
    let end = usize::try_from(length).map_err(|_| truncated())?.saturating_add(LENGTH_END);
    if end < HEADER_BYTES || end > bytes.len() {
        return Err(truncated());
    }
    if end < bytes.len() {
        return Err(BatchError::Several { bytes: bytes.len() - end });
    }
    let (expected, actual) = ((&bytes[CRC_AT..CRC_END]).get_u32(), crc32c::crc32c(&bytes[CRC_END..]));
    if expected != actual {
        return Err(BatchError::Checksum { expected, actual });
    }
    Ok(())
}

fn records(mut body: Bytes, claimed: i32, base_timestamp: i64) -> Result<Vec<Record>, BatchError> {
    let held = body.len() / RECORD_BYTES_MIN;
    let count = usize::try_from(claimed).ok().filter(|count| (1..=held).contains(count));
    let count = count.ok_or(BatchError::Count { claimed, held })?;
    let mut records = Vec::with_capacity(count);
    for index in 0..count {
        records.push(record(&mut body, index, base_timestamp).ok_or(BatchError::Record { index })?);
    }
    match body.has_remaining() {
        true => Err(BatchError::Record { index: count }),
        false => Ok(records),
    }
}

/// One record; its offset must be its place in the batch.
fn record(body: &mut Bytes, index: usize, base_timestamp: i64) -> Option<Record> {
    let length = usize::try_from(varint::take(body)?).ok().filter(|length| *length <= body.len())?;
    let mut rest = body.split_to(length);
    let _attributes = rest.try_get_i8().ok()?;
    let timestamp_ms = base_timestamp.checked_add(varint::take(&mut rest)?)?;
    if varint::take(&mut rest)? != index as i64 {
        return None;
    }
    let (key, value) = (blob(&mut rest)?, blob(&mut rest)?);
    let count = varint::take(&mut rest).filter(|count| *count >= 0)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        let name = blob(&mut rest)??;
        // The bus knows no header without a value: a null becomes empty.
        headers.push(std::str::from_utf8(&name).ok()?, &blob(&mut rest)?.unwrap_or_default());
    }
    (!rest.has_remaining()).then_some(Record { key, value, headers, timestamp_ms })
}

/// Nullable bytes: outer `None` means malformed.
fn blob(rest: &mut Bytes) -> Option<Option<Bytes>> {
    match varint::take(rest)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len())?;
            Some(Some(rest.split_to(length)))
        }
    }
}
