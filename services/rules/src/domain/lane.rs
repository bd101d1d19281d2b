//! One action of one rule in one partition of the outbox: its entries in order per device, tried again until their
//! attempts are spent, apart from those of all other actions.
//!
//! Bounded: what does not fit stays in the log, and the lane reads on from there when it has room again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Offset, Stored};
use drover_proto::rules::v1::outbox_entry::Work;
use drover_proto::rules::v1::{OutboxEntry, Webhook};
use tokio::time::Instant;

/// Entries of a lane in memory.
pub const ENTRIES_MAX: usize = 512;
/// Bytes of their records; a lane without entries takes one of any size.
pub const BYTES_MAX: usize = 1024 * 1024;
/// Requests of a lane under way, each of another device; of a batch, one.
pub const AT_ONCE: usize = 8;
/// How often an entry is tried.
pub const ATTEMPTS_MAX: u32 = 10;
/// An entry that was written longer ago than this is tried once, and not at all while its target does not answer.
const AGE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Longest wait before the second attempt; the waits are random from nothing to this, which doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait before any attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// So many failures in a row suspend the lane; then a single request finds out whether the target is back.
pub const FAILURES_MAX: u32 = 5;
/// How long the first suspension is; each doubles the one before.
const FIRST_SUSPENSION: Duration = Duration::from_secs(2);
/// Longest suspension.
const LONGEST_SUSPENSION: Duration = Duration::from_secs(60);

/// An entry of the outbox.
#[derive(Debug)]
pub struct Entry {
    pub stored: Stored,
    pub work: OutboxEntry,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// The target may do it later.
    Later(String),
    /// A service of the platform is away: that is no attempt.
    Away(String),
    /// Never will be done.
    Refused(String),
}

/// Entries with their places in the log.
pub type Entries = Vec<(Offset, Arc<Entry>)>;

/// What a lane wants.
#[derive(Debug)]
pub enum Due {
    /// These are to be tried, as one request.
    Try(Entries),
    /// These are too old for a target that does not answer.
    GiveUp(Entries),
    /// Nothing until then, or until something happens.
    Nothing(Option<Instant>),
}

/// See the module.
#[derive(Debug)]
pub struct Lane {
    items: BTreeMap<Offset, Item>,
    bytes: usize,
    /// Whatever stands before is done or in `items`.
    taken: Offset,
    /// What stands from here on is not taken yet.
    behind: Option<Offset>,
    /// The log could not be read; it is asked again then.
    unread_until: Option<Instant>,
    /// Requests under way.
    requests: usize,
    /// Failures in a row.
    failures: u32,
    suspended_until: Option<Instant>,
    suspension: Duration,
}

#[derive(Debug)]
struct Item {
    entry: Arc<Entry>,
    attempts: u32,
    tries: u32,
    not_before: Option<Instant>,
    under_way: bool,
    /// A request that it was in with others was refused: it goes without them.
    alone: bool,
}

impl Item {
    fn is_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.entry.stored.record.timestamp_ms.unsigned_abs()) > AGE_MS_MAX
    }
}

impl Entry {
    /// The entry that a record of the outbox holds.
    pub fn read(stored: Stored) -> Result<Self, prost::DecodeError> {
        let value = stored.record.value.clone().unwrap_or_default();
        let work = <OutboxEntry as prost::Message>::decode(value)?;
        Ok(Self { stored, work })
    }

    fn webhook(&self) -> Option<&Webhook> {
        match &self.work.work {
            Some(Work::Webhook(webhook)) => Some(webhook),
            Some(
                Work::Republish(_)
                | Work::Kafka(_)
                | Work::Store(_)
                | Work::Shadow(_)
                | Work::Function(_)
                | Work::Notice(_)
                | Work::Command(_),
            )
            | None => None,
        }
    }

    /// Most entries of its request.
    fn batch(&self) -> usize {
        self.webhook().map_or(0, |webhook| webhook.batch_records as usize)
    }

    /// Whether both may go in one request.
    fn goes_with(&self, other: &Self) -> bool {
        let both = self.webhook().zip(other.webhook());
        both.is_some_and(|(a, b)| {
            a.url == b.url
                && a.headers == b.headers
                && a.headers_secret == b.headers_secret
                && a.signature_secret == b.signature_secret
                && a.batch_records == b.batch_records
        })
    }
}

impl Lane {
    /// A lane that has done whatever stands before `done`.
    pub fn new(done: Offset) -> Self {
        Self {
            items: BTreeMap::new(),
            bytes: 0,
            taken: done,
            behind: None,
            unread_until: None,
            requests: 0,
            failures: 0,
            suspended_until: None,
            suspension: FIRST_SUSPENSION,
        }
    }

