//! Records of the bus to the batches a fetch answers with: uncompressed, leader epoch 0, offsets as they are.
//!
//! Protocol layer, pure.

use bytes::{BufMut, Bytes, BytesMut};
use drover_bus::{Offset, Record, Stored};

use super::{CRC_AT, CRC_END, HEADER_BYTES, LENGTH_END, MAGIC, varint};

/// Offsets in a batch are 32-bit distances from its first.
const SPAN_MAX: u64 = i32::MAX as u64;
/// Room for the varints of a typical record, so that a batch is allocated once.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// Appends `stored` (one partition, ascending offsets, gaps allowed) as one batch, or several where a gap is too wide
/// for one.
pub fn encode(mut stored: &[Stored], buffer: &mut BytesMut) {
    while let Some(first) = stored.first() {
        let base = first.position.offset;
        let fits = stored.partition_point(|s| s.position.offset - base <= SPAN_MAX);
        let (batch, rest) = stored.split_at(fits);
        encode_batch(base, batch, buffer);
        stored = rest;
    }
}

/// Appends an empty batch that tells a consumer to go on at `next`: nothing is left of `from` to `next`.
pub fn encode_gap(from: Offset, next: Offset, buffer: &mut BytesMut) {
    let span = (next - from).min(SPAN_MAX + 1);
    let start = put_header(from, span - 1, &[], buffer);
    seal(start, buffer);
}

fn encode_batch(base: Offset, batch: &[Stored], buffer: &mut BytesMut) {
    buffer.reserve(HEADER_BYTES + batch.iter().map(|s| s.record.bytes() + RECORD_OVERHEAD_BYTES).sum::<usize>());
    let span = batch.last().map_or(0, |last| last.position.offset - base);
    let start = put_header(base, span, batch, buffer);
    let base_timestamp = batch.first().map_or(0, |s| s.record.timestamp_ms);
    for stored in batch {
        put_record(&stored.record, stored.position.offset - base, base_timestamp, buffer);
    }
    seal(start, buffer);
}

/// Writes the fixed header, length and checksum still 0; returns where it starts.
fn put_header(base: Offset, span: u64, batch: &[Stored], buffer: &mut BytesMut) -> usize {
    let start = buffer.len();
    let times = || batch.iter().map(|s| s.record.timestamp_ms);
    buffer.put_u64(base);
    buffer.put_i32(0);
    buffer.put_i32(0); // leader epoch
    buffer.put_u8(MAGIC);
    buffer.put_u32(0);
    buffer.put_u16(0); // attributes: uncompressed, times by the producer, neither transactional nor control
    buffer.put_u32(span as u32);
    buffer.put_i64(times().next().unwrap_or(-1));
    buffer.put_i64(times().max().unwrap_or(-1));
    buffer.put_i64(-1); // producer id
    buffer.put_i16(-1); // producer epoch
    buffer.put_i32(-1); // base sequence
    buffer.put_u32(batch.len() as u32);
    start
}

/// Fills in length and checksum of the batch that starts at `start` and ends here.
fn seal(start: usize, buffer: &mut BytesMut) {
    let batch = &mut buffer[start..];
    let length = (batch.len() - LENGTH_END) as u32;
    batch[LENGTH_END - 4..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_END..]);
    batch[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
}

fn put_record(record: &Record, offset_delta: u64, base_timestamp: i64, buffer: &mut BytesMut) {
    // Wrapping, as the Java client computes it: the reader adds the same way.
    let time_delta = record.timestamp_ms.wrapping_sub(base_timestamp);
    varint::put(buffer, body_bytes(record, offset_delta, time_delta) as i64);
    buffer.put_u8(0);
    varint::put(buffer, time_delta);
    varint::put(buffer, offset_delta as i64);
    put_blob(record.key.as_deref(), buffer);
    put_blob(record.value.as_deref(), buffer);
    varint::put(buffer, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_blob(Some(name.as_bytes()), buffer);
        put_blob(Some(value), buffer);
    }
}

fn put_blob(blob: Option<&[u8]>, buffer: &mut BytesMut) {
    match blob {
        None => varint::put(buffer, -1),
        Some(blob) => {
            varint::put(buffer, blob.len() as i64);
            buffer.put_slice(blob);
        }
    }
}

/// Bytes of a record behind its length.
fn body_bytes(record: &Record, offset_delta: u64, time_delta: i64) -> usize {
    let blob = |bytes: Option<usize>| bytes.map_or(1, |bytes| varint::bytes(bytes as i64) + bytes);
    let headers = record.headers.iter().map(|(name, value)| blob(Some(name.len())) + blob(Some(value.len())));
    1 + varint::bytes(time_delta)
        + varint::bytes(offset_delta as i64)
        + blob(record.key.as_ref().map(Bytes::len))
        + blob(record.value.as_ref().map(Bytes::len))
        + varint::bytes(record.headers.len() as i64)
        + headers.sum::<usize>()
}
