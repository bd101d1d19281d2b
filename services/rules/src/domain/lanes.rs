//! The lanes of one partition of the outbox, and how far each of them is: what has to be remembered is where the first
//! unfinished entry of all stands, and, of lanes that are further, where they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drover_bus::{Offset, Stored};
use drover_proto::rules::v1::OutboxEntry;
use drover_types::header;
use tokio::time::Instant;

use super::alarms::Alarms;
use super::lane::{Due, Entries, Entry, Lane, Verdict};

/// Tenant, rule and number of the action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    pub tenant: String,
    pub rule: String,
    pub action: u32,
}

impl LaneKey {
    /// The lane of an entry.
    pub fn of(entry: &OutboxEntry) -> Self {
        Self { tenant: entry.tenant.clone(), rule: entry.rule.clone(), action: entry.action }
    }

    /// The key of the record that says how far it is.
    pub fn record_key(&self, partition: u32) -> String {
        format!("{partition}/{}/{}/{}", self.tenant, self.rule, self.action)
    }

    /// Reads such a key; `None`: it is of another partition.
    pub fn from_record_key(key: &str, partition: u32) -> Option<Self> {
        let mut parts = key.split('/');
        let (of, tenant, rule, action) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let key = Self { tenant: tenant.to_owned(), rule: rule.to_owned(), action: action.parse().ok()? };
        (of.parse() == Ok(partition)).then_some(key)
    }
}

/// What lanes hold in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub entries: usize,
    /// Of their records.
    pub bytes: usize,
    /// Lanes whose target does not answer.
    pub suspended: usize,
}

/// See the module. A turn looks at the lanes that something has happened to, and no others.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<LaneKey, Lane>,
    /// Lanes to be asked what they want: something has happened to them, or their time has come.
    stirred: BTreeSet<LaneKey>,
    /// When lanes want something although nothing happens.
    alarms: Alarms<LaneKey>,
    /// Lanes that have not taken all.
    late: BTreeSet<LaneKey>,
    load: Load,
    /// Next offset that the group brings.
    head: Offset,
    /// What the log remembers of lanes that were further than the committed offset.
    remembered: HashMap<LaneKey, Offset>,
    /// The lane that read last: those after it come next.
    read_last: Option<LaneKey>,
}

impl Lanes {
    /// Lanes of a partition that is read from `head` on, where some were further.
    pub fn new(head: Offset, remembered: HashMap<LaneKey, Offset>) -> Self {
        Self { head, remembered, ..Self::default() }
    }

    /// The group has brought what stands before `head`.
    pub fn passed(&mut self, head: Offset) {
        self.head = head;
    }

    /// Takes an entry that the group has brought.
    pub fn take(&mut self, entry: Entry, room: bool) {
        let key = LaneKey::of(&entry.work);
        let done = self.remembered.get(&key).copied().unwrap_or(0);
        self.lanes.entry(key.clone()).or_insert_with(|| Lane::new(done));
        self.change(&key, |lane| lane.offer(entry, room));
    }

    /// Changes a lane, and what is known of all of them with it. `None`: there is no such lane.
    fn change<R>(&mut self, key: &LaneKey, how: impl FnOnce(&mut Lane) -> R) -> Option<R> {
        let lane = self.lanes.get_mut(key)?;
        let before = Load::of(lane);
        let result = how(lane);
        self.load.add(Load::of(lane));
        self.load.subtract(before);
        if lane.is_behind() {
            self.late.insert(key.clone());
        } else {
            self.late.remove(key);
        }
        self.stirred.insert(key.clone());
        Some(result)
    }

    /// What lanes want now, `budget` requests at most, and when the next one will want something.
    pub fn due(&mut self, now: Instant, now_ms: u64, budget: usize) -> (Vec<(LaneKey, Due)>, Option<Instant>) {
        self.stirred.extend(self.alarms.ring(now));
        let mut due = Vec::new();
        while due.len() < budget {
            let Some(key) = self.stirred.pop_first() else { break };
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            loop {
                match lane.due(now, now_ms) {
                    Due::Nothing(at) => {
                        self.alarms.set(&key, at);
                        break;
                    }
                    wanted @ (Due::Try(_) | Due::GiveUp(_)) => due.push((key.clone(), wanted)),
                }
                if due.len() >= budget {
                    self.stirred.insert(key);
                    break;
                }
            }
        }
        (due, self.alarms.next())
    }

