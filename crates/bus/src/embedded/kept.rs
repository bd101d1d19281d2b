//! What the journal keeps: the catalogue of topics, committed offsets and ids handed out, and the entries that change it.
//!
//! Pure: replaying entries on the snapshot they follow gives the same state again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::section::{Section, SectionHead};
use crate::{Offset, Topic, TopicConfig, TopicPartition};

/// Tags of the entries; the first byte of each.
const SNAPSHOT: u8 = 1;
const TOPIC_CREATED: u8 = 2;
const TOPIC_DELETED: u8 = 3;
const COMMITTED: u8 = 4;
const GROUP_DELETED: u8 = 5;
const PRODUCER_IDS: u8 = 6;

/// A committed offset of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    pub at: TopicPartition,
    /// Next offset to read.
    pub next: Offset,
    /// Whatever the consumer wants to keep with it.
    pub metadata: String,
}

/// Number of a topic; never used twice, so that a topic made anew under an old name starts empty.
pub(super) type TopicId = u32;
type GroupOffsets = BTreeMap<TopicPartition, (Offset, String)>;

/// The state the journal keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub topics: BTreeMap<TopicId, TopicConfig>,
    pub next_topic: TopicId,
    pub next_producer: i64,
    groups: BTreeMap<String, GroupOffsets>,
}

/// One durable step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Snapshot(Kept),
    TopicCreated {
        id: TopicId,
        config: TopicConfig,
    },
    TopicDeleted {
        id: TopicId,
    },
    /// A transaction, or just offsets: all of it or nothing.
    Committed {
        sections: Vec<(TopicId, Vec<Section>)>,
        offsets: Vec<(String, Vec<GroupOffset>)>,
    },
    GroupDeleted {
        group: String,
    },
    ProducerIds {
        next: i64,
    },
}

impl Kept {
    /// Takes a step; records of transactions are the topics' business.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Snapshot(kept) => *self = kept.clone(),
            Entry::TopicCreated { id, config } => {
                self.topics.insert(*id, config.clone());
                self.next_topic = self.next_topic.max(id + 1);
            }
            Entry::TopicDeleted { id } => {
                if let Some(config) = self.topics.remove(id) {
                    self.groups.values_mut().for_each(|offsets| offsets.retain(|at, _| at.topic != config.topic));
                    self.groups.retain(|_, offsets| !offsets.is_empty());
                }
            }
            Entry::Committed { sections: _, offsets } => {
                offsets.iter().for_each(|(g, offsets)| self.commit(g, offsets))
            }
            Entry::GroupDeleted { group } => {
                self.groups.remove(group);
            }
            Entry::ProducerIds { next } => self.next_producer = *next,
        }
    }

    fn commit(&mut self, group: &str, offsets: &[GroupOffset]) {
        let known = self.groups.entry(group.to_owned()).or_default();
        for offset in offsets {
            known.insert(offset.at.clone(), (offset.next, offset.metadata.clone()));
        }
    }

    /// Committed offset of a group for one partition.
    pub fn committed(&self, group: &str, at: &TopicPartition) -> Option<Offset> {
        self.groups.get(group)?.get(at).map(|(next, _)| *next)
    }

    /// All committed offsets of a group, sorted.
    pub fn offsets(&self, group: &str) -> Vec<GroupOffset> {
        let offset = |(at, (next, metadata)): (&TopicPartition, &(Offset, String))| GroupOffset {
            at: at.clone(),
            next: *next,
            metadata: metadata.clone(),
        };
        self.groups.get(group).into_iter().flatten().map(offset).collect()
    }

    /// Whether a group has committed offsets.
    pub fn has_offsets(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Groups with committed offsets, sorted.
    pub fn groups(&self) -> Vec<String> {
        self.groups.keys().cloned().collect()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.next_topic);
        out.put_i64(self.next_producer);
        out.put_length(self.topics.len() as u64);
        for (id, config) in &self.topics {
            put_topic(out, *id, config);
        }
        out.put_length(self.groups.len() as u64);
        for group in self.groups.keys() {
            put_offsets(out, group, &self.offsets(group));
        }
    }

    fn decode(from: &mut Bytes) -> Result<Self, Malformed> {
        let mut kept = Self { next_topic: from.take_u32()?, next_producer: from.take_i64()?, ..Self::default() };
        for _ in 0..from.take_length()? {
            let (id, config) = take_topic(from)?;
            kept.topics.insert(id, config);
        }
        for _ in 0..from.take_length()? {
            let (group, offsets) = take_offsets(from)?;
            kept.commit(&group, &offsets);
        }
        Ok(kept)
    }
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Snapshot(kept) => {
                out.put_u8(SNAPSHOT);
                kept.encode(&mut out);
            }
            Self::TopicCreated { id, config } => {
                out.put_u8(TOPIC_CREATED);
                put_topic(&mut out, *id, config);
            }
            Self::TopicDeleted { id } => {
                out.put_u8(TOPIC_DELETED);
                out.put_u32(*id);
            }
            Self::Committed { sections, offsets } => {
                out.put_u8(COMMITTED);
                out.put_length(sections.len() as u64);
                sections.iter().for_each(|(id, sections)| put_sections(&mut out, *id, sections));
                out.put_length(offsets.len() as u64);
                offsets.iter().for_each(|(group, offsets)| put_offsets(&mut out, group, offsets));
            }
            Self::GroupDeleted { group } => {
                out.put_u8(GROUP_DELETED);
                out.put_bytes(group.as_bytes());
            }
            Self::ProducerIds { next } => {
                out.put_u8(PRODUCER_IDS);
                out.put_i64(*next);
            }
        }
        out
    }

    pub fn decode(mut from: Bytes) -> Result<Self, Malformed> {
        let from = &mut from;
        let entry = match from.take_u8()? {
            SNAPSHOT => Self::Snapshot(Kept::decode(from)?),
            TOPIC_CREATED => {
                let (id, config) = take_topic(from)?;
                Self::TopicCreated { id, config }
            }
            TOPIC_DELETED => Self::TopicDeleted { id: from.take_u32()? },
            COMMITTED => Self::Committed {
                sections: (0..from.take_length()?).map(|_| take_sections(from)).collect::<Result<_, _>>()?,
                offsets: (0..from.take_length()?).map(|_| take_offsets(from)).collect::<Result<_, _>>()?,
            },
            GROUP_DELETED => Self::GroupDeleted { group: from.take_text()? },
            PRODUCER_IDS => Self::ProducerIds { next: from.take_i64()? },
            _ => return Err(Malformed),
        };
        if from.is_empty() { Ok(entry) } else { Err(Malformed) }
    }
}

