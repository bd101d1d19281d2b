//! Batches there and back, in every compression, and under mutation.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use drover_bus::{Headers, Position, Record, Stored, TopicPartition};
use proptest::prelude::*;

use super::*;

const UNPACKED_MAX: usize = 1 << 20;

fn stored(offset: u64, record: Record) -> Stored {
    Stored { position: Position { at: TopicPartition::new("t", 0), offset }, record }
}

fn blob() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from))
}

fn record() -> impl Strategy<Value = Record> {
    let header = ("[a-z]{0,3}", proptest::collection::vec(any::<u8>(), 0..40));
    let headers = proptest::collection::vec(header, 0..5).prop_map(Headers::from_iter);
    (blob(), blob(), headers, -1i64..4_000_000_000_000).prop_map(|(key, value, headers, timestamp_ms)| Record {
        key,
        value,
        headers,
        timestamp_ms,
    })
}

fn batch_of(records: &[Record]) -> Bytes {
    let stored: Vec<_> = records.iter().zip(0..).map(|(r, i)| stored(i, r.clone())).collect();
    let mut buffer = BytesMut::new();
    encode(&stored, &mut buffer);
    buffer.freeze()
}

/// The same batch with its records compressed as a producer would.
fn packed(plain: &Bytes, kind: u8) -> Bytes {
    let body = &plain[HEADER_BYTES..];
    let packed = match kind {
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(body).and_then(|()| gzip.finish()).expect("in memory")
        }
        2 => snap::raw::Encoder::new().compress_vec(body).expect("in memory"),
        3 => {
            let mut lz4 = lz4::EncoderBuilder::new().build(Vec::new()).expect("in memory");
            lz4.write_all(body).expect("in memory");
            lz4.finish().0
        }
        4 => zstd::encode_all(body, 1).expect("in memory"),
        _ => body.to_vec(),
    };
    let mut batch = BytesMut::from(&plain[..HEADER_BYTES]);
    batch.extend_from_slice(&packed);
    batch[CRC_END + 1] = kind;
    reseal(batch)
}

fn reseal(mut batch: BytesMut) -> Bytes {
    let length = (batch.len() - LENGTH_END) as u32;
    batch[LENGTH_END - 4..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_END..]);
    batch[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

proptest! {
    #[test]
    fn records_come_back_exactly_in_every_compression(
        records in proptest::collection::vec(record(), 1..20), kind in 0u8..5,
    ) {
        let batch = decode(packed(&batch_of(&records), kind), UNPACKED_MAX).expect("well-formed");
        prop_assert_eq!(batch, Batch { producer: None, is_transactional: false, records });
    }

    #[test]
    fn the_codec_crate_reads_the_same_offsets_times_and_payloads(
        records in proptest::collection::vec((record(), 1u64..1000), 1..20), base in 0u64..1 << 40,
    ) {
        let mut offset = base;
        let stored: Vec<_> = records.into_iter().map(|(r, gap)| { offset += gap; stored(offset, r) }).collect();
        let mut buffer = BytesMut::new();
        encode(&stored, &mut buffer);
        let read = kafka_protocol::records::RecordBatchDecoder::decode(&mut buffer.freeze()).expect("well-formed");
        prop_assert_eq!(read.records.len(), stored.len());
        for (read, stored) in read.records.iter().zip(&stored) {
            prop_assert_eq!(read.offset, stored.position.offset as i64);
            prop_assert_eq!(read.timestamp, stored.record.timestamp_ms);
            prop_assert_eq!((&read.key, &read.value), (&stored.record.key, &stored.record.value));
            prop_assert_eq!(read.partition_leader_epoch, 0);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        records in proptest::collection::vec(record(), 1..5),
        kind in 0u8..8,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        sealed in any::<bool>(),
    ) {
        let mut batch = BytesMut::from(&packed(&batch_of(&records), kind.min(4))[..]);
        batch[CRC_END + 1] = kind;
        for (at, byte) in changes {
            let at = at.index(batch.len());
            batch[at] = byte;
        }
        if sealed && batch.len() > HEADER_BYTES {
            batch[MAGIC_AT] = MAGIC;
            let batch = reseal(batch);
            if let Ok(decoded) = decode(batch, UNPACKED_MAX) {
                prop_assert!(!decoded.records.is_empty());
            }
        } else {
            let length = cut.index(batch.len());
            prop_assert!(decode(batch.freeze().slice(..length), UNPACKED_MAX).is_err());
        }
    }
}

#[test]
fn a_gap_wider_than_a_batch_starts_a_new_batch() {
    let far = SPAN + 1;
    const SPAN: u64 = i32::MAX as u64;
    let mut buffer = BytesMut::new();
    encode(
        &[stored(0, Record::default()), stored(SPAN, Record::default()), stored(SPAN + far, Record::default())],
        &mut buffer,
    );
    let infos =
        kafka_protocol::records::RecordBatchDecoder::decode_batch_info(&mut buffer.freeze()).expect("well-formed");
    let shape: Vec<_> = infos.iter().map(|i| (i.min_offset, i.record_count)).collect();
    assert_eq!(shape, [(0, 2), ((SPAN + far) as i64, 1)]);
}

#[test]
fn records_that_unpack_beyond_the_limit_are_refused() {
    let record = Record { value: Some(vec![0; UNPACKED_MAX].into()), ..Record::default() };
    for kind in 1..=4 {
        let bomb = packed(&batch_of(std::slice::from_ref(&record)), kind);
        assert!(bomb.len() < UNPACKED_MAX / 10, "compression {kind} makes it small");
        let refused = decode(bomb, UNPACKED_MAX);
        assert!(
            matches!(refused, Err(BatchError::Compression(compression::CompressionError::TooLarge { .. }))),
            "compression {kind}: {refused:?}"
        );
    }
}

#[test]
fn a_wrong_checksum_two_batches_and_an_old_format_are_refused_by_name() {
    let good = batch_of(&[Record::default()]);
    let mut flipped = BytesMut::from(&good[..]);
    flipped[CRC_END + 2] ^= 1;
    assert!(matches!(decode(flipped.freeze(), UNPACKED_MAX), Err(BatchError::Checksum { .. })));
    let twice = [&good[..], &good[..]].concat();
    assert!(matches!(decode(twice.into(), UNPACKED_MAX), Err(BatchError::Several { .. })));
    let mut old = BytesMut::from(&good[..]);
    old[MAGIC_AT] = 1;
    assert!(matches!(decode(old.freeze(), UNPACKED_MAX), Err(BatchError::Format { magic: 1 })));
}

#[test]
fn an_empty_batch_covers_a_gap_up_to_its_end() {
    let mut buffer = BytesMut::new();
    encode_gap(5, 9, &mut buffer);
    assert_eq!(buffer.len(), HEADER_BYTES);
    assert_eq!(
        (buffer[..8].to_vec(), buffer[23..27].to_vec()),
        (5u64.to_be_bytes().to_vec(), 3u32.to_be_bytes().to_vec())
    );
}
