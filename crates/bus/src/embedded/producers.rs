//! What idempotent producers have written, so that a batch sent again is recognised.
//!
//! Bounded per topic; kept with each sealed segment's index and rebuilt from the sections behind it. A producer that was
//! forgotten may continue at any sequence number, as in Kafka.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::section::{ProducerSequence, SectionHead};
use crate::{Offset, Partition};

/// Most (partition, producer) pairs remembered per topic; the one silent for longest is forgotten first.
const PRODUCERS_MAX: usize = 1_000;
/// Batches remembered per producer: as many as Kafka's idempotent producers may have in flight.
const BATCHES_MAX: usize = 5;

/// What a batch is to what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    /// It was written before, beginning at this offset.
    Repeat(Offset),
    OutOfOrder {
        expected: i32,
    },
    Fenced {
        epoch: i16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    first: i32,
    records: u32,
    base: Offset,
}

#[derive(Debug)]
struct Known {
    epoch: i16,
    batches: VecDeque<Batch>,
    used: u64,
}

/// The producers of one topic.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: HashMap<(Partition, i64), Known>,
    uses: u64,
}

impl Producers {
    /// Judges a batch of `records` records.
    pub fn judge(&self, partition: Partition, sequence: ProducerSequence, records: u32) -> Verdict {
        let Some(known) = self.known.get(&(partition, sequence.id)) else { return Verdict::New };
        if sequence.epoch < known.epoch {
            return Verdict::Fenced { epoch: known.epoch };
        }
        let expected = if sequence.epoch > known.epoch {
            0
        } else if let Some(batch) = known.batches.iter().find(|b| b.first == sequence.first && b.records == records) {
            return Verdict::Repeat(batch.base);
        } else {
            known.batches.back().map_or(0, |last| advance(last.first, last.records))
        };
        if sequence.first == expected { Verdict::New } else { Verdict::OutOfOrder { expected } }
    }

    /// Remembers a section that is in the log.
    pub fn record(&mut self, head: &SectionHead) {
        let Some(sequence) = head.producer else { return };
        self.uses += 1;
        let fresh = Known { epoch: sequence.epoch, batches: VecDeque::new(), used: 0 };
        let known = self.known.entry((head.partition, sequence.id)).or_insert(fresh);
        if known.epoch != sequence.epoch {
            known.epoch = sequence.epoch;
            known.batches.clear();
        }
        known.used = self.uses;
        known.batches.push_back(Batch { first: sequence.first, records: head.records, base: head.base });
        if known.batches.len() > BATCHES_MAX {
            known.batches.pop_front();
        }
        self.forget_beyond_limit();
    }

    fn forget_beyond_limit(&mut self) {
        if self.known.len() > PRODUCERS_MAX
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| *key)
        {
            self.known.remove(&oldest);
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut sorted: Vec<_> = self.known.iter().collect();
        sorted.sort_by_key(|(_, known)| known.used);
        let mut out = Vec::new();
        for ((partition, id), known) in sorted {
            for batch in &known.batches {
                out.put_u32(*partition);
                out.put_i64(*id);
                out.put_u32(known.epoch as u16 as u32);
                out.put_u32(batch.first as u32);
                out.put_u32(batch.records);
                out.put_u64(batch.base);
            }
        }
        out
    }

    pub fn decode(mut from: Bytes) -> Result<Self, Malformed> {
        let mut producers = Self::default();
        while !from.is_empty() {
            let partition = from.take_u32()?;
            let id = from.take_i64()?;
            let epoch = from.take_u32()? as u16 as i16;
            let first = from.take_u32()? as i32;
            let (records, base) = (from.take_u32()?, from.take_u64()?);
            let producer = Some(ProducerSequence { id, epoch, first });
            let next = base + u64::from(records);
            producers.record(&SectionHead { partition, records, base, next, newest_ms: 0, producer, bytes: 0, crc: 0 });
        }
        Ok(producers)
    }
}

/// The sequence number behind `records` records; wraps to 0 behind `i32::MAX`.
fn advance(first: i32, records: u32) -> i32 {
    ((i64::from(first) + i64::from(records)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(first: i32, records: u32, base: Offset, epoch: i16) -> SectionHead {
        let producer = Some(ProducerSequence { id: 9, epoch, first });
        SectionHead { partition: 1, records, base, next: base + 1, newest_ms: 0, producer, bytes: 0, crc: 0 }
    }

    fn judge(producers: &Producers, first: i32, records: u32, epoch: i16) -> Verdict {
        producers.judge(1, ProducerSequence { id: 9, epoch, first }, records)
    }

    #[test]
    fn repeats_gaps_and_old_epochs_are_told_apart() {
        let mut producers = Producers::default();
        assert_eq!(judge(&producers, 0, 3, 1), Verdict::New);
        producers.record(&section(0, 3, 100, 1));
        assert_eq!(judge(&producers, 0, 3, 1), Verdict::Repeat(100));
        assert_eq!(judge(&producers, 3, 1, 1), Verdict::New);
        assert_eq!(judge(&producers, 4, 1, 1), Verdict::OutOfOrder { expected: 3 });
        assert_eq!(judge(&producers, 3, 1, 0), Verdict::Fenced { epoch: 1 });
        assert_eq!(judge(&producers, 0, 1, 2), Verdict::New);
        assert_eq!(judge(&producers, 3, 1, 2), Verdict::OutOfOrder { expected: 0 });
    }

    #[test]
    fn sequence_numbers_wrap_behind_the_largest() {
        let mut producers = Producers::default();
        producers.record(&section(i32::MAX, 1, 0, 0));
        assert_eq!(judge(&producers, 0, 1, 0), Verdict::New);
    }

    #[test]
    fn the_state_reads_back_as_it_was_written() {
        let mut producers = Producers::default();
        (0..7).for_each(|i| producers.record(&section(i, 1, i as u64, 3)));
        let read = Producers::decode(producers.encode().into()).expect("just encoded");
        assert_eq!(read.encode(), producers.encode());
        assert_eq!(judge(&read, 6, 1, 3), Verdict::Repeat(6));
    }

    #[test]
    fn the_producer_silent_for_longest_is_forgotten_at_the_limit() {
        let mut producers = Producers::default();
        for id in 0..=PRODUCERS_MAX as i64 {
            let producer = Some(ProducerSequence { id, epoch: 0, first: 0 });
            producers.record(&SectionHead { producer, ..section(0, 1, 0, 0) });
        }
        assert_eq!(producers.known.len(), PRODUCERS_MAX);
        assert!(!producers.known.contains_key(&(1, 0)));
    }
}
