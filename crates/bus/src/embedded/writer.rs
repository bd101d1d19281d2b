//! The one writer: takes what is queued, makes it durable in one go, then answers.
//!
//! Each round goes first through the plain appends (one sync per topic touched), then through the commits (one sync of
//! the journal for all of them). Appends may overtake commits: nobody can tell, since a commit answers only when it is
//! done. Nothing is answered or readable before it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::command::{Append, AppendSequenced, Command, Commit, CommitError, Committer, Sequenced, TopicSections};
use super::compaction::{self, Rules};
use super::disk::FileError;
use super::journal::{Journal, JournalError};
use super::kept::{Entry, GroupOffset, TopicId};
use super::producers::Verdict;
use super::queue::Queued;
use super::recovery::{self, DirectoryLock};
use super::section::Section;
use super::segment::ScanError;
use super::shared::Shared;
use super::tail::Tail;
use super::topic::TopicLog;
use super::topic_files;
use super::topic_writer::TopicWriter;
use crate::{AdminError, Offset, Partition, TopicConfig};

/// How often the writer looks after retention and the journal.
const TICK: Duration = Duration::from_secs(15);
/// How often it tries to mend what a failed write has left, if nothing else is to be done.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Bytes of journal an idle bus may leave behind.
const JOURNAL_BYTES_IDLE: u64 = 64 * 1024;
/// How often it looks for memory that is of no use any more.
const LET_GO: Duration = Duration::from_secs(1);
/// Bytes of transactions that a topic keeps in memory until the journal is trimmed; the file of one that has more is synced
/// earlier, once in [`LET_GO`] at most.
const LAZY_BYTES_MAX: usize = 64 * 1024;

/// The writer's own state; it lives on one thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    topics: BTreeMap<TopicId, TopicWriter>,
    tail: Tail,
    directory: PathBuf,
    /// The compaction under way, if any; ends with what it has done, unless it is to be tried again.
    compaction: Option<JoinHandle<Option<(TopicId, u64)>>>,
    /// Last sequence number each compacted topic had when it was compacted.
    compacted: BTreeMap<TopicId, u64>,
    /// Held as long as anything may be written.
    _lock: DirectoryLock,
}

/// Tells everybody when the writer ends in a panic: without it nothing is written, and nobody must wait for it.
struct Watched(Arc<Shared>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abandon();
            self.0.broken.send_replace(true);
        }
    }
}

/// Sections a round adds to one topic.
#[derive(Default)]
struct Gathered {
    sections: Vec<Section>,
    next: Vec<Offset>,
}

