//! Records of the log on their way into the store: what is new of them, and how far the log has been read.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_bus::{Offset, Position, Stored, TopicPartition, repeats};
use drover_types::command::COMMAND_TOPICS;
use drover_types::repeat::{RepeatWindow, Verdict};
use drover_types::{InvalidTelemetry, Telemetry};

use super::fields::{Fields, Skip, fields};
use super::known_fields::KnownFields;
use crate::series::{Entry, Message, Place};

/// Records of one batch; more wait for the next.
pub const RECORDS_MAX: usize = 2_000;
/// Bytes of payloads of one batch, passed by one poll at most.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Latest time of a record, milliseconds since the Unix epoch: the end of the year 9999.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// What is to be stored next, and the offsets that may be committed then.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Arc<Vec<Entry>>,
    next: BTreeMap<TopicPartition, Offset>,
    bytes: usize,
    pub tally: Tally,
}

/// What the records of a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub points: u64,
    /// Records that cannot be read.
    pub malformed: u64,
    /// Messages that were sent again.
    pub repeats: u64,
    /// Messages flagged as sent again whose first sending is not known; taken for new.
    pub doubtful: u64,
    /// Messages forgotten before their time because a window was full.
    pub crowded_out: u64,
    /// Messages whose payload has no fields: neither JSON nor a number.
    pub opaque: u64,
    /// Values left out, by reason.
    pub skipped: BTreeMap<Skip, u64>,
}

impl Batch {
    /// Whether nothing was read since the last batch.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Whether it has to be stored before more is taken.
    pub fn is_full(&self) -> bool {
        self.tally.records >= RECORDS_MAX as u64 || self.bytes >= BYTES_MAX
    }

    /// What is to be stored.
    pub fn entries(&self) -> Arc<Vec<Entry>> {
        Arc::clone(&self.entries)
    }

    /// The offsets to commit once it is stored.
    pub fn offsets(&self) -> Vec<Position> {
        self.next.iter().map(|(at, offset)| Position { at: at.clone(), offset: *offset }).collect()
    }

    /// Takes one record: whatever becomes of it, its partition moves on. An error: it cannot be read.
    pub fn take(&mut self, stored: &Stored, window: Option<&mut RepeatWindow>) -> Result<(), InvalidTelemetry> {
        self.next.insert(stored.position.at.clone(), stored.position.offset + 1);
        self.tally.records += 1;
        let telemetry = readable(stored).inspect_err(|_| self.tally.malformed += 1)?;
        let verdict = window.map_or(Verdict::New, |window| self.look(window, &telemetry));
        match verdict {
            Verdict::Repeat => self.tally.repeats += 1,
            Verdict::New => self.keep(telemetry),
        }
        Ok(())
    }

    /// Leaves out the values of fields that are more than a device may have. Done again it changes nothing.
    pub fn limit_fields(&mut self, known: &mut KnownFields) {
        let mut refused = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            refused.extend(known.refuse(entry).into_iter().map(|place| (number, place)));
        }
        if refused.is_empty() {
            return;
        }
        let count = refused.len() as u64;
        self.tally.points -= count;
        *self.tally.skipped.entry(Skip::DeviceFields).or_default() += count;
        let entries = Arc::make_mut(&mut self.entries);
        // From the last to the first: those before keep their places.
        for (number, place) in refused.into_iter().rev() {
            entries[number].values.remove(place);
        }
    }

    fn look(&mut self, window: &mut RepeatWindow, telemetry: &Telemetry) -> Verdict {
        let before = window.counts();
        let verdict = window.observe(telemetry);
        self.tally.doubtful += window.counts().doubtful - before.doubtful;
        self.tally.crowded_out += window.counts().crowded_out - before.crowded_out;
        verdict
    }

    fn keep(&mut self, telemetry: Telemetry) {
        // What a device is told to do is none of its values.
        let is_told = telemetry.topic.as_str().starts_with(COMMAND_TOPICS);
        let found = if is_told { Fields::default() } else { fields(&telemetry.payload) };
        self.tally.opaque += u64::from(found.opaque);
        self.tally.points += found.values.len() as u64;
        for why in &found.skipped {
            *self.tally.skipped.entry(*why).or_default() += 1;
        }
        if !found.skipped.is_empty() {
            let (device, topic) = (telemetry.key(), telemetry.topic.as_str());
            tracing::debug!(%device, topic, skipped = ?found.skipped.first(), values = found.skipped.len(), "left out");
        }
        self.bytes += telemetry.payload.len();
        let message = Message {
            at: Place { time_ms: telemetry.time_ms, id: telemetry.id },
            topic: telemetry.topic.as_str().to_owned(),
            qos: telemetry.qos,
            payload: telemetry.payload.clone(),
            // What a rule publishes has one hop at least; what a device does, none.
            of_rule: telemetry.hops > 0,
        };
        Arc::make_mut(&mut self.entries).push(Entry { device: telemetry.key(), message, values: found.values });
    }
}

fn readable(stored: &Stored) -> Result<Telemetry, InvalidTelemetry> {
    let telemetry = repeats::telemetry(stored)?;
    if telemetry.time_ms > TIME_MS_MAX {
        let reason = format!("{} is beyond {TIME_MS_MAX}", telemetry.time_ms);
        return Err(InvalidTelemetry::Malformed { name: drover_types::header::TIME, reason });
    }
    Ok(telemetry)
}
