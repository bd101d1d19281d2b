//! What rules that group messages know: the groups of each such rule in each partition of this member.
//!
//! The truth is the compacted topic [`STATE_TOPIC`], in the partition of the messages: what has changed goes there in the
//! transaction that commits their offsets. A record's key is `tenant/rule/statement/group`, where `statement` is a hash
//! of the SQL: a rule that says something else has nothing to do with the state of its predecessor, which is removed.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use drover_bus::{Offset, Outgoing, Partition, Record};
use drover_rule_sql::{CompiledRule, Due, EvalError, Groups, IDLE_MS, Message, Room, Taken};
use drover_types::TenantId;

use super::definition::Definition;
use super::fault::fault;
use super::in_force::Offsets;
use super::rule_set::RuleSet;
use super::status::RuleKey;

/// The states, compacted; as many partitions as the telemetry.
pub const STATE_TOPIC: &str = "drover.rules.state";
/// Most groups of one rule in this process.
pub const GROUPS_MAX: usize = 1_000_000;
/// Most bytes of the states of one rule in this process.
pub const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most groups of all rules in this process.
pub const PROCESS_GROUPS_MAX: usize = 4_000_000;
/// Most bytes that the states of all rules take in this process, each with [`GROUP_COST_BYTES`].
pub const PROCESS_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// What a group takes besides its name and state, about: places in tables, a deadline, pieces of memory.
const GROUP_COST_BYTES: usize = 256;
/// States that are removed in one transaction: those of a rule that is gone, bit by bit.
const REMOVED_AT_ONCE: usize = 5_000;

/// All of this member.
#[derive(Debug, Default)]
pub struct States {
    partitions: HashMap<Partition, Held>,
    /// Groups and bytes of each rule over all partitions.
    totals: HashMap<String, Total>,
    /// Of all rules.
    process: Total,
    /// Records and bytes that [`States::changes`] comes to, about.
    changed: (usize, usize),
}

/// Of one partition.
#[derive(Debug, Default)]
pub struct Held {
    /// By the beginning of their keys, up to the group.
    rules: HashMap<String, Groups>,
    /// Keys that have to go.
    removed: BTreeSet<String>,
    /// States that could not be read.
    pub unreadable: u64,
    /// The next offset of the telemetry.
    next: Offset,
    /// When the last message was received, milliseconds since the Unix epoch.
    clock_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    groups: usize,
    bytes: usize,
}

/// A partition whose groups may go on with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub partition: Partition,
    pub next: Offset,
    /// When its last message was received, milliseconds since the Unix epoch.
    pub clock_ms: u64,
}

impl Held {
    /// How many groups all rules have.
    pub fn groups(&self) -> usize {
        self.rules.values().map(Groups::len).sum()
    }

    /// Takes a record of the state topic.
    pub fn restore(&mut self, record: &Record) {
        let Some(key) = record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
        let Some((prefix, group)) = split(key) else { return };
        if record.value.is_none() && !self.rules.contains_key(prefix) {
            return;
        }
        let groups = self.rules.entry(prefix.to_owned()).or_default();
        // The last record of a key is what counts, whatever came before it.
        self.removed.remove(key);
        if let Err(error) = groups.restore(group, record.value.as_deref()) {
            tracing::error!(key, %error, "a rule's state is left out");
            self.unreadable += 1;
            if !matches!(error, EvalError::NewerState { .. }) {
                self.removed.insert(key.to_owned());
            }
        }
    }
}

impl States {
    /// A partition is this member's, from `next` on, with what was restored.
    pub fn assign(&mut self, partition: Partition, next: Offset, held: Held, rules: &RuleSet) {
        self.revoke(partition);
        for (prefix, groups) in &held.rules {
            let (total, of_partition) = (self.totals.entry(prefix.clone()).or_default(), Total::of(groups));
            total.add(of_partition);
            self.process.add(of_partition);
        }
        self.partitions.insert(partition, Held { next, ..held });
        self.reconcile(rules);
    }

    /// A partition is another member's.
    pub fn revoke(&mut self, partition: Partition) {
        for (prefix, groups) in self.partitions.remove(&partition).unwrap_or_default().rules {
            self.subtract(&prefix, &groups);
        }
    }