    /// Takes an entry of it, or remembers to read it later. `room`: whether the process has some for lanes that hold entries.
    pub fn offer(&mut self, entry: Entry, room: bool) {
        let offset = entry.stored.position.offset;
        if self.behind.is_some() || offset < self.taken {
            return;
        }
        if !self.push(entry, room && !self.is_suspended()) {
            self.behind = Some(offset);
        }
    }

    /// Takes an entry if there is room.
    pub fn push(&mut self, entry: Entry, room: bool) -> bool {
        let (offset, bytes) = (entry.stored.position.offset, entry.stored.record.bytes());
        let fits = room && self.items.len() < ENTRIES_MAX && self.bytes + bytes <= BYTES_MAX;
        if !fits && !self.items.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.taken = offset + 1;
        let entry = Arc::new(entry);
        let item = Item { entry, attempts: 0, tries: 0, not_before: None, under_way: false, alone: false };
        self.items.insert(offset, item);
        true
    }

    /// From where it has to read: once half of its room is free, and where there is no room, or no target that answers,
    /// once it has nothing left.
    pub fn reads_from(&self, now: Instant, room: bool) -> Option<Offset> {
        if self.unread_until.is_some_and(|until| until > now) {
            return None;
        }
        let is_half_free = self.items.len() <= ENTRIES_MAX / 2 && self.bytes <= BYTES_MAX / 2;
        let reads = if room && !self.is_suspended() { is_half_free } else { self.items.is_empty() };
        self.behind.filter(|_| reads)
    }

    /// The log could not be read for it, and is asked again at `until`.
    pub fn could_not_read(&mut self, until: Instant) {
        self.unread_until = Some(until);
    }

    /// It has read: what stands from `behind` on is still to be taken; `None`: it has caught up.
    pub fn has_read(&mut self, behind: Option<Offset>) {
        self.behind = behind;
        self.unread_until = None;
    }

    /// Whether it has not taken all.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Whether whatever stands before `offset` is done or taken.
    pub fn has_taken(&self, offset: Offset) -> bool {
        offset < self.taken
    }

    /// What to do now; entries to be tried count as under way from here on.
    pub fn due(&mut self, now: Instant, now_ms: u64) -> Due {
        if let Some(until) = self.suspended_until.filter(|until| *until > now) {
            // They were written in this order, about.
            let old = self.items.iter_mut().take_while(|(_, item)| item.is_old(now_ms));
            let old = old.filter(|(_, item)| !item.under_way);
            let old: Entries = old.map(|(offset, item)| (*offset, item.begin())).collect();
            if old.is_empty() {
                return Due::Nothing(Some(until));
            }
            return Due::GiveUp(old);
        }
        let at_once = if self.failures >= FAILURES_MAX { 1 } else { AT_ONCE };
        let Some((_, head)) = self.items.first_key_value().filter(|_| self.requests < at_once) else {
            return Due::Nothing(None);
        };
        let chosen = if head.entry.batch() > 0 { self.next_batch(now) } else { self.next_entry(now) };
        match chosen {
            Err(wake) => Due::Nothing(wake),
            Ok(offsets) => {
                self.requests += 1;
                let mut begun = Entries::with_capacity(offsets.len());
                for offset in offsets {
                    let item = self.items.get_mut(&offset);
                    begun.extend(item.map(|item| (offset, item.begin())));
                }
                Due::Try(begun)
            }
        }
    }

