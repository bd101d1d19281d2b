//! The newest sections in memory, over all topics, for readers that keep up: bounded in bytes and in age. What is older is
//! read from its file, so that a log at rest holds no records in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::topic::TopicLog;
use crate::Partition;

/// How long a section stays in memory; who reads later than that does not keep up.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Which sections are in memory.
pub(super) struct Tail {
    /// Oldest first, as they are in their topics.
    sections: VecDeque<Remembered>,
    bytes: usize,
    bytes_max: usize,
}

struct Remembered {
    log: Arc<TopicLog>,
    partition: Partition,
    bytes: usize,
    since: Instant,
}

impl Tail {
    /// Nothing yet, and never more than about `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { sections: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Accounts for sections of a topic that are in memory from `now` on, by partition and bytes.
    pub fn remember(&mut self, log: &Arc<TopicLog>, sizes: Vec<(Partition, usize)>, now: Instant) {
        for (partition, bytes) in sizes {
            self.bytes += bytes;
            self.sections.push_back(Remembered { log: Arc::clone(log), partition, bytes, since: now });
        }
        self.forget(now);
    }

    /// Drops the oldest sections beyond the limits.
    pub fn forget(&mut self, now: Instant) {
        let too_old = |since: Instant| now.saturating_duration_since(since) > AGE_MAX;
        while let Some(oldest) = self.sections.front()
            && (self.bytes > self.bytes_max || too_old(oldest.since))
        {
            oldest.log.view().forget_oldest(oldest.partition);
            self.bytes -= oldest.bytes;
            self.sections.pop_front();
        }
        if self.sections.is_empty() {
            self.sections.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicConfig;

    #[test]
    fn the_oldest_go_when_there_is_too_much_and_when_they_are_too_old() {
        let topic = "t".into();
        let config = TopicConfig { topic, partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
        let log = Arc::new(TopicLog::new(1, config, "nowhere".into(), Vec::new(), vec![0]));
        let (mut tail, start) = (Tail::new(100), Instant::now());
        tail.remember(&log, vec![(0, 60), (0, 30)], start);
        assert_eq!(tail.bytes, 90);
        tail.remember(&log, vec![(0, 20)], start + AGE_MAX);
        assert_eq!(tail.bytes, 50, "the first made room");
        tail.forget(start + AGE_MAX);
        assert_eq!(tail.bytes, 50);
        tail.forget(start + AGE_MAX + Duration::from_millis(1));
        assert_eq!(tail.bytes, 20, "the second is too old");
        tail.forget(start + AGE_MAX * 3);
        assert_eq!((tail.bytes, tail.sections.capacity()), (0, 0), "a log at rest keeps nothing");
    }
}
