//! What a device needs of its worker in its turn: time, alarms, counters, buffers that all devices share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::journal::Journal;
use super::plan::Plan;
use super::socket::Selector;
use crate::clock::Clock;
use crate::tally::Tally;

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    Connect,
    /// A measurement, which may become a message.
    Measure,
    /// A batch of measurements.
    Upload,
    /// The end of a connection that comes and goes.
    Leave,
    /// The end of what a slow network does to bytes.
    Through,
}

/// Alarms by time. A device has at most one of each kind but `Connect` and `Through`: one for each lost connection, and for each
/// write that is under way.
#[derive(Default)]
pub struct Timers(BinaryHeap<Reverse<(u64, u32, Alarm)>>);

impl Timers {
    pub fn set(&mut self, due_us: u64, index: u32, alarm: Alarm) {
        self.0.push(Reverse((due_us, index, alarm)));
    }

    /// The next that is due by `now_us`.
    pub fn take(&mut self, now_us: u64) -> Option<(u64, u32, Alarm)> {
        let Reverse(first) = *self.0.peek()?;
        (first.0 <= now_us).then(|| {
            self.0.pop();
            first
        })
    }

    pub fn next_us(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due_us, ..))| *due_us)
    }
}

/// What devices share.
pub struct Hands {
    pub selector: Selector,
    pub clock: Clock,
    /// Time of this turn, in microseconds since the start.
    pub now_us: u64,
    /// Nothing is published after this.
    pub ends_us: u64,
    pub plans: Vec<Rc<Plan>>,
    pub timers: Timers,
    pub tally: Tally,
    pub journal: Option<Journal>,
    /// What a connection has read in this turn.
    pub input: Vec<u8>,
    /// What a connection is to write at the end of this turn.
    pub output: Vec<u8>,
    /// Connections under way.
    pub connecting: usize,
    /// Devices that have not read all that has come.
    pub again: Vec<u32>,
    pub random: fastrand::Rng,
}

impl Hands {
    /// Now, in microseconds since the start: later than `now_us` where a turn takes its time.
    pub fn refresh(&mut self) {
        self.now_us = self.clock.now_us();
    }

    pub fn is_publishing(&self) -> bool {
        self.now_us < self.ends_us
    }

    /// Writes into the books, if there are any; a full disk ends the worker.
    pub fn book(&mut self, entry: impl FnOnce(&mut Journal) -> std::io::Result<()>) {
        if let Some(journal) = &mut self.journal {
            entry(journal).expect("the ledger's file can be written: without it there is no verdict");
        }
    }
}
