//! All groups of one rule in one partition: their states, when each has something to do, and what has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::input::Input;
use super::pattern::Pattern;
use super::plan::{Closed, Machine, Plan};
use super::state::{Group, Pane};
use super::total::Total;
use super::watermark::Watermark;
use crate::ast::Late;
use crate::error::EvalError;
use crate::message::Message;
use crate::rule::CompiledRule;

/// Largest state of one group, in bytes.
pub const GROUP_BYTES_MAX: usize = 64 * 1024;
/// Where the watermark stands among the states: groups are named by JSON arrays.
const WATERMARK: &str = "";
/// Deadline of a group that waits for messages only.
const NEVER: u64 = u64::MAX;

/// The groups of one rule in one partition of the log.
#[derive(Debug, Default)]
pub struct Groups {
    watermark: Watermark,
    states: HashMap<Arc<str>, Held>,
    /// When groups have something to do, by the watermark; complete once `armed`.
    timers: BTreeSet<(u64, Arc<str>)>,
    /// Whether the deadlines of restored states are known.
    armed: bool,
    /// Whether its time goes on by messages only: nothing comes out when a pattern forgets a group.
    patient: bool,
    /// Of all states.
    bytes: usize,
    /// Since [`Groups::changes`] was asked.
    changed: BTreeSet<Arc<str>>,
    /// Bytes stored since then.
    changed_bytes: usize,
}

#[derive(Debug)]
struct Held {
    bytes: Box<[u8]>,
    deadline_ms: u64,
}

/// How much may still be added to the rule's states.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub groups: usize,
    pub bytes: usize,
    /// What errors name as the limits.
    pub groups_max: usize,
    pub bytes_max: usize,
}

/// What a message came to.
#[derive(Debug, Default)]
pub struct Taken {
    /// The condition was true.
    pub matched: bool,
    /// It came after a window of its own had been closed.
    pub late: bool,
    /// It was late, and the rule leaves out what is.
    pub dropped: bool,
    /// A pattern turned: the rule makes a row of the message.
    pub turned: bool,
    /// Windows of its group that are over, and the rows of a late message.
    pub due: Vec<Due>,
    /// Why it could not be taken; its group is as it was.
    pub error: Option<EvalError>,
}

/// A window of a group that makes a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The group's keys as a JSON array.
    pub group: Arc<str>,
    pub closed: Closed,
}

impl Groups {
    /// Groups that a rule has.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Bytes of their states, names included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one message, which stands at `order` in the log and was republished `hops` times. `rule` has to be one that
    /// groups.
    pub fn take(&mut self, rule: &CompiledRule, message: &Message<'_>, order: u64, hops: u32, room: Room) -> Taken {
        let mut taken = Taken::default();
        let Some(plan) = rule.plan() else {
            taken.error = Some(EvalError::Grouped);
            return taken;
        };
        let input = match Input::of(rule, plan, message) {
            Ok(Some(input)) => input,
            Ok(None) => return taken,
            Err(error) => {
                taken.error = Some(error);
                return taken;
            }
        };
        taken.matched = true;
        self.arm(plan);
        self.watermark.idle(message.timestamp_ms);
        if plan.is_pattern() {
            self.watermark.heard(message.timestamp_ms, message.timestamp_ms, 0);
        }
        let outcome = self.add(plan, &input, order, hops, room, &mut taken);
        taken.error = outcome.err();
        taken.dropped = taken.late && plan.late == Late::Drop;
        if !plan.is_pattern() {
            self.watermark.heard(input.time_ms, message.timestamp_ms, plan.lateness_ms);
            self.changed.insert(WATERMARK.into());
        }
        taken
    }

    /// All is computed before the first state changes: whoever survives a fault in it has lost no window.
    fn add(
        &mut self,
        plan: &Plan,
        input: &Input,
        order: u64,
        hops: u32,
        room: Room,
        taken: &mut Taken,
    ) -> Result<(), EvalError> {
        let name: Arc<str> = input.group.as_str().into();
        let now_ms = self.watermark.time_ms;
        let fresh = || Group { closed_to_ms: now_ms, ..Group::default() };
        let (mut group, closed) = match self.states.get(&name) {
            None => (fresh(), None),
            Some(held) if held.deadline_ms > now_ms => (Group::read(&held.bytes)?, None),
            Some(held) => match closed(plan, &held.bytes, now_ms) {
                Ok((left, rows)) => {
                    let group = if left.is_empty() { fresh() } else { left.clone() };
                    (group, Some((left, rows)))
                }
                Err(error) => {
                    self.forget(&name);
                    return Err(error);
                }
            },
        };
        let late_rows = take(plan, &mut group, input, (order, hops), now_ms, taken);
        let due = |closed| Due { group: name.clone(), closed };
        if let Some((left, rows)) = closed {
            // It has not grown: room does not matter.
            self.store(plan, &name, &left, left.to_bytes());
            taken.due.extend(rows.into_iter().map(due));
        }
        let late_rows = late_rows?;
        if let Err(error) = self.put(plan, &name, &group, room) {
            taken.turned = false;
            return Err(error);
        }
        taken.due.extend(late_rows.into_iter().map(due));
        Ok(())
    }

