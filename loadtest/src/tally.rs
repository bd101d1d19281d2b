//! What a worker counts, second by second, and how that is handed to the controller: one JSON object a line.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::cpu_us;

/// Longest latency recorded, in microseconds; longer ones count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Kinds of errors told apart; further ones are counted as "other".
const ERRORS_MAX: usize = 50;

/// Declares counters once: the struct, and how two are added.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened in a second, or in all.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),* }

        impl Counts {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    connects,
    connect_failures,
    connections_lost,
    /// Sessions that were to last and that the server had not when their devices came back.
    sessions_lost,
    /// Messages the schedule asked for.
    due,
    sent,
    acknowledged,
    refused,
    /// Due and never sent.
    unsent,
    /// Sent, and without an answer at the end.
    unacknowledged,
    received,
    answered,
}

/// A distribution of times, in microseconds, to three digits.
pub struct Latency(Histogram<u64>);

/// The same on its way: values, and how often each.
pub type Buckets = Vec<(u64, u64)>;

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds are valid"))
    }
}

impl Latency {
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    pub fn add(&mut self, buckets: &Buckets) {
        for (us, count) in buckets {
            self.0.saturating_record_n(*us, *count);
        }
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Buckets {
        let buckets = self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        self.0.reset();
        buckets
    }

    /// In seconds; `None` where nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// In seconds; `None` where nothing was recorded.
    pub fn max(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64 / 1e6)
    }
}

/// One second of one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Which one, since the start of the run.
    pub second: u64,
    pub counts: Counts,
    /// Connections at its end.
    pub connected: u64,
    pub connect: Buckets,
    pub ack: Buckets,
    pub end_to_end: Buckets,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Resident memory of the worker now, and before it had devices.
    pub memory_bytes: u64,
    pub memory_before_bytes: u64,
    /// Processor time of the worker's one thread since it started; 0 where the system does not say.
    pub cpu_us: u64,
    /// Whether this is the worker's last.
    pub is_last: bool,
}

/// Counts that go on.
#[derive(Default)]
pub struct Tally {
    pub counts: Counts,
    pub connected: u64,
    pub connect: Latency,
    pub ack: Latency,
    pub end_to_end: Latency,
    errors: BTreeMap<String, u64>,
    memory_before_bytes: u64,
}

impl Tally {
    /// Begins to count, before there are devices.
    pub fn start() -> Self {
        Self { memory_before_bytes: memory_bytes(), ..Self::default() }
    }

    /// Counts one failure by its cause.
    pub fn error(&mut self, cause: String) {
        let is_full = self.errors.len() >= ERRORS_MAX && !self.errors.contains_key(&cause);
        *self.errors.entry(if is_full { "other".to_owned() } else { cause }).or_default() += 1;
    }

    /// Takes out what has gathered.
    pub fn drain(&mut self, second: u64, is_last: bool) -> Second {
        Second {
            second,
            counts: std::mem::take(&mut self.counts),
            connected: self.connected,
            connect: self.connect.drain(),
            ack: self.ack.drain(),
            end_to_end: self.end_to_end.drain(),
            errors: std::mem::take(&mut self.errors),
            memory_bytes: memory_bytes(),
            memory_before_bytes: self.memory_before_bytes,
            cpu_us: cpu_us().unwrap_or(0),
            is_last,
        }
    }
}

/// Resident memory of this process; 0 where the system does not say.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_of_two_workers_merge_to_that_of_one() {
        let (mut first, mut second, mut both, mut merged) =
            (Latency::default(), Latency::default(), Latency::default(), Latency::default());
        for us in 1..=10_000 {
            if us % 3 == 0 {
                first.record(us)
            } else {
                second.record(us)
            }
            both.record(us);
        }
        for part in [first.drain(), second.drain()] {
            merged.add(&part);
        }
        for quantile in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(merged.quantile(quantile), both.quantile(quantile));
        }
        assert_eq!((first.quantile(0.5), merged.max()), (None, both.max()));
    }

    #[test]
    fn kinds_of_errors_are_bounded_and_none_is_lost() {
        let mut tally = Tally::default();
        (0..ERRORS_MAX + 20).for_each(|number| tally.error(format!("cause {number}")));
        let errors = tally.drain(0, true).errors;
        assert_eq!((errors.len(), errors["other"]), (ERRORS_MAX + 1, 20));
        assert!(tally.drain(1, true).errors.is_empty());
    }
}