    /// Removes the states of rules that are gone, or say something else.
    pub fn reconcile(&mut self, rules: &RuleSet) {
        let mut gone = Vec::new();
        for held in self.partitions.values_mut() {
            let obsolete: Vec<String> = held.rules.keys().filter(|prefix| !keeps(rules, prefix)).cloned().collect();
            for prefix in obsolete {
                let Some(groups) = held.rules.remove(&prefix) else { continue };
                held.removed.extend(groups.keys().map(|group| format!("{prefix}{group}")));
                gone.push((prefix, groups));
            }
        }
        for (prefix, groups) in gone {
            self.subtract(&prefix, &groups);
        }
    }

    fn subtract(&mut self, prefix: &str, groups: &Groups) {
        let Some(total) = self.totals.get_mut(prefix) else { return };
        total.subtract(Total::of(groups));
        self.process.subtract(Total::of(groups));
        if !self.partitions.values().any(|held| held.rules.contains_key(prefix)) {
            self.totals.remove(prefix);
        }
    }

    /// The next offset of each partition.
    pub fn offsets(&self) -> Offsets {
        self.partitions.iter().map(|(partition, held)| (*partition, held.next)).collect()
    }

    /// A record was read, whatever becomes of it.
    pub fn pass(&mut self, partition: Partition, next: Offset, clock_ms: Option<u64>) {
        if let Some(held) = self.partitions.get_mut(&partition) {
            held.next = next;
            held.clock_ms = held.clock_ms.max(clock_ms.unwrap_or_default());
        }
    }

    /// A message for a rule that groups, at `offset`, republished `hops` times.
    pub fn take(
        &mut self,
        rule: &Definition,
        (partition, offset): (Partition, Offset),
        message: &Message<'_>,
        hops: u32,
    ) -> Taken {
        let room = self.room(&rule.state_prefix);
        self.change(partition, &rule.state_prefix, |groups| groups.take(&rule.rule, message, offset, hops, room))
    }

    /// What may be added to the states of a rule.
    fn room(&self, prefix: &str) -> Room {
        let total = self.totals.get(prefix).copied().unwrap_or_default();
        // Room comes before the limit that it is up to: the nearer one is what an error names.
        let groups = (GROUPS_MAX.saturating_sub(total.groups), GROUPS_MAX);
        let of_process = PROCESS_GROUPS_MAX.saturating_sub(self.process.groups);
        let (groups, groups_max) = groups.min((of_process, PROCESS_GROUPS_MAX));
        let bytes = (STATE_BYTES_MAX.saturating_sub(total.bytes), STATE_BYTES_MAX);
        // The group may be a new one.
        let of_process = PROCESS_BYTES_MAX.saturating_sub(self.process.memory() + GROUP_COST_BYTES);
        let (bytes, bytes_max) = bytes.min((of_process, PROCESS_BYTES_MAX));
        Room { groups, bytes, groups_max, bytes_max }
    }

    fn change<T>(&mut self, partition: Partition, prefix: &str, change: impl FnOnce(&mut Groups) -> T) -> T {
        let held = self.partitions.entry(partition).or_default();
        if !held.rules.contains_key(prefix) {
            held.rules.insert(prefix.to_owned(), Groups::default());
        }
        let groups = held.rules.get_mut(prefix).expect("it was put there");
        let before = (Total::of(groups), groups.changed());
        let outcome = change(groups);
        let after = (Total::of(groups), groups.changed());
        if !self.totals.contains_key(prefix) {
            self.totals.insert(prefix.to_owned(), Total::default());
        }
        let total = self.totals.get_mut(prefix).expect("it was put there");
        for sum in [total, &mut self.process] {
            sum.add(after.0);
            sum.subtract(before.0);
        }
        self.changed.0 += after.1.0 - before.1.0;
        self.changed.1 += after.1.1 - before.1.1;
        outcome
    }