    /// Lanes that have to read, and from where: `most` of them, in turn. `room`: see [`Lane::offer`].
    pub fn behind(&mut self, now: Instant, room: bool, most: usize) -> Vec<(LaneKey, Offset)> {
        let reads = |key: &LaneKey| self.lanes.get(key)?.reads_from(now, room);
        let mut behind: Vec<(LaneKey, Offset)> =
            self.late.iter().filter_map(|key| Some((key.clone(), reads(key)?))).collect();
        let had_turn = self.read_last.as_ref().map_or(0, |last| behind.partition_point(|(key, _)| key <= last));
        behind.rotate_left(had_turn);
        behind.truncate(most);
        if let Some((key, _)) = behind.last() {
            self.read_last = Some(key.clone());
        }
        behind
    }

    /// See [`Lane::could_not_read`].
    pub fn could_not_read(&mut self, key: &LaneKey, until: Instant) {
        self.change(key, |lane| lane.could_not_read(until));
    }

    /// What a lane has read from where it had to. Nothing at all: there is nothing more.
    pub fn catch_up(&mut self, key: &LaneKey, records: Vec<Stored>, room: bool) {
        let head = self.head;
        self.change(key, |lane| {
            let mut next = head;
            for stored in records {
                let offset = stored.position.offset;
                if offset >= head {
                    next = head;
                    break;
                }
                next = offset + 1;
                if lane.has_taken(offset) || stored.record.header(header::RULE) != Some(key.rule.as_bytes()) {
                    continue;
                }
                let Ok(entry) = Entry::read(stored) else { continue };
                if LaneKey::of(&entry.work) == *key && !lane.push(entry, room) {
                    next = offset;
                    break;
                }
            }
            lane.has_read(Some(next).filter(|next| *next < head));
        });
    }

    /// What a lane could not read, as it is not kept any more: it goes on from `earliest`.
    pub fn skip_to(&mut self, key: &LaneKey, earliest: Offset) {
        let behind = Some(earliest).filter(|earliest| *earliest < self.head);
        self.change(key, |lane| lane.has_read(behind));
    }

    /// See [`Lane::settle`].
    pub fn settle(
        &mut self,
        key: &LaneKey,
        offsets: &[Offset],
        verdict: &Verdict,
        (now, now_ms): (Instant, u64),
        jitter: f64,
    ) -> Entries {
        self.change(key, |lane| lane.settle(offsets, verdict, now, now_ms, jitter)).unwrap_or_default()
    }

    /// See [`Lane::hear`].
    pub fn hear(&mut self, key: &LaneKey, verdict: &Verdict, now: Instant) {
        self.change(key, |lane| lane.hear(verdict, now));
    }

    /// Entries of a lane that are buried.
    pub fn remove(&mut self, key: &LaneKey, offsets: &[Offset]) {
        self.change(key, |lane| lane.remove(offsets));
    }

    /// Whatever stands before is done: the offset to commit.
    pub fn finished(&self) -> Offset {
        self.lanes.values().filter_map(Lane::unfinished).min().unwrap_or(self.head)
    }

    /// What has changed of lanes that are further than that: where they are, or `None`: nothing has to be remembered of
    /// them any more. Lanes that nothing has to be remembered of go.
    pub fn news(&mut self) -> Vec<(LaneKey, Option<Offset>)> {
        let finished = self.finished();
        let mut news = Vec::new();
        for (key, lane) in &self.lanes {
            let at = lane.finished();
            if at > finished && self.remembered.get(key) != Some(&at) {
                news.push((key.clone(), Some(at)));
            }
        }
        let is_further = |key: &LaneKey| self.lanes.get(key).is_some_and(|lane| lane.finished() > finished);
        let passed = self.remembered.iter().filter(|(key, at)| **at <= finished && !is_further(key));
        news.extend(passed.map(|(key, _)| (key.clone(), None)));
        self.lanes.retain(|_, lane| !lane.is_idle() || lane.finished() > finished);
        news
    }

