//! Reading records of one partition: from memory if they are recent, else from segment files.
//!
//! Files are read on threads for blocking work; a file that retention or compaction took away meanwhile is looked up anew.
//! One that is looked up again and is still not there was taken away by somebody else.

use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Malformed;
use super::section::Section;
use super::segment::{ScanError, Search, Sought};
use super::topic::{Located, TopicLog};
use crate::{Offset, Partition, Position, ReadError, Stored};

/// How much to read at most; at least one record if there is any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub bytes: usize,
    pub records: usize,
}

/// Records from `from` on; none if there are none yet.
pub(super) async fn read(
    topic: &Arc<TopicLog>,
    partition: Partition,
    mut from: Offset,
    limit: Limit,
) -> Result<Vec<Stored>, ReadError> {
    let mut gone: Option<PathBuf> = None;
    loop {
        check_range(topic, partition, from)?;
        let located = topic.view().locate(partition, from, limit.bytes);
        let (search, next) = match located {
            Located::End => return Ok(Vec::new()),
            Located::Gone => continue, // the bounds say so now
            Located::Memory(sections) => return decode(topic, partition, &sections, from, limit),
            Located::File(search, next) => (search, next),
        };
        let path = search.path.clone();
        match run(search, Sought::Offset(from), limit.bytes).await {
            Ok(sections) if sections.is_empty() => from = next,
            Ok(sections) => return decode(topic, partition, &sections, from, limit),
            Err(error) if error.is_gone() && gone.as_ref() != Some(&path) => gone = Some(path),
            Err(error) => return Err(read_error(&error)),
        }
    }
}

/// First offset whose record is at or after `timestamp_ms`; the end if there is none.
pub(super) async fn offset_at(
    topic: &Arc<TopicLog>,
    partition: Partition,
    timestamp_ms: i64,
) -> Result<Offset, ReadError> {
    let mut gone: Option<PathBuf> = None;
    loop {
        let located = topic.view().locate_time(partition, timestamp_ms);
        let Some(search) = located else { return Ok(topic.view().bounds(partition).end) };
        let path = search.path.clone();
        match run(search, Sought::Time(timestamp_ms), 1).await {
            Ok(sections) => {
                let bounds = topic.view().bounds(partition);
                return Ok(first_at(&sections, timestamp_ms).map_err(|_| corrupt(topic))?.unwrap_or(bounds.end));
            }
            Err(error) if error.is_gone() && gone.as_ref() != Some(&path) => gone = Some(path),
            Err(error) => return Err(read_error(&error)),
        }
    }
}

fn first_at(sections: &[Section], timestamp_ms: i64) -> Result<Option<Offset>, Malformed> {
    for record in sections.iter().flat_map(|section| section.records(0)) {
        let (offset, record) = record?;
        if record.timestamp_ms >= timestamp_ms {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// Refuses offsets that are not, or no longer, between the bounds.
pub(super) fn check_range(topic: &TopicLog, partition: Partition, from: Offset) -> Result<(), ReadError> {
    let bounds = topic.view().bounds(partition);
    if (bounds.earliest..=bounds.end).contains(&from) {
        Ok(())
    } else {
        Err(ReadError::OutOfRange { from, earliest: bounds.earliest, end: bounds.end })
    }
}

async fn run(search: Search, sought: Sought, bytes_max: usize) -> Result<Vec<Section>, ScanError> {
    let found = tokio::task::spawn_blocking(move || search.run(sought, bytes_max.max(1))).await;
    found.expect("a search does not panic, and the runtime is running this task")
}

fn decode(
    topic: &TopicLog,
    partition: Partition,
    sections: &[Section],
    from: Offset,
    limit: Limit,
) -> Result<Vec<Stored>, ReadError> {
    let (mut stored, mut bytes) = (Vec::new(), 0);
    for record in sections.iter().flat_map(|section| section.records(from)) {
        let (offset, record) = record.map_err(|Malformed| corrupt(topic))?;
        bytes += record.bytes();
        if !stored.is_empty() && bytes > limit.bytes {
            break;
        }
        let at = topic.partition(partition);
        stored.push(Stored { position: Position { at, offset }, record });
        if stored.len() >= limit.records {
            break;
        }
    }
    Ok(stored)
}

fn corrupt(topic: &TopicLog) -> ReadError {
    let reason = format!("{}: a record with a sound checksum cannot be decoded", topic.directory.display());
    ReadError::Corrupt { reason }
}

fn read_error(error: &ScanError) -> ReadError {
    let reason = error.to_string();
    match error {
        ScanError::Corrupt { .. } | ScanError::Undecodable { .. } => ReadError::Corrupt { reason },
        ScanError::File(_) => ReadError::Unavailable { reason },
    }
}
