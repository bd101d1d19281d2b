//! Requests into a batch: documents, changes, deliveries and next offsets that are committed as one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use drover_bus::{Offset, Outgoing, Partition, Position, TopicPartition};
use drover_proto::shadow::v1 as wire;
use drover_types::DeviceKey;
use drover_types::repeat::identity;
use drover_types::shadow::{SHADOW_REQUESTS_TOPIC, ShadowName, ShadowOperation};
use prost::Message as _;

use super::answer::{Found, Outcome, answer};
use super::asked::Asked;
use super::document::Shadow;
use super::forget::Forget;
use super::key::ShadowKey;
use super::records;
use super::repeats::Identity;

/// What is to be committed next, and the shadows as they are by then.
#[derive(Debug, Default)]
pub struct Batch {
    shadows: HashMap<ShadowKey, Option<Shadow>>,
    /// How many shadows a device has, where that was asked.
    of_device: HashMap<DeviceKey, usize>,
    records: Vec<Outgoing>,
    bytes: usize,
    next: BTreeMap<Partition, Offset>,
    /// Changed shadows, each with its partition, in order.
    changed: Vec<(Partition, ShadowKey, Shadow)>,
    /// Answers that may have to be given again: place in `records`, identity, time of the request.
    answers: Vec<(usize, Identity, u64)>,
    pub tally: Tally,
}

/// What the requests of a batch came to; for the metrics.
#[derive(Debug, Default)]
pub struct Tally {
    /// Operation and code of each answer.
    pub answered: Vec<(ShadowOperation, u16)>,
    /// Requests recognised as sent again.
    pub repeats: u64,
    /// Those among them whose answer is not known any more.
    pub unanswered: u64,
}

/// An answer that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub partition: Partition,
    pub identity: Identity,
    /// Of the request.
    pub time_ms: u64,
    /// In the replies.
    pub offset: Offset,
}

impl Batch {
    /// Whether nothing is to be committed.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Bytes to be written, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records to write, in order.
    pub fn records(&self) -> Arc<[Outgoing]> {
        self.records.as_slice().into()
    }

    /// The offsets to commit.
    pub fn offsets(&self) -> Vec<Position> {
        let position = |(partition, offset): (&Partition, &Offset)| Position {
            at: TopicPartition::new(SHADOW_REQUESTS_TOPIC, *partition),
            offset: *offset,
        };
        self.next.iter().map(position).collect()
    }

    /// The shadow as the store has it; `of_device` counts where there is none.
    pub fn learn(&mut self, key: ShadowKey, shadow: Option<Shadow>, of_device: usize) {
        if shadow.is_none() {
            self.of_device.entry(key.device.clone()).or_insert(of_device);
        }
        self.shadows.entry(key).or_insert(shadow);
    }

    /// The partition moves on past this request, whatever becomes of it.
    pub fn pass(&mut self, position: &Position) {
        self.next.insert(position.at.partition, position.offset + 1);
    }

    /// Carries a request out. Its shadow has to be known.
    pub fn take(&mut self, partition: Partition, asked: &Asked) {
        let found = Found {
            key: &asked.key,
            shadow: self.shadows.get(&asked.key).and_then(Option::as_ref),
            of_device: self.of_device.get(&asked.key.device).copied().unwrap_or_default(),
        };
        let version = found.shadow.map_or(0, |shadow| shadow.version);
        let is_new = found.shadow.is_none();
        let outcome = answer(found, asked.operation, &asked.message.payload, asked.received_s());
        let Outcome { answer, code, after, notices, change } = outcome;
        self.tally.answered.push((asked.operation, code));
        let version = after.as_ref().map_or(version, |after| after.version);
        if let Some(after) = after {
            self.put(partition, records::document(asked, &after));
            *self.of_device.entry(asked.key.device.clone()).or_default() += usize::from(is_new);
            self.changed.push((partition, asked.key.clone(), after.clone()));
            self.shadows.insert(asked.key.clone(), Some(after));
        }
        if let Some(change) = change {
            self.put(partition, records::change(asked, change));
        }
        let delivery = records::answer(asked, code, version, answer);
        self.reply(partition, asked, &delivery);
        for (level, notice) in notices {
            self.put(partition, records::reply(asked, &records::notice(asked, level, notice)));
        }
    }

    /// The shadows of a device that are known, in the order of their names.
    pub fn names(&self, device: &DeviceKey) -> Vec<ShadowName> {
        let of_device = self.shadows.keys().filter(|key| key.device == *device);
        let mut names: Vec<_> = of_device.map(|key| key.name.clone()).collect();
        names.sort();
        names
    }

    /// Whether it is known what there is under this key.
    pub fn knows(&self, key: &ShadowKey) -> bool {
        self.shadows.contains_key(key)
    }

    /// Deletes a shadow of a device that was deleted, if that concerns it. The shadow has to be known.
    pub fn forget(&mut self, partition: Partition, key: &ShadowKey, forget: &Forget) {
        let concerned = self.shadows.get(key).and_then(Option::as_ref).is_some_and(|shadow| forget.concerns(shadow));
        if let Some(asked) = forget.of(key).filter(|_| concerned) {
            self.take(partition, &asked);
        }
    }

    /// The answer that a request of this identity got within this batch.
    pub fn answer_of(&self, wanted: &Identity) -> Option<wire::Delivery> {
        let (index, ..) = self.answers.iter().rev().find(|(_, identity, _)| identity == wanted)?;
        wire::Delivery::decode(self.records[*index].record.value.clone()?).ok()
    }

    /// A request came again: nothing is done, and the same is answered to the connection it came by now.
    pub fn repeat(&mut self, partition: Partition, asked: &Asked, first: Option<wire::Delivery>) {
        self.tally.repeats += 1;
        match first {
            Some(first) => self.reply(partition, asked, &records::again(asked, first)),
            None => self.tally.unanswered += 1,
        }
    }

    /// Where the answers are, once all is written: `positions` of the records in their order.
    pub fn answered<'b>(&'b self, positions: &'b [Position]) -> impl Iterator<Item = Answered> + 'b {
        self.answers.iter().filter_map(|(index, identity, time_ms)| {
            let Position { at, offset } = positions.get(*index)?;
            Some(Answered { partition: at.partition, identity: *identity, time_ms: *time_ms, offset: *offset })
        })
    }

    /// The last state of each changed shadow, by partition, in the order of their last changes.
    pub fn changes(&self) -> BTreeMap<Partition, Vec<(ShadowKey, Shadow)>> {
        let mut changes: BTreeMap<Partition, Vec<(ShadowKey, Shadow)>> = BTreeMap::new();
        for (partition, key, shadow) in &self.changed {
            let of_partition = changes.entry(*partition).or_default();
            of_partition.retain(|(earlier, _)| earlier != key);
            of_partition.push((key.clone(), shadow.clone()));
        }
        changes
    }

    /// All of it is written: what comes next is a batch over the same shadows.
    pub fn written(&mut self) {
        let (shadows, of_device) = (std::mem::take(&mut self.shadows), std::mem::take(&mut self.of_device));
        *self = Self { shadows, of_device, ..Self::default() };
    }

    fn reply(&mut self, partition: Partition, asked: &Asked, delivery: &wire::Delivery) {
        if let Some(identity) = identity(&asked.message) {
            self.answers.push((self.records.len(), identity, asked.message.time_ms));
        }
        self.put(partition, records::reply(asked, delivery));
    }

    fn put(&mut self, partition: Partition, outgoing: Outgoing) {
        self.bytes += outgoing.record.bytes();
        self.records.push(Outgoing { partition: Some(partition), ..outgoing });
    }
}