    /// Time goes on without a message: the clock says `clock_ms`. Nothing to a pattern.
    pub fn tick(&mut self, rule: &CompiledRule, clock_ms: u64) {
        let Some(plan) = rule.plan() else { return };
        self.arm(plan);
        if self.patient {
            return;
        }
        let before = self.watermark;
        self.watermark.idle(clock_ms);
        // It is told with what it closes; by itself it can be computed again.
        if before != self.watermark && self.is_due() {
            self.changed.insert(WATERMARK.into());
        }
    }

    /// Whether time has to go on for something to happen.
    pub fn waits_for_time(&self) -> bool {
        if self.armed { !self.patient && !self.timers.is_empty() } else { !self.states.is_empty() }
    }

    /// Whether a window is over that has not been closed.
    pub fn is_due(&self) -> bool {
        self.timers.first().is_some_and(|(deadline, _)| *deadline <= self.watermark.time_ms)
    }

    /// Closes the windows of one group that is due, the earliest first; `None` if none is. An error: the state of the
    /// group was lost with it.
    pub fn close_next(&mut self, rule: &CompiledRule) -> Option<Result<Vec<Due>, EvalError>> {
        let plan = rule.plan().filter(|_| self.is_due())?;
        let (_, name) = self.timers.first()?.clone();
        Some(self.close(plan, &name))
    }

    fn close(&mut self, plan: &Plan, name: &Arc<str>) -> Result<Vec<Due>, EvalError> {
        let Some(held) = self.states.get(name) else { return Ok(Vec::new()) };
        match closed(plan, &held.bytes, self.watermark.time_ms) {
            Ok((group, rows)) => {
                // It has not grown: room does not matter.
                self.store(plan, name, &group, group.to_bytes());
                let due = |closed| Due { group: name.clone(), closed };
                Ok(rows.into_iter().map(due).collect())
            }
            Err(error) => {
                self.forget(name);
                Err(error)
            }
        }
    }

    /// Gives up the group that is due first, whose windows cannot be closed.
    pub fn forget_due(&mut self) {
        if let Some((_, name)) = self.timers.first().filter(|_| self.is_due()).cloned() {
            self.forget(&name);
        }
    }

    /// Keeps a group's new state, if it fits.
    fn put(&mut self, plan: &Plan, name: &Arc<str>, group: &Group, room: Room) -> Result<(), EvalError> {
        let bytes = group.to_bytes();
        if bytes.len() > GROUP_BYTES_MAX {
            return Err(EvalError::GroupTooLarge { bytes: bytes.len(), limit: GROUP_BYTES_MAX });
        }
        let before = self.states.get(name).map_or(0, |held| name.len() + held.bytes.len());
        if before == 0 && room.groups == 0 && !group.is_empty() {
            return Err(EvalError::TooManyGroups { limit: room.groups_max });
        }
        if (name.len() + bytes.len()).saturating_sub(before) > room.bytes {
            return Err(EvalError::TooMuchState { limit: room.bytes_max });
        }
        self.store(plan, name, group, bytes);
        Ok(())
    }

