//! The newest sections in memory, over all topics, for readers that keep up: bounded in bytes and in age. What is older is
//! read from its file, so that a log at rest holds no records in memory. Where the file does not have it yet, as on a full disk
//! (the journal has), only the bytes are bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::topic::TopicLog;
use crate::Partition;

/// How long a section stays in memory; who reads later than that does not keep up. A log that writes so much that files would
/// be slow to read fills the bytes in about this time.
const AGE_MAX: Duration = Duration::from_secs(2);

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

    /// Whether there is nothing to let go.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Accounts for sections of a topic that are in memory from `now` on, by partition and bytes; drops others as
    /// [`Tail::forget`] does.
    pub fn remember(
        &mut self,
        log: &Arc<TopicLog>,
        sizes: Vec<(Partition, usize)>,
        now: Instant,
        is_behind: impl Fn(&TopicLog) -> bool,
    ) {
        for (partition, bytes) in sizes {
            self.bytes += bytes;
            self.sections.push_back(Remembered { log: Arc::clone(log), partition, bytes, since: now });
        }
        self.forget(now, is_behind);
    }

    /// Drops the oldest sections beyond the limits. One of a topic whose file `is_behind` does not become too old, and keeps those
    /// that came after it.
    pub fn forget(&mut self, now: Instant, is_behind: impl Fn(&TopicLog) -> bool) {
        let too_old = |since: Instant| now.saturating_duration_since(since) > AGE_MAX;
        while let Some(oldest) = self.sections.front()
            && (self.bytes > self.bytes_max || too_old(oldest.since) && !is_behind(&oldest.log))
        {
            oldest.log.view().forget_oldest(oldest.partition);
            self.bytes -= oldest.bytes;
            self.sections.pop_front();
        }
        if self.sections.len() < self.sections.capacity() / 4 {
            self.sections.shrink_to(self.sections.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicConfig;

    fn log() -> Arc<TopicLog> {
        let topic = "t".into();
        let config = TopicConfig { topic, partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
        Arc::new(TopicLog::new(1, config, "nowhere".into(), Vec::new(), vec![0]))
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much_and_when_they_are_too_old() {
        let (log, mut tail, start) = (log(), Tail::new(100), Instant::now());
        tail.remember(&log, vec![(0, 60), (0, 30)], start, |_| false);
        assert_eq!(tail.bytes, 90);
        tail.remember(&log, vec![(0, 20)], start + AGE_MAX, |_| false);
        assert_eq!(tail.bytes, 50, "the first made room");
        tail.forget(start + AGE_MAX, |_| false);
        assert_eq!(tail.bytes, 50);
        tail.forget(start + AGE_MAX + Duration::from_millis(1), |_| false);
        assert_eq!(tail.bytes, 20, "the second is too old");
        tail.forget(start + AGE_MAX * 3, |_| false);
        assert_eq!((tail.bytes, tail.sections.capacity()), (0, 0), "a log at rest keeps nothing");
    }

    #[test]
    fn after_a_burst_the_list_of_what_is_in_memory_is_as_short_as_what_is() {
        let (log, mut tail, start) = (log(), Tail::new(usize::MAX), Instant::now());
        tail.remember(&log, vec![(0, 1); 10_000], start, |_| false);
        tail.remember(&log, vec![(0, 1)], start + AGE_MAX * 2, |_| false);
        assert_eq!(tail.bytes, 1);
        assert!(tail.sections.capacity() < 10, "{}", tail.sections.capacity());
    }

    #[test]
    fn what_is_in_no_file_yet_goes_only_when_there_is_too_much() {
        let (log, mut tail, start) = (log(), Tail::new(100), Instant::now());
        tail.remember(&log, vec![(0, 60)], start, |_| true);
        tail.forget(start + AGE_MAX * 3, |_| true);
        assert_eq!(tail.bytes, 60);
        tail.remember(&log, vec![(0, 50)], start + AGE_MAX * 3, |_| true);
        assert_eq!(tail.bytes, 50, "the first made room");
        tail.forget(start + AGE_MAX * 6, |_| true);
        assert_eq!(tail.bytes, 50);
        tail.forget(start + AGE_MAX * 6, |_| false);
        assert_eq!(tail.bytes, 0, "its file has it");
    }
}
