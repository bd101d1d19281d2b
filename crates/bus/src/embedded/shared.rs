//! What the bus, its consumers and its writer share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::EmbeddedOptions;
use super::disk::Files;
use super::groups::Groups;
use super::kept::Kept;
use super::queue::Queue;
use super::topic::TopicLog;
use crate::{Offset, Topic, TopicConfig, TopicPartition};

/// While writing fails, one append in this time is let through to see whether it works again.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Why nothing can be written at the moment.
#[derive(Debug)]
struct Trouble {
    reason: String,
    probe_at: Instant,
}

/// Holders of transactional ids.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Number of the newest holder of each id in use.
    newest: HashMap<String, u64>,
    given: u64,
}

impl Holders {
    /// A new holder of `id`, who fences those before.
    pub fn replace(&mut self, id: &str) -> u64 {
        self.given += 1;
        self.newest.insert(id.to_owned(), self.given);
        self.given
    }

    pub fn is_newest(&self, id: &str, number: u64) -> bool {
        self.newest.get(id) == Some(&number)
    }

    /// Forgets a holder that is gone, unless it was replaced.
    pub fn release(&mut self, id: &str, number: u64) {
        if self.is_newest(id, number) {
            self.newest.remove(id);
        }
    }
}

/// Shared state of one open bus.
pub(super) struct Shared {
    pub options: EmbeddedOptions,
    pub files: Files,
    pub queue: Queue,
    topics: RwLock<BTreeMap<Topic, Arc<TopicLog>>>,
    kept: Mutex<Kept>,
    groups: Mutex<Groups>,
    holders: Mutex<Holders>,
    trouble: Mutex<Option<Trouble>>,
    /// The writer has ended in a panic.
    pub broken: watch::Sender<bool>,
}

impl Shared {
    pub fn new(options: EmbeddedOptions, kept: Kept, topics: Vec<Arc<TopicLog>>) -> Self {
        Self {
            queue: Queue::new(options.queue_records),
            files: Files::new(options.disk.clone()),
            options,
            topics: RwLock::new(topics.into_iter().map(|t| (t.config.topic.clone(), t)).collect()),
            kept: Mutex::new(kept),
            groups: Mutex::default(),
            holders: Mutex::default(),
            trouble: Mutex::default(),
            broken: watch::Sender::new(false),
        }
    }

    pub fn topic(&self, name: &str) -> Option<Arc<TopicLog>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The topic of `at` if it has that partition.
    pub fn partition(&self, at: &TopicPartition) -> Option<Arc<TopicLog>> {
        self.topic(&at.topic).filter(|topic| at.partition < topic.config.partitions)
    }

    /// All topics, sorted by name.
    pub fn topics(&self) -> Vec<Arc<TopicLog>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn add_topic(&self, topic: Arc<TopicLog>) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(topic.config.topic.clone(), topic);
        self.topics_changed();
    }

    pub fn remove_topic(&self, topic: &TopicLog) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(&topic.config.topic);
        topic.changed.notify_waiters();
        self.topics_changed();
    }

    fn topics_changed(&self) {
        self.groups().topics_changed(Instant::now(), &|topic| self.partitions(topic));
    }

    /// Partitions of a topic; 0 if there is none.
    pub fn partitions(&self, topic: &str) -> u32 {
        self.topic(topic).map_or(0, |topic| topic.config.partitions)
    }

    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of each partition the offset up to which all groups have it that must, by `retained_for`; `None`: there are none.
    pub fn consumed(&self, topic: &TopicConfig) -> Option<Vec<Offset>> {
        let groups = self.options.retained_for.get(&topic.topic).filter(|groups| !groups.is_empty())?;
        let kept = self.kept();
        let of_partition = |partition| {
            let at = TopicPartition::new(topic.topic.clone(), partition);
            groups.iter().map(|group| kept.committed(group, &at).unwrap_or(0)).min().unwrap_or(0)
        };
        Some((0..topic.partitions).map(of_partition).collect())
    }

    pub fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why writing does not work, unless this call may try again.
    pub fn refusal(&self) -> Option<String> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = trouble.as_mut()?;
        let now = Instant::now();
        if now < trouble.probe_at {
            return Some(trouble.reason.clone());
        }
        trouble.probe_at = now + PROBE_EVERY;
        None
    }

    /// Notes that writing failed, or works again.
    pub fn set_trouble(&self, reason: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &reason {
            Some(reason) if trouble.is_none() => tracing::error!(reason, "the log cannot be written"),
            None if trouble.is_some() => tracing::info!("the log can be written again"),
            Some(_) | None => {}
        }
        *trouble = reason.map(|reason| Trouble { reason, probe_at: Instant::now() + PROBE_EVERY });
    }
}