    fn store(&mut self, plan: &Plan, name: &Arc<str>, group: &Group, bytes: Vec<u8>) {
        if group.is_empty() {
            return self.forget(name);
        }
        if self.states.get(name).is_some_and(|held| *held.bytes == *bytes) {
            return;
        }
        self.forget(name);
        let deadline_ms = plan.deadline(group).unwrap_or(NEVER);
        self.bytes += name.len() + bytes.len();
        self.changed_bytes += name.len() + bytes.len();
        self.states.insert(name.clone(), Held { bytes: bytes.into(), deadline_ms });
        self.changed.insert(name.clone());
        if deadline_ms != NEVER {
            self.timers.insert((deadline_ms, name.clone()));
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        if let Some(held) = self.states.remove(name) {
            self.bytes -= name.len() + held.bytes.len();
            self.timers.remove(&(held.deadline_ms, name.clone()));
            self.changed.insert(name.clone());
        }
    }

    /// A state that was kept under `key`, or that it was removed.
    pub fn restore(&mut self, key: &str, state: Option<&[u8]>) -> Result<(), EvalError> {
        if key == WATERMARK {
            self.watermark = state.map_or(Ok(Watermark::default()), Watermark::read)?;
            return Ok(());
        }
        self.armed = false;
        if let Some((name, held)) = self.states.remove_entry(key) {
            self.bytes -= name.len() + held.bytes.len();
            self.timers.remove(&(held.deadline_ms, name));
        }
        if let Some(state) = state {
            Group::read(state)?;
            self.bytes += key.len() + state.len();
            self.states.insert(key.into(), Held { bytes: state.into(), deadline_ms: NEVER });
        }
        Ok(())
    }

    /// Finds out when restored groups have something to do.
    fn arm(&mut self, plan: &Plan) {
        if self.armed {
            return;
        }
        self.armed = true;
        self.patient = plan.is_pattern();
        for (name, held) in &mut self.states {
            // Restored states have been read once: this one can be.
            let deadline = Group::read(&held.bytes).ok().and_then(|group| plan.deadline(&group));
            held.deadline_ms = deadline.unwrap_or(NEVER);
            if held.deadline_ms != NEVER {
                self.timers.insert((held.deadline_ms, name.clone()));
            }
        }
    }

    /// How many [`Groups::changes`] there are, and their bytes at most.
    pub fn changed(&self) -> (usize, usize) {
        (self.changed.len(), self.changed_bytes)
    }

    /// The states that have changed, by their keys, to be kept with the rows; `None`: removed. They count as kept.
    pub fn changes(&mut self) -> BTreeMap<Arc<str>, Option<Vec<u8>>> {
        let changed = std::mem::take(&mut self.changed);
        self.changed_bytes = 0;
        let state = |name: &str| match name {
            WATERMARK => Some(self.watermark.to_bytes()),
            name => self.states.get(name).map(|held| held.bytes.to_vec()),
        };
        changed.into_iter().map(|name| (name.clone(), state(&name))).collect()
    }

    /// The keys of all that is kept, or was before the last changes; some may come twice.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        // That of a pattern is not kept: its messages tell it again.
        let watermark = (self.watermark != Watermark::default() && !self.patient).then_some(WATERMARK);
        self.states.keys().chain(&self.changed).map(|name| &**name).chain(watermark)
    }
}

/// A kept state without the windows that are over at `now_ms`, and these.
fn closed(plan: &Plan, state: &[u8], now_ms: u64) -> Result<(Group, Vec<Closed>), EvalError> {
    let mut group = Group::read(state)?;
    let rows = plan.close(&mut group, now_ms)?;
    Ok((group, rows))
}

/// Takes a message, by its order and hops, into its group; the rows that it makes by being late.
fn take(
    plan: &Plan,
    group: &mut Group,
    input: &Input,
    (order, hops): (u64, u32),
    now_ms: u64,
    taken: &mut Taken,
) -> Result<Vec<Closed>, EvalError> {
    let message = || -> Result<Pane, EvalError> {
        let totals = plan.kinds().zip(&input.values);
        let totals = totals.map(|(kind, value)| Total::of(kind, value, input.time_ms, order));
        let (start_ms, last_ms) = (input.time_ms, input.time_ms);
        Ok(Pane { start_ms, last_ms, hops, totals: totals.collect::<Result<_, _>>()? })
    };
    let late_rows = match &plan.machine {
        Machine::Panes(panes) => {
            group.closed_to_ms = group.closed_to_ms.max(now_ms);
            let (late_rows, late) = panes.take(plan, group, &message()?, now_ms)?;
            taken.late = late;
            late_rows
        }
        Machine::Sessions(sessions) => {
            let (late_rows, late) = sessions.take(plan, group, &message()?, now_ms)?;
            taken.late = late;
            late_rows
        }
        Machine::Pattern(pattern) => {
            taken.turned = pattern.take(group, &input.turn, now_ms)?;
            Vec::new()
        }
    };
    Ok(late_rows)
}

impl Plan {
    fn close(&self, group: &mut Group, watermark_ms: u64) -> Result<Vec<Closed>, EvalError> {
        match &self.machine {
            Machine::Panes(panes) => panes.close(self, group, watermark_ms),
            Machine::Sessions(sessions) => sessions.close(self, group, watermark_ms),
            Machine::Pattern(_) => {
                Pattern::forget(group, watermark_ms);
                Ok(Vec::new())
            }
        }
    }

    fn deadline(&self, group: &Group) -> Option<u64> {
        match &self.machine {
            Machine::Panes(panes) => panes.deadline(group),
            Machine::Sessions(sessions) => sessions.deadline(group),
            Machine::Pattern(_) => Pattern::deadline(group),
        }
    }
}