    /// The log has it.
    pub fn remember(&mut self, news: Vec<(LaneKey, Option<Offset>)>) {
        for (key, at) in news {
            if let Some(at) = at {
                self.remembered.insert(key, at);
            } else {
                self.remembered.remove(&key);
            }
        }
    }

    /// What all of them hold.
    pub fn load(&self) -> Load {
        self.load
    }
}

impl Load {
    fn of(lane: &Lane) -> Self {
        let (entries, bytes) = lane.held();
        Self { entries, bytes, suspended: usize::from(lane.is_suspended()) }
    }

    /// Adds what others hold.
    pub fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.bytes += more.bytes;
        self.suspended += more.suspended;
    }

    fn subtract(&mut self, less: Self) {
        self.entries -= less.entries;
        self.bytes -= less.bytes;
        self.suspended -= less.suspended;
    }
}

#[cfg(test)]
mod tests {
    use drover_bus::{Position, Record, TopicPartition};
    use drover_proto::rules::v1::{Webhook, outbox_entry};
    use prost::Message as _;

    use super::super::lane::{ENTRIES_MAX, FAILURES_MAX};
    use super::*;

    fn record(offset: Offset, rule: &str) -> Stored {
        let work = Some(outbox_entry::Work::Webhook(Webhook::default()));
        let (rule, device) = (rule.to_owned(), format!("d{offset}"));
        let entry = OutboxEntry { rule: rule.clone(), device, work, ..OutboxEntry::default() };
        let headers = [(header::RULE, &rule)].into();
        let record = Record { value: Some(entry.encode_to_vec().into()), headers, ..Record::default() };
        Stored { position: Position { at: TopicPartition::new("o", 0), offset }, record }
    }

    fn take(lanes: &mut Lanes, offset: Offset, rule: &str) {
        lanes.take(Entry::read(record(offset, rule)).expect("an entry"), true);
        lanes.passed(offset + 1);
    }

    fn key(rule: &str) -> LaneKey {
        LaneKey { tenant: String::new(), rule: rule.to_owned(), action: 0 }
    }

    /// Tries all that wants to be tried; what `fails` stays under way. The offsets that are done.
    fn work(lanes: &mut Lanes, fails: &str) -> Vec<Offset> {
        let (mut done, now) = (Vec::new(), Instant::now());
        loop {
            let mut any = false;
            for (key, due) in lanes.due(now, 0, 1_000).0 {
                let Due::Try(entries) = due else { panic!("nothing is old") };
                if key.rule != fails {
                    let offsets: Vec<Offset> = entries.iter().map(|(offset, _)| *offset).collect();
                    lanes.settle(&key, &offsets, &Verdict::Done, (now, 0), 0.0);
                    done.extend(offsets);
                    any = true;
                }
            }
            if !any {
                done.sort_unstable();
                return done;
            }
        }
    }

    #[test]
    fn one_that_hangs_holds_up_itself_and_what_others_did_is_remembered() {
        let mut lanes = Lanes::new(0, HashMap::new());
        for n in 0..10 {
            take(&mut lanes, n, if n % 2 == 0 { "dead" } else { "alive" });
        }
        assert_eq!(work(&mut lanes, "dead"), [1, 3, 5, 7, 9]);
        assert_eq!(lanes.finished(), 0);
        let news = lanes.news();
        assert_eq!(news, [(key("alive"), Some(10))]);
        lanes.remember(news.clone());
        assert!(lanes.news().is_empty(), "said once");

        // After a crash.
        let remembered = news.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
        let mut lanes = Lanes::new(0, remembered);
        for n in 0..10 {
            take(&mut lanes, n, if n % 2 == 0 { "dead" } else { "alive" });
        }
        take(&mut lanes, 10, "alive");
        assert_eq!(work(&mut lanes, "dead"), [10], "the others are done");
        assert_eq!(work(&mut lanes, "nobody"), [] as [Offset; 0], "those of the dead one are under way");
    }