fn put_topic(out: &mut Vec<u8>, id: TopicId, config: &TopicConfig) {
    out.put_u32(id);
    out.put_bytes(config.topic.as_bytes());
    out.put_u32(config.partitions);
    out.put_u8(u8::from(config.compact));
    for limit in [config.retention_ms, config.retention_bytes] {
        out.put_u8(u8::from(limit.is_some()));
        out.put_u64(limit.unwrap_or(0));
    }
}

fn take_topic(from: &mut Bytes) -> Result<(TopicId, TopicConfig), Malformed> {
    let id = from.take_u32()?;
    let topic: Topic = Arc::from(from.take_text()?);
    let (partitions, compact) = (from.take_u32()?, from.take_u8()? != 0);
    let mut limit = || {
        let (some, value) = (from.take_u8()? != 0, from.take_u64()?);
        Ok(some.then_some(value))
    };
    let (retention_ms, retention_bytes) = (limit()?, limit()?);
    Ok((id, TopicConfig { topic, partitions, compact, retention_ms, retention_bytes }))
}

fn put_offsets(out: &mut Vec<u8>, group: &str, offsets: &[GroupOffset]) {
    out.put_bytes(group.as_bytes());
    out.put_length(offsets.len() as u64);
    for offset in offsets {
        out.put_bytes(offset.at.topic.as_bytes());
        out.put_u32(offset.at.partition);
        out.put_u64(offset.next);
        out.put_bytes(offset.metadata.as_bytes());
    }
}

fn take_offsets(from: &mut Bytes) -> Result<(String, Vec<GroupOffset>), Malformed> {
    let group = from.take_text()?;
    let count = from.take_length()?;
    let offset = |_| {
        let at = TopicPartition::new(from.take_text()?, from.take_u32()?);
        Ok(GroupOffset { at, next: from.take_u64()?, metadata: from.take_text()? })
    };
    Ok((group, (0..count).map(offset).collect::<Result<_, _>>()?))
}

fn put_sections(out: &mut Vec<u8>, id: TopicId, sections: &[Section]) {
    out.put_u32(id);
    out.put_length(sections.len() as u64);
    for section in sections {
        section.head.put(out);
        out.extend_from_slice(&section.body);
    }
}

fn take_sections(from: &mut Bytes) -> Result<(TopicId, Vec<Section>), Malformed> {
    let id = from.take_u32()?;
    let count = from.take_length()?;
    let section = |_| {
        let head = SectionHead::take(from)?;
        Ok(Section { head, body: from.take_exact(head.bytes as usize)? })
    };
    Ok((id, (0..count).map(section).collect::<Result<_, _>>()?))
}