    /// Partitions with open groups, to be asked whether time goes on there.
    pub fn waiting(&self) -> Vec<Waiting> {
        let of = |(partition, held): (&Partition, &Held)| Waiting {
            partition: *partition,
            next: held.next,
            clock_ms: held.clock_ms,
        };
        let open = self.partitions.iter().filter(|(_, held)| held.rules.values().any(Groups::waits_for_time));
        open.map(of).collect()
    }

    /// Time has come to `clock_ms` in a partition.
    pub fn tick(&mut self, partition: Partition, rules: &RuleSet, clock_ms: u64) {
        let Some(held) = self.partitions.get_mut(&partition) else { return };
        for (prefix, groups) in held.rules.iter_mut().filter(|(_, groups)| groups.waits_for_time()) {
            if let Some(rule) = in_force(rules, prefix) {
                groups.tick(&rule.rule, clock_ms);
            }
        }
    }

    /// Where windows are over.
    pub fn due<'r>(&self, rules: &'r RuleSet) -> Vec<(Partition, &'r Arc<Definition>)> {
        let of_partition = |(partition, held): (&Partition, &Held)| {
            let due = held.rules.iter().filter(|(_, groups)| groups.is_due());
            let due = due.filter_map(|(prefix, _)| in_force(rules, prefix));
            due.map(|rule| (*partition, rule)).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of_partition).collect()
    }

    /// Closes the windows of one group of a rule that is due: where it stands, and what came of it. `None`: none is.
    pub fn close_next(
        &mut self,
        partition: Partition,
        rule: &Definition,
    ) -> Option<(Offset, Result<Vec<Due>, String>)> {
        let next = self.partitions.get(&partition)?.next;
        let close = |groups: &mut Groups| {
            // A fault of ours that a state meets would be met again after every start.
            match catch_unwind(AssertUnwindSafe(|| groups.close_next(&rule.rule))) {
                Ok(closed) => closed.map(|closed| closed.map_err(|error| error.to_string())),
                Err(panic) => {
                    groups.forget_due();
                    Some(Err(fault(&*panic)))
                }
            }
        };
        let closed = self.change(partition, &rule.state_prefix, close)?;
        Some((next, closed))
    }

    /// Records that the states have to be written with, and their bytes, about.
    pub fn changed(&self) -> (usize, usize) {
        self.changed
    }

    /// What has changed since this was asked, as records; each with the next offset of its partition.
    pub fn changes(&mut self) -> Vec<(Partition, Offset, Vec<Outgoing>)> {
        let mut all = Vec::new();
        self.changed = (0, 0);
        let mut may_go = REMOVED_AT_ONCE;
        for (partition, held) in &mut self.partitions {
            let mut records = Vec::new();
            for (prefix, groups) in held.rules.iter_mut().filter(|(_, groups)| groups.changed().0 > 0) {
                for (group, state) in groups.changes() {
                    let key = format!("{prefix}{group}");
                    // A rule that was deleted and is there again may have begun anew.
                    held.removed.remove(&key);
                    records.push(outgoing(*partition, key, state));
                }
            }
            while may_go > 0
                && let Some(key) = held.removed.pop_first()
            {
                records.push(outgoing(*partition, key, None));
                may_go -= 1;
            }
            if !records.is_empty() {
                all.push((*partition, held.next, records));
            }
        }
        all
    }

    /// Open groups of each rule that has had some, in this process.
    pub fn groups(&self) -> HashMap<RuleKey, usize> {
        self.totals.iter().filter_map(|(prefix, total)| Some((rule_of(prefix)?, total.groups))).collect()
    }
}

impl Total {
    fn of(groups: &Groups) -> Self {
        Self { groups: groups.len(), bytes: groups.bytes() }
    }

    fn add(&mut self, more: Self) {
        self.groups += more.groups;
        self.bytes += more.bytes;
    }

    fn subtract(&mut self, less: Self) {
        self.groups -= less.groups;
        self.bytes -= less.bytes;
    }

    /// What it takes in memory, about.
    fn memory(self) -> usize {
        self.bytes + self.groups * GROUP_COST_BYTES
    }
}

impl Waiting {
    /// Whether the log has to be asked if there is more: its last message is old.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.clock_ms) > IDLE_MS
    }
}