/// Whether the file of a topic lacks what readers were told.
fn is_behind(topics: &BTreeMap<TopicId, TopicWriter>, log: &TopicLog) -> bool {
    topics.get(&log.id).is_some_and(TopicWriter::is_behind)
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        journal: Journal,
        topics: BTreeMap<TopicId, TopicWriter>,
        directory: PathBuf,
        lock: DirectoryLock,
    ) -> Self {
        Self {
            tail: Tail::new(shared.options.tail_bytes),
            shared,
            journal,
            topics,
            directory,
            compaction: None,
            compacted: BTreeMap::new(),
            _lock: lock,
        }
    }

    /// Works until the queue is closed and empty, then leaves everything synced.
    pub fn run(mut self) {
        let _watched = Watched(self.shared.clone());
        let (mut ticked, mut let_go) = (Instant::now(), Instant::now());
        while let Some(queued) = self.shared.clone().queue.take(self.patience()) {
            if !queued.is_empty() {
                self.round(queued);
            }
            self.catch_up();
            if ticked.elapsed() >= TICK {
                self.tick();
                ticked = Instant::now();
            }
            if let_go.elapsed() >= LET_GO {
                self.let_go();
                let_go = Instant::now();
            }
        }
        if let Some(running) = self.compaction.take() {
            drop(running.join());
        }
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the log was not synced at its end; the journal has what is missing");
        }
    }

    fn patience(&self) -> Duration {
        if self.topics.values().any(TopicWriter::is_behind) {
            CATCH_UP
        } else if self.tail.is_empty() {
            TICK
        } else {
            LET_GO
        }
    }

    /// Lets go of sections that are too old for readers, and of those that would be written again after a failure where they
    /// are many: their file has them after a sync.
    fn let_go(&mut self) {
        for writer in self.topics.values_mut().filter(|writer| writer.lazy_bytes() > LAZY_BYTES_MAX) {
            if let Err(error) = writer.sync() {
                tracing::debug!(topic = &*writer.log.config.topic, %error, "transactions of a topic stay in memory");
            }
        }
        self.tail.forget(Instant::now(), |log| is_behind(&self.topics, log));
    }

    /// Writes to the topics what after a failure only the journal and the memory have.
    fn catch_up(&mut self) {
        for writer in self.topics.values_mut().filter(|writer| writer.is_behind()) {
            if let Err(error) = writer.sync() {
                tracing::debug!(topic = &*writer.log.config.topic, %error, "a topic is still behind its journal");
            }
        }
    }

    fn round(&mut self, queued: VecDeque<Queued>) {
        let (mut appends, mut commits, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(queued.len());
        for entry in queued {
            let (command, place) = entry.split();
            places.push(place);
            match command {
                Command::Append(append) => appends.push(append),
                Command::Commit(commit) => commits.push(commit),
                other => others.push(other),
            }
        }
        if !appends.is_empty() {
            self.append(appends);
        }
        if !commits.is_empty() {
            self.commit(commits);
        }
        others.into_iter().for_each(|command| self.other(command));
        if self.journal.entry_bytes() > self.shared.options.journal_bytes {
            self.checkpoint_or_warn();
        }
    }

    fn other(&mut self, command: Command) {
        match command {
            Command::Append(append) => self.append(vec![append]),
            Command::Commit(commit) => self.commit(vec![commit]),
            Command::AppendSequenced(append) => self.append_sequenced(append),
            Command::CreateTopic(config, answer) => drop(answer.send(self.create_topic(config))),
            Command::DeleteTopic(topic, answer) => drop(answer.send(self.delete_topic(&topic))),
            Command::DeleteGroup(group, answer) => drop(answer.send(self.record(Entry::GroupDeleted { group }))),
            Command::AllocateProducer(answer) => drop(answer.send(self.allocate_producer())),
            Command::Hold(id, answer) => drop(answer.send(self.shared.holders().replace(&id))),
        }
    }

    fn append(&mut self, appends: Vec<Append>) {
        let mut gathered: BTreeMap<TopicId, Gathered> = BTreeMap::new();
        let mut failed: BTreeMap<TopicId, String> = BTreeMap::new();
        let mut answers = Vec::with_capacity(appends.len());
        for append in appends {
            let mut offsets = vec![0; append.topics.iter().map(|t| t.slots.len()).sum()];
            let ids: Vec<TopicId> = append.topics.iter().map(|t| t.topic.id).collect();
            for part in append.topics {
                match self.gather(&mut gathered, &part) {
                    Some(bases) => part.slots.iter().zip(bases).for_each(|(slot, base)| offsets[*slot] = base),
                    None => {
                        drop(failed.insert(part.topic.id, format!("topic {} was deleted", part.topic.config.topic)))
                    }
                }
            }
            answers.push((append.answer, ids, offsets));
        }
        for (id, gathered) in gathered {
            if let Err(reason) = self.write(id, gathered.sections) {
                failed.insert(id, reason);
            }
        }
        for (answer, ids, offsets) in answers {
            let failure = ids.iter().find_map(|id| failed.get(id));
            drop(answer.send(failure.map_or(Ok(offsets), |reason| Err(reason.clone()))));
        }
    }

    /// Places the sections of one topic behind those gathered before; `None` if the topic is gone.
    fn gather(&self, gathered: &mut BTreeMap<TopicId, Gathered>, part: &TopicSections) -> Option<Vec<Offset>> {
        let writer = self.topics.get(&part.topic.id)?;
        let fresh = || Gathered { sections: Vec::new(), next: writer.next().to_vec() };
        let gathered = gathered.entry(part.topic.id).or_insert_with(fresh);
        let mut sections = part.sections.clone();
        writer.place(&mut sections, &mut gathered.next);
        let bases = sections.iter().map(|s| s.head.base).collect();
        gathered.sections.append(&mut sections);
        Some(bases)
    }

    fn write(&mut self, id: TopicId, sections: Vec<Section>) -> Result<(), String> {
        let writer = self.topics.get_mut(&id).expect("sections are gathered for topics that exist");
        let (log, sizes) = (writer.log.clone(), sizes(&sections));
        // Offsets of a commit whose fate is unknown are not given away before it is certain that it is not there.
        let settled = self.journal.settle();
        let rolled = settled.and_then(|()| writer.append(sections)).map_err(|error| error.to_string());
        self.shared.set_trouble(rolled.as_ref().err().cloned());
        if rolled? {
            self.retain(id);
        }
        self.tail.remember(&log, sizes, Instant::now(), |log| is_behind(&self.topics, log));
        Ok(())
    }

    fn append_sequenced(&mut self, append: AppendSequenced) {
        let id = append.topic.id;
        let head = append.section.head;
        let Some(writer) = self.topics.get(&id) else {
            let reason = format!("topic {} was deleted", append.topic.config.topic);
            drop(append.answer.send(Sequenced::Unacknowledged(reason)));
            return;
        };
        let sequence = head.producer.expect("a sequenced append names its producer");
        let answer = match writer.producers.judge(head.partition, sequence, head.records) {
            Verdict::Repeat(base) => Sequenced::Written(base),
            refused @ (Verdict::OutOfOrder { .. } | Verdict::Fenced { .. }) => Sequenced::Refused(refused),
            Verdict::New => {
                let base = writer.next()[head.partition as usize];
                let mut section = append.section;
                section.place(base);
                self.write(id, vec![section]).map_or_else(Sequenced::Unacknowledged, |()| Sequenced::Written(base))
            }
        };
        drop(append.answer.send(answer));
    }

    fn commit(&mut self, commits: Vec<Commit>) {
        let mut gathered: BTreeMap<TopicId, Gathered> = BTreeMap::new();
        let (mut entries, mut answers) = (Vec::new(), Vec::new());
        for mut commit in commits {
            let admitted = self.repair(&commit).and_then(|()| self.admit(&commit));
            let group = match admitted {
                Ok(group) => group,
                Err(error) => {
                    drop(commit.answer.send(Err(error)));
                    continue;
                }
            };
            let (entry, offsets) = self.entry(&mut gathered, &mut commit);
            entries.push(entry);
            answers.push((commit.answer, group, offsets));
        }
        if entries.is_empty() {
            return;
        }
        let journaled = self.journal.append(&entries);
        self.shared.set_trouble(journaled.as_ref().err().map(|error| error.file_error().to_string()));
        if journaled.is_ok() {
            // Whoever sees the committed offsets finds the records that go with them.
            gathered.into_iter().for_each(|(id, gathered)| self.write_lazily(id, gathered.sections));
            entries.iter().for_each(|entry| self.shared.kept().apply(entry));
        }
        for (answer, group, offsets) in answers {
            group.inspect(|group| self.shared.groups().end_commit(group));
            drop(answer.send(match &journaled {
                Ok(()) => Ok(offsets),
                Err(JournalError::Undone(error)) => Err(CommitError::Undone(error.to_string())),
                Err(JournalError::Unknown(error)) => Err(CommitError::Unknown(error.to_string())),
            }));
        }
    }

    /// Mends the topics of a commit: its sections are not to be found behind what a failed append has left.
    fn repair(&mut self, commit: &Commit) -> Result<(), CommitError> {
        for part in &commit.topics {
            let Some(writer) = self.topics.get_mut(&part.topic.id) else { continue };
            writer.repair().map_err(|error| CommitError::Undone(error.to_string()))?;
        }
        Ok(())
    }

    /// Checks fences; the group whose partitions must not move until the commit is decided.
    fn admit(&self, commit: &Commit) -> Result<Option<String>, CommitError> {
        if let Some((id, number)) = &commit.transactor
            && !self.shared.holders().is_newest(id, *number)
        {
            return Err(CommitError::Superseded);
        }
        if let Some(gone) = commit.topics.iter().find(|part| !self.topics.contains_key(&part.topic.id)) {
            return Err(CommitError::TopicGone(gone.topic.config.topic.to_string()));
        }
        let Some(Committer::Member(membership, next)) = &commit.offsets else { return Ok(None) };
        let admitted = self.shared.groups().begin_commit(membership, next.iter().map(|position| &position.at));
        admitted.map(|()| Some(membership.group.clone())).map_err(|_| CommitError::Rebalanced)
    }

    fn entry(&self, gathered: &mut BTreeMap<TopicId, Gathered>, commit: &mut Commit) -> (Entry, Vec<Offset>) {
        let mut offsets = vec![0; commit.topics.iter().map(|t| t.slots.len()).sum()];
        let mut sections = Vec::with_capacity(commit.topics.len());
        for part in &commit.topics {
            let bases = self.gather(gathered, part).expect("admitted commits name topics that exist");
            part.slots.iter().zip(&bases).for_each(|(slot, base)| offsets[*slot] = *base);
            let all = &gathered[&part.topic.id].sections;
            sections.push((part.topic.id, all[all.len() - bases.len()..].to_vec()));
        }
        let committed = match commit.offsets.take() {
            None => Vec::new(),
            Some(Committer::Outside(group, offsets)) => vec![(group, offsets)],
            Some(Committer::Member(membership, next)) => {
                let offset = |position: crate::Position| GroupOffset {
                    at: position.at,
                    next: position.offset,
                    metadata: String::new(),
                };
                vec![(membership.group, next.into_iter().map(offset).collect())]
            }
        };
        (Entry::Committed { sections, offsets: committed }, offsets)
    }

    fn write_lazily(&mut self, id: TopicId, sections: Vec<Section>) {
        let writer = self.topics.get_mut(&id).expect("sections are gathered for topics that exist");
        let (log, sizes) = (writer.log.clone(), sizes(&sections));
        if let Err(error) = writer.append_lazily(sections) {
            self.shared.set_trouble(Some(error.to_string()));
        }
        self.tail.remember(&log, sizes, Instant::now(), |log| is_behind(&self.topics, log));
    }

    fn create_topic(&mut self, config: TopicConfig) -> Result<bool, AdminError> {
        config.check()?;
        if let Some(existing) = self.shared.topic(&config.topic) {
            let (existing, wanted) = (existing.config.partitions, config.partitions);
            let topic = config.topic.to_string();
            return if existing == wanted {
                Ok(false)
            } else {
                Err(AdminError::Partitions { topic, existing, wanted })
            };
        }
        let unavailable = |reason| AdminError::Unavailable { reason };
        let id = self.shared.kept().next_topic;
        let segment_bytes = self.shared.options.segment_bytes;
        let directory = recovery::topic_directory(&self.directory, id, &config.topic);
        let topic = topic_files::Found { id, config: &config, directory, segment_bytes };
        let writer = topic_files::create(&self.shared.files, topic);
        let writer = writer.map_err(|error| unavailable(error.to_string()))?;
        self.record(Entry::TopicCreated { id, config }).map_err(unavailable)?;
        self.shared.add_topic(writer.log.clone());
        self.topics.insert(id, writer);
        Ok(true)
    }

    fn delete_topic(&mut self, topic: &str) -> Result<(), AdminError> {
        let log = self.shared.topic(topic).ok_or_else(|| AdminError::Unknown { topic: topic.to_owned() })?;
        self.record(Entry::TopicDeleted { id: log.id }).map_err(|reason| AdminError::Unavailable { reason })?;
        self.topics.remove(&log.id);
        self.shared.remove_topic(&log);
        if let Err(error) = std::fs::remove_dir_all(&log.directory) {
            tracing::warn!(topic, %error, "files of a deleted topic stay until the next start");
        }
        Ok(())
    }

    fn allocate_producer(&mut self) -> Result<i64, String> {
        let id = self.shared.kept().next_producer;
        self.record(Entry::ProducerIds { next: id + 1 }).map(|()| id)
    }

    /// Makes one entry durable and takes the step.
    fn record(&mut self, entry: Entry) -> Result<(), String> {
        let journaled = self.journal.append(std::slice::from_ref(&entry)).map_err(|e| e.file_error().to_string());
        self.shared.set_trouble(journaled.as_ref().err().cloned());
        journaled.map(|()| self.shared.kept().apply(&entry))
    }

    fn tick(&mut self) {
        let ids: Vec<TopicId> = self.topics.keys().copied().collect();
        ids.into_iter().for_each(|id| self.retain(id));
        if self.journal.entry_bytes() > JOURNAL_BYTES_IDLE {
            self.checkpoint_or_warn();
        }
    }

    /// Lets go what retention and compaction of a topic allow.
    fn retain(&mut self, id: TopicId) {
        let now_ms = self.shared.options.clock.as_ref().map(|clock| i64::try_from(clock.now_ms()).unwrap_or(i64::MAX));
        let Some(writer) = self.topics.get_mut(&id) else { return };
        let log = writer.log.clone();
        let consumed = self.shared.consumed(&log.config);
        if let Err(error) = writer.retain(now_ms, consumed.as_deref()) {
            tracing::warn!(topic = &*log.config.topic, %error, "expired records stay for now");
        }
        if log.config.compact {
            self.compact(log, now_ms);
        }
    }

    /// Compacts a topic beside the writer, one topic at a time; one that has to wait is taken up by a later tick.
    fn compact(&mut self, log: Arc<TopicLog>, now_ms: Option<i64>) {
        let sealed = log.view().segments.last().map_or(0, |last| last.sequence);
        if self.compaction.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.compacted.extend(self.compaction.take().and_then(|ended| ended.join().ok().flatten()));
        if sealed <= self.compacted.get(&log.id).copied().unwrap_or(0) {
            return;
        }
        let before = |kept_ms: u64| now_ms.map(|now| now.saturating_sub(i64::try_from(kept_ms).unwrap_or(i64::MAX)));
        let retention_ms = log.config.retention_ms;
        let rules = Rules {
            superseded_before_ms: retention_ms.map_or(i64::MAX, |kept| before(kept).unwrap_or(i64::MIN)),
            tombstones_before_ms: before(self.shared.options.tombstone_ms.max(retention_ms.unwrap_or(0)))
                .unwrap_or(i64::MIN),
            segment_bytes: self.shared.options.segment_bytes,
        };
        let (shared, id) = (self.shared.clone(), log.id);
        let run = move || {
            let compacted = compaction::compact(&shared.files, &log, rules, &|| !shared.queue.is_closed());
            match &compacted {
                Ok(records) => tracing::debug!(topic = &*log.config.topic, records, "compacted"),
                Err(error) => tracing::warn!(topic = &*log.config.topic, %error, "a topic could not be compacted"),
            }
            // A disk may recover; damage will not.
            (!matches!(compacted, Err(ScanError::File(_)))).then_some((id, sealed))
        };
        match std::thread::Builder::new().name("drover-compact".into()).spawn(run) {
            Ok(running) => self.compaction = Some(running),
            Err(error) => tracing::warn!(%error, "no thread for compaction"),
        }
    }

    fn checkpoint_or_warn(&mut self) {
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the journal cannot be trimmed now");
        }
    }

    /// Syncs every topic, then starts the journal anew.
    fn checkpoint(&mut self) -> Result<(), FileError> {
        self.topics.values_mut().try_for_each(TopicWriter::settle)?;
        let kept = self.shared.kept().clone();
        self.journal.checkpoint(&kept)
    }
}

fn sizes(sections: &[Section]) -> Vec<(Partition, usize)> {
    sections.iter().map(|s| (s.head.partition, s.body.len() + size_of::<Section>())).collect()
}