    /// The first entry of a device that waits for nothing; else when the first one is due.
    fn next_entry(&self, now: Instant) -> Result<Vec<Offset>, Option<Instant>> {
        let (mut devices, mut wake) = (HashSet::new(), None::<Instant>);
        for (offset, item) in &self.items {
            let first_of_device = devices.insert(item.entry.work.device.as_str());
            if !first_of_device || item.under_way {
                continue;
            }
            match item.not_before.filter(|at| *at > now) {
                Some(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                None => return Ok(vec![*offset]),
            }
        }
        Err(wake)
    }

    /// The entries of the next request, in order: those of one that failed again together.
    fn next_batch(&self, now: Instant) -> Result<Vec<Offset>, Option<Instant>> {
        let Some((_, head)) = self.items.first_key_value().filter(|_| self.requests == 0) else { return Err(None) };
        if let Some(at) = head.not_before.filter(|at| *at > now) {
            return Err(Some(at));
        }
        let again = head.tries > 0;
        let together = self.items.iter().take(if head.alone { 1 } else { head.entry.batch() });
        let goes_with =
            |item: &Item| item.alone == head.alone && (item.tries > 0) == again && item.entry.goes_with(&head.entry);
        let together = together.take_while(|(_, item)| goes_with(item));
        Ok(together.map(|(offset, _)| *offset).collect())
    }

    /// What came of a request. Answers with the entries to be buried; done with, they are to be [`Lane::remove`]d.
    /// `jitter`: from 0 to 1, at random.
    pub fn settle(&mut self, offsets: &[Offset], verdict: &Verdict, now: Instant, now_ms: u64, jitter: f64) -> Entries {
        self.requests = self.requests.saturating_sub(1);
        let counts = match verdict {
            Verdict::Done => {
                self.answered();
                self.remove(offsets);
                return Entries::new();
            }
            // The target is there and says no.
            Verdict::Refused(_) => {
                self.answered();
                if offsets.len() > 1 {
                    self.part(offsets);
                    return Entries::new();
                }
                let refused =
                    offsets.iter().filter_map(|offset| Some((*offset, self.items.get(offset)?.entry.clone())));
                return refused.collect();
            }
            Verdict::Later(_) => true,
            Verdict::Away(_) => false,
        };
        self.not_answered(now);
        let mut spent = Entries::new();
        for offset in offsets {
            let Some(item) = self.items.get_mut(offset) else { continue };
            item.tries += 1;
            item.attempts += u32::from(counts);
            if counts && (item.attempts >= ATTEMPTS_MAX || item.is_old(now_ms)) {
                spent.push((*offset, item.entry.clone()));
                continue;
            }
            item.under_way = false;
            item.not_before = Some(now + wait(item.tries).mul_f64(jitter));
        }
        self.shed();
        spent
    }

    /// A batch was refused: its entries go one by one, so that the one at fault is found.
    fn part(&mut self, offsets: &[Offset]) {
        for offset in offsets {
            let Some(item) = self.items.get_mut(offset) else { continue };
            item.tries += 1;
            item.under_way = false;
            item.alone = true;
        }
    }

    /// While its target does not answer it keeps its first entry, and up to what is under way or goes again as it was; the
    /// rest is read again, so that lanes of dead targets leave the room to others.
    fn shed(&mut self) {
        let Some((first, head)) = self.items.first_key_value().filter(|_| self.is_suspended()) else { return };
        let is_batch = head.entry.batch() > 0;
        let is_kept = |item: &Item| item.under_way || (is_batch && item.tries > 0);
        let last_kept = self.items.iter().rev().find(|(_, item)| is_kept(item)).map_or(*first, |(offset, _)| *offset);
        let dropped = self.items.split_off(&(last_kept + 1));
        let Some(from) = dropped.keys().next().copied() else { return };
        self.bytes -= dropped.values().map(|item| item.entry.stored.record.bytes()).sum::<usize>();
        self.taken = from;
        self.behind = Some(from);
    }

    /// What came of a request of the same action in another partition: their target is one.
    pub fn hear(&mut self, verdict: &Verdict, now: Instant) {
        match verdict {
            Verdict::Done | Verdict::Refused(_) => self.answered(),
            Verdict::Later(_) | Verdict::Away(_) => {
                self.not_answered(now);
                self.shed();
            }
        }
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.suspended_until = None;
        self.suspension = FIRST_SUSPENSION;
    }

    fn not_answered(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let suspended = self.suspended_until.is_some_and(|until| until > now);
        if self.failures >= FAILURES_MAX && !suspended {
            self.suspended_until = Some(now + self.suspension);
            self.suspension = (self.suspension * 2).min(LONGEST_SUSPENSION);
        }
    }

    /// Entries that are done or buried.
    pub fn remove(&mut self, offsets: &[Offset]) {
        for offset in offsets {
            if let Some(item) = self.items.remove(offset) {
                self.bytes -= item.entry.stored.record.bytes();
            }
        }
    }

    /// Where its first entry stands that is not done; `None`: it has none.
    pub fn unfinished(&self) -> Option<Offset> {
        self.items.keys().next().copied().or(self.behind)
    }

    /// What it has taken, all of it done.
    pub fn finished(&self) -> Offset {
        self.unfinished().unwrap_or(self.taken)
    }

    /// Whether nothing has to be remembered of it but where it stands.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.behind.is_none() && self.failures == 0
    }

    /// Whether its target does not answer.
    pub fn is_suspended(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Entries in memory, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        (self.items.len(), self.bytes)
    }
}