/// The beginning of the keys of a rule's states.
pub fn prefix(tenant: &TenantId, name: &str, rule: &CompiledRule) -> String {
    format!("{tenant}/{name}/{}/", rule.digest())
}

/// The beginning of a key, up to the group, and the group.
fn split(key: &str) -> Option<(&str, &str)> {
    let (at, _) = key.match_indices('/').nth(2)?;
    Some(key.split_at(at + 1))
}

/// Which rule's states these are.
fn rule_of(prefix: &str) -> Option<RuleKey> {
    let (tenant, rest) = prefix.split_once('/')?;
    let (rule, _) = rest.split_once('/')?;
    Some((TenantId::new(tenant).ok()?, rule.to_owned()))
}

fn in_force<'r>(rules: &'r RuleSet, prefix: &str) -> Option<&'r Arc<Definition>> {
    rules.get(&rule_of(prefix)?).filter(|rule| rule.state_prefix == prefix)
}

/// Whether a rule in force says what these states are of, or one that waits for its topics and functions may.
fn keeps(rules: &RuleSet, prefix: &str) -> bool {
    let Some(key) = rule_of(prefix) else { return false };
    match rules.get(&key) {
        Some(rule) => rule.state_prefix == prefix,
        None => rules.is_waiting(&key),
    }
}

fn outgoing(partition: Partition, key: String, state: Option<Vec<u8>>) -> Outgoing {
    let record = Record { key: Some(key.into()), value: state.map(Into::into), ..Record::default() };
    Outgoing { topic: STATE_TOPIC.into(), partition: Some(partition), record }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "home/r/1/[\"d\"]";

    fn restored(values: &[&'static [u8]]) -> Held {
        let mut held = Held::default();
        for value in values {
            held.restore(&Record { key: Some(KEY.into()), value: Some((*value).into()), ..Record::default() });
        }
        held
    }

    #[test]
    fn all_rules_together_have_a_bound_besides_that_of_each() {
        let mut states = States::default();
        let room = states.room("home/r/1/");
        assert_eq!((room.groups, room.groups_max), (GROUPS_MAX, GROUPS_MAX));
        assert_eq!((room.bytes, room.bytes_max), (STATE_BYTES_MAX, STATE_BYTES_MAX));
        let groups = PROCESS_GROUPS_MAX - 9;
        states.process = Total { groups, bytes: PROCESS_BYTES_MAX - (groups + 4) * GROUP_COST_BYTES };
        let room = states.room("home/r/1/");
        assert_eq!((room.groups, room.groups_max), (9, PROCESS_GROUPS_MAX));
        assert_eq!((room.bytes, room.bytes_max), (3 * GROUP_COST_BYTES, PROCESS_BYTES_MAX), "a group has its cost");
    }

    #[test]
    fn what_a_partition_has_is_counted_as_long_as_it_is_here() {
        let (mut states, rules) = (States::default(), RuleSet::default());
        states.assign(0, 0, restored(&[&[0x08, 0x01]]), &rules);
        assert_eq!(states.process.groups, 0, "no rule keeps it");
        states.change(1, "home/r/1/", |groups| groups.restore("[1]", Some(&[0x08, 0x01]))).expect("readable");
        assert_eq!((states.process.groups, states.process.memory()), (1, 5 + GROUP_COST_BYTES));
        states.revoke(1);
        assert_eq!((states.process.groups, states.process.bytes), (0, 0));
    }

    #[test]
    fn a_state_that_cannot_be_read_goes_unless_another_follows_or_a_later_version_wrote_it() {
        let (unreadable, readable, newer): (&[u8], &[u8], &[u8]) = (&[0xff], &[0x08, 0x01], &[0x08, 0x02]);
        assert!(restored(&[readable, unreadable]).removed.contains(KEY));
        let held = restored(&[unreadable, readable]);
        assert_eq!((held.groups(), held.unreadable, held.removed.len()), (1, 1, 0));
        let held = restored(&[unreadable, newer]);
        assert_eq!((held.groups(), held.unreadable, held.removed.len()), (0, 2, 0));
    }
}