    #[test]
    fn a_lane_without_room_reads_the_rest_itself() {
        let mut lanes = Lanes::new(0, HashMap::new());
        let total = ENTRIES_MAX as u64 * 3;
        for n in 0..total {
            take(&mut lanes, n, "busy");
        }
        take(&mut lanes, total, "other");
        let (mut done, now) = (Vec::new(), Instant::now());
        while lanes.finished() <= total {
            done.extend(work(&mut lanes, "nobody"));
            for (key, from) in lanes.behind(now, true, 1) {
                let rule = |n| if n == total { "other" } else { "busy" };
                let to = (from + 100).min(total + 1);
                lanes.catch_up(&key, (from..to).map(|n| record(n, rule(n))).collect(), true);
            }
        }
        done.sort_unstable();
        assert_eq!(done, (0..=total).collect::<Vec<_>>(), "each once");
        assert_eq!((lanes.finished(), lanes.news()), (total + 1, vec![]));
    }

    #[test]
    fn a_turn_asks_the_lanes_that_something_happened_to_and_those_whose_time_has_come() {
        let (mut lanes, now) = (Lanes::new(0, HashMap::new()), Instant::now());
        let asked = |lanes: &mut Lanes, now| -> Vec<String> {
            lanes.due(now, 0, 100).0.into_iter().map(|(key, _)| key.rule).collect()
        };
        for (offset, rule) in (0..).zip(["a", "b", "c"]) {
            take(&mut lanes, offset, rule);
        }
        let bytes: usize = (0..).zip(["a", "b", "c"]).map(|(offset, rule)| record(offset, rule).record.bytes()).sum();
        assert_eq!(lanes.load(), Load { entries: 3, bytes, suspended: 0 });
        let first = lanes.due(now, 0, 2).0;
        assert_eq!(first.len(), 2, "no more than the budget");
        assert_eq!((asked(&mut lanes, now), asked(&mut lanes, now)), (vec!["c".to_owned()], vec![]));
        let later = Verdict::Later("no".into());
        lanes.settle(&key("b"), &[1], &later, (now, 0), 1.0);
        let (due, wake) = lanes.due(now, 0, 100);
        let wake = wake.expect("b goes again");
        assert!(due.is_empty() && wake > now);
        assert_eq!((asked(&mut lanes, wake), asked(&mut lanes, wake)), (vec!["b".to_owned()], vec![]));
        for (offset, rule) in (0..).zip(["a", "b", "c"]) {
            lanes.settle(&key(rule), &[offset], &Verdict::Done, (wake, 0), 0.0);
        }
        assert_eq!((lanes.load(), lanes.due(wake, 0, 100).1), (Load::default(), None));
    }

    #[test]
    fn what_is_held_counts_lanes_whose_target_does_not_answer() {
        let (mut lanes, now) = (Lanes::new(0, HashMap::new()), Instant::now());
        take(&mut lanes, 0, "a");
        (0..FAILURES_MAX).for_each(|_| lanes.hear(&key("a"), &Verdict::Later("no".into()), now));
        assert_eq!(lanes.load().suspended, 1);
        lanes.hear(&key("a"), &Verdict::Done, now);
        assert_eq!(lanes.load().suspended, 0);
    }

    #[test]
    fn lanes_that_are_behind_read_in_turn() {
        let mut lanes = Lanes::new(0, HashMap::new());
        let rules = ["a", "b", "c"];
        for (offset, rule) in (0..).zip(rules.into_iter().cycle().take(6)) {
            // The second of each finds no room.
            lanes.take(Entry::read(record(offset, rule)).expect("an entry"), offset < 3);
            lanes.passed(offset + 1);
        }
        let now = Instant::now();
        let mut next =
            |room: bool| -> Vec<String> { lanes.behind(now, room, 2).into_iter().map(|(key, _)| key.rule).collect() };
        assert_eq!(
            (next(true), next(true), next(false)),
            (vec!["a".to_owned(), "b".into()], vec!["c".into(), "a".into()], vec![])
        );
    }

    #[test]
    fn what_is_remembered_has_a_key_of_its_partition() {
        let key = LaneKey { tenant: "home".into(), rule: "a.b".into(), action: u32::MAX };
        assert_eq!(LaneKey::from_record_key(&key.record_key(3), 3), Some(key.clone()));
        assert_eq!(LaneKey::from_record_key(&key.record_key(3), 2), None);
    }
}