impl Item {
    fn begin(&mut self) -> Arc<Entry> {
        self.under_way = true;
        self.entry.clone()
    }
}

/// Longest wait before try number `tries` + 1.
fn wait(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use drover_bus::{Position, Record, TopicPartition};

    use super::*;

    const NOW_MS: u64 = 2 * AGE_MS_MAX;

    fn entry(offset: Offset, device: &str, batch_records: u32) -> Entry {
        let webhook = Webhook { batch_records, ..Webhook::default() };
        let work =
            OutboxEntry { device: device.to_owned(), work: Some(Work::Webhook(webhook)), ..OutboxEntry::default() };
        let position = Position { at: TopicPartition::new("o", 0), offset };
        let record = Record { value: Some("x".into()), timestamp_ms: NOW_MS as i64, ..Record::default() };
        Entry { stored: Stored { position, record }, work }
    }

    fn lane(entries: impl IntoIterator<Item = Entry>) -> Lane {
        let mut lane = Lane::new(0);
        entries.into_iter().for_each(|entry| lane.offer(entry, true));
        lane
    }

    fn tried(lane: &mut Lane, now: Instant) -> Vec<Offset> {
        match lane.due(now, NOW_MS) {
            Due::Try(entries) => entries.iter().map(|(offset, _)| *offset).collect(),
            Due::GiveUp(_) | Due::Nothing(_) => Vec::new(),
        }
    }

    #[test]
    fn a_device_waits_for_its_own_earlier_entry_and_no_other() {
        let now = Instant::now();
        let mut lane = lane([entry(0, "a", 0), entry(1, "a", 0), entry(2, "b", 0)]);
        assert_eq!((tried(&mut lane, now), tried(&mut lane, now), tried(&mut lane, now)), (vec![0], vec![2], vec![]));
        assert!(lane.settle(&[0], &Verdict::Later("no".into()), now, NOW_MS, 1.0).is_empty());
        assert_eq!(tried(&mut lane, now), Vec::<Offset>::new(), "it waits, and what is behind it");
        assert_eq!(tried(&mut lane, now + FIRST_WAIT), [0]);
        lane.settle(&[0], &Verdict::Done, now, NOW_MS, 1.0);
        assert_eq!((tried(&mut lane, now), lane.unfinished()), (vec![1], Some(1)));
    }

    #[test]
    fn attempts_are_spent_and_then_the_entry_is_to_be_buried() {
        let mut now = Instant::now();
        let mut lane = lane([entry(0, "a", 0)]);
        for attempt in 1..=ATTEMPTS_MAX {
            now += LONGEST_SUSPENSION;
            assert_eq!(tried(&mut lane, now), [0], "attempt {attempt}");
            let spent = lane.settle(&[0], &Verdict::Later("no".into()), now, NOW_MS, 0.0);
            assert_eq!(spent.len(), usize::from(attempt == ATTEMPTS_MAX), "attempt {attempt}");
        }
        assert_eq!(lane.unfinished(), Some(0), "until it is buried");
        lane.remove(&[0]);
        assert_eq!(lane.unfinished(), None);
    }

    #[test]
    fn while_the_platform_itself_is_away_no_attempt_is_spent() {
        let mut now = Instant::now();
        let mut lane = lane([entry(0, "a", 0)]);
        for _ in 0..3 * ATTEMPTS_MAX {
            now += LONGEST_SUSPENSION;
            assert_eq!(tried(&mut lane, now), [0]);
            assert!(lane.settle(&[0], &Verdict::Away("no".into()), now, NOW_MS, 0.0).is_empty());
        }
    }

    #[test]
    fn a_target_that_does_not_answer_is_left_alone_and_then_asked_once() {
        let now = Instant::now();
        let mut lane = lane((0..20).map(|n| entry(n, &format!("d{n}"), 0)));
        for n in 0..u64::from(FAILURES_MAX) {
            assert_eq!(tried(&mut lane, now), [n]);
            lane.settle(&[n], &Verdict::Later("no".into()), now, NOW_MS, 1.0);
        }
        assert!(lane.is_suspended());
        assert_eq!(tried(&mut lane, now), Vec::<Offset>::new());
        let then = now + FIRST_SUSPENSION;
        assert_eq!((tried(&mut lane, then).len(), tried(&mut lane, then).len()), (1, 0), "one, to find out");
        assert_eq!((lane.held().0, lane.unfinished()), (1, Some(0)), "the rest is left to the log");
        assert_eq!(lane.reads_from(then, true), None, "and not read as long as there is one");
        lane.settle(&[0], &Verdict::Done, then, NOW_MS, 1.0);
        assert!(!lane.is_suspended());
        assert_eq!(lane.reads_from(then, true), Some(1));
        (1..20).for_each(|n| assert!(lane.push(entry(n, &format!("d{n}"), 0), true)));
        lane.has_read(None);
        assert_eq!((tried(&mut lane, then).len(), tried(&mut lane, then).len()), (1, 1));
    }

    #[test]
    fn what_a_target_does_in_one_partition_is_known_in_the_others() {
        let now = Instant::now();
        let mut lane = lane([entry(0, "a", 0)]);
        (0..FAILURES_MAX).for_each(|_| lane.hear(&Verdict::Later("no".into()), now));
        assert_eq!((lane.is_suspended(), tried(&mut lane, now)), (true, vec![]));
        lane.hear(&Verdict::Done, now);
        assert_eq!((lane.is_suspended(), tried(&mut lane, now)), (false, vec![0]));
    }

    #[test]
    fn what_is_a_day_old_is_given_up_while_its_target_does_not_answer() {
        let now = Instant::now();
        let mut lane = lane((0..6).map(|n| entry(n, &format!("d{n}"), 0)));
        for n in 0..u64::from(FAILURES_MAX) {
            assert_eq!(tried(&mut lane, now), [n]);
            lane.settle(&[n], &Verdict::Later("no".into()), now, NOW_MS, 1.0);
        }
        let Due::GiveUp(old) = lane.due(now, NOW_MS + AGE_MS_MAX + 1) else { panic!("all of them are old") };
        let old: Vec<Offset> = old.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(old, [0], "the others are read when it is gone");
        lane.remove(&old);
        assert_eq!((lane.unfinished(), lane.reads_from(now, true)), (Some(1), Some(1)));
    }

    #[test]
    fn a_batch_goes_in_order_one_at_a_time_and_again_as_it_was() {
        let now = Instant::now();
        let mut lane = lane((0..5).map(|n| entry(n, "a", 3)));
        assert_eq!((tried(&mut lane, now), tried(&mut lane, now)), (vec![0, 1, 2], vec![]));
        lane.settle(&[0, 1, 2], &Verdict::Later("no".into()), now, NOW_MS, 0.0);
        lane.offer(entry(5, "a", 3), true);
        assert_eq!(tried(&mut lane, now), [0, 1, 2]);
        lane.settle(&[0, 1, 2], &Verdict::Done, now, NOW_MS, 0.0);
        assert_eq!(tried(&mut lane, now), [3, 4, 5]);
    }

    #[test]
    fn of_a_batch_that_is_refused_only_the_entry_at_fault_is_buried() {
        let now = Instant::now();
        let mut lane = lane((0..4).map(|n| entry(n, "a", 3)));
        let no = Verdict::Refused("no".into());
        assert_eq!(tried(&mut lane, now), [0, 1, 2]);
        assert!(lane.settle(&[0, 1, 2], &no, now, NOW_MS, 0.0).is_empty());
        assert_eq!(tried(&mut lane, now), [0]);
        lane.settle(&[0], &Verdict::Done, now, NOW_MS, 0.0);
        assert_eq!(tried(&mut lane, now), [1]);
        assert_eq!(lane.settle(&[1], &no, now, NOW_MS, 0.0).len(), 1);
        lane.remove(&[1]);
        assert_eq!(tried(&mut lane, now), [2]);
        lane.settle(&[2], &Verdict::Done, now, NOW_MS, 0.0);
        assert_eq!(tried(&mut lane, now), [3]);
    }

    #[test]
    fn what_does_not_fit_stays_in_the_log_until_there_is_room() {
        let mut lane = lane((0..ENTRIES_MAX as u64 + 9).map(|n| entry(n, "a", 0)));
        let now = Instant::now();
        assert_eq!((lane.held().0, lane.reads_from(now, true)), (ENTRIES_MAX, None));
        let half: Vec<Offset> = (0..ENTRIES_MAX as u64 / 2).collect();
        lane.remove(&half);
        assert_eq!((lane.reads_from(now, true), lane.reads_from(now, false)), (Some(ENTRIES_MAX as u64), None));
        lane.could_not_read(now + FIRST_WAIT);
        assert_eq!((lane.reads_from(now, true), lane.reads_from(now + FIRST_WAIT, true).is_some()), (None, true));
        assert_eq!(lane.finished(), ENTRIES_MAX as u64 / 2);
        lane.has_read(None);
        lane.offer(entry(3, "a", 0), true);
        assert_eq!(lane.held().0, ENTRIES_MAX / 2, "it was taken before");
    }
}
