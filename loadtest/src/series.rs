//! What all workers and the server tell, put together: totals, distributions, and a point for each second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::Storm;
use crate::tally::{Counts, Latency, Second};

/// Seconds that a worker may be behind before its second counts as empty.
const LATE_SECONDS_MAX: u64 = 5;

/// One second of the run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Point {
    pub second: u64,
    pub counts: Counts,
    pub connected: u64,
    /// Latencies in seconds; absent where nothing was measured.
    pub ack_p50: Option<f64>,
    pub ack_p99: Option<f64>,
    pub end_to_end_p50: Option<f64>,
    pub end_to_end_p99: Option<f64>,
    pub server_memory_bytes: Option<f64>,
    pub server_descriptors: Option<f64>,
    /// Cores in use since the point before that was measured.
    pub server_cores: Option<f64>,
}

/// One second while it is not complete.
#[derive(Default)]
struct Gathering {
    counts: Counts,
    ack: Latency,
    end_to_end: Latency,
    connected: BTreeMap<u64, u64>,
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug)]
pub struct ServerSample {
    pub memory_bytes: f64,
    /// Open descriptors; not every server tells.
    pub descriptors: Option<f64>,
    /// Since it started.
    pub cpu_seconds: f64,
}

/// Everything so far.
#[derive(Default)]
pub struct Series {
    pub counts: Counts,
    pub connect: Latency,
    pub ack: Latency,
    pub end_to_end: Latency,
    pub errors: BTreeMap<String, u64>,
    pub points: Vec<Point>,
    /// Of each bound of the scenario, the highest value that the server has told.
    pub highest: Vec<Option<f64>>,
    gathering: BTreeMap<u64, Gathering>,
    connected: BTreeMap<u64, u64>,
    server: Option<(u64, ServerSample)>,
    /// Of seconds that are not closed: what the server has said, and its cores in use.
    samples: BTreeMap<u64, (ServerSample, Option<f64>)>,
    /// Of each worker: memory before it had devices, most memory, most connections, processor time.
    workers: BTreeMap<u64, WorkerCost>,
    cores: Vec<f64>,
}

#[derive(Clone, Copy, Default)]
struct WorkerCost {
    memory_before: u64,
    memory_max: u64,
    connected: u64,
    connected_max: u64,
    cpu_us: u64,
}

impl Series {
    /// Takes in what a worker tells.
    pub fn worker(&mut self, worker: u64, told: &Second) {
        self.counts.add(&told.counts);
        self.connect.add(&told.connect);
        self.ack.add(&told.ack);
        self.end_to_end.add(&told.end_to_end);
        for (error, count) in &told.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        let cost = self.workers.entry(worker).or_default();
        cost.memory_before = told.memory_before_bytes;
        cost.memory_max = cost.memory_max.max(told.memory_bytes);
        cost.connected = told.connected;
        cost.connected_max = cost.connected_max.max(told.connected);
        cost.cpu_us = told.cpu_us;

        let gathering = self.gathering.entry(told.second).or_default();
        gathering.counts.add(&told.counts);
        gathering.ack.add(&told.ack);
        gathering.end_to_end.add(&told.end_to_end);
        gathering.connected.insert(worker, told.connected);
        while let Some(first) = self.gathering.first_entry()
            && first.key() + LATE_SECONDS_MAX < told.second
        {
            let (second, gathering) = first.remove_entry();
            self.close(second, gathering);
        }
    }

    /// Takes in what the server says `at_us` microseconds after the start.
    pub fn server(&mut self, at_us: u64, sample: ServerSample) {
        let before = self.server.replace((at_us, sample));
        let cores = before.and_then(|(at, before)| {
            // A server that started again counts from nothing.
            let used = sample.cpu_seconds - before.cpu_seconds;
            (used >= 0.0 && at_us > at).then(|| used / ((at_us - at) as f64 / 1e6))
        });
        self.cores.extend(cores);
        self.samples.insert(at_us / 1_000_000, (sample, cores));
    }

    /// Takes in what the server says about each bound of the scenario.
    pub fn bounds(&mut self, values: &[Option<f64>]) {
        self.highest.resize(values.len(), None);
        for (highest, value) in self.highest.iter_mut().zip(values) {
            if *value > *highest {
                *highest = *value;
            }
        }
    }

    fn close(&mut self, second: u64, gathering: Gathering) {
        self.connected.extend(gathering.connected);
        let sample = self.samples.remove(&second);
        self.points.push(Point {
            second,
            counts: gathering.counts,
            connected: self.connected.values().sum(),
            ack_p50: gathering.ack.quantile(0.5),
            ack_p99: gathering.ack.quantile(0.99),
            end_to_end_p50: gathering.end_to_end.quantile(0.5),
            end_to_end_p99: gathering.end_to_end.quantile(0.99),
            server_memory_bytes: sample.map(|(sample, _)| sample.memory_bytes),
            server_descriptors: sample.and_then(|(sample, _)| sample.descriptors),
            server_cores: sample.and_then(|(_, cores)| cores),
        });
    }

    /// Connections now, as the workers have told last.
    pub fn connected_now(&self) -> u64 {
        self.workers.values().map(|worker| worker.connected).sum()
    }

    /// Closes the seconds that are open: everybody has told all.
    pub fn end(&mut self) {
        for (second, gathering) in std::mem::take(&mut self.gathering) {
            self.close(second, gathering);
        }
    }

    /// Every metric that there is a value for, by the names of `metrics::METRICS`.
    pub fn metrics(&self, devices: u64, storms: &[Storm]) -> BTreeMap<String, f64> {
        let counts = &self.counts;
        let count = |value: u64| Some(value as f64);
        let workers = || self.workers.values();
        let connections: u64 = workers().map(|worker| worker.connected_max).sum();
        let growth: u64 = workers().map(|worker| worker.memory_max.saturating_sub(worker.memory_before)).sum();
        let seconds = self.points.last().map_or(0, |point| point.second + 1) as f64;
        let errors = counts.connect_failures + counts.connections_lost + counts.refused + counts.unsent;
        let (memory_max, memory_growth) = self.most_and_growth(|point| point.server_memory_bytes);
        let (descriptors_max, descriptors_growth) = self.most_and_growth(|point| point.server_descriptors);
        let values = [
            ("devices", count(devices)),
            ("connects", count(counts.connects)),
            ("connected_max", count(self.points.iter().map(|point| point.connected).max().unwrap_or(0))),
            ("connect_failures", count(counts.connect_failures)),
            ("connections_lost", count(counts.connections_lost)),
            ("sessions_lost", count(counts.sessions_lost)),
            ("connect_p50", self.connect.quantile(0.5)),
            ("connect_p99", self.connect.quantile(0.99)),
            ("connect_max", self.connect.max()),
            ("due", count(counts.due)),
            ("sent", count(counts.sent)),
            ("acknowledged", count(counts.acknowledged)),
            ("acknowledged_share", ratio(counts.acknowledged as f64, counts.due as f64)),
            ("refused", count(counts.refused)),
            ("unsent", count(counts.unsent)),
            ("unacknowledged", count(counts.unacknowledged)),
            ("publish_rate", self.publish_rate()),
            ("ack_p50", self.ack.quantile(0.5)),
            ("ack_p95", self.ack.quantile(0.95)),
            ("ack_p99", self.ack.quantile(0.99)),
            ("ack_p999", self.ack.quantile(0.999)),
            ("ack_max", self.ack.max()),
            ("received", count(counts.received)),
            ("end_to_end_p50", self.end_to_end.quantile(0.5)),
            ("end_to_end_p99", self.end_to_end.quantile(0.99)),
            ("end_to_end_max", self.end_to_end.max()),
            ("answered", count(counts.answered)),
            ("errors", count(errors)),
            ("storm_recovery_max", self.storm_recovery(storms)),
            ("server_memory_max", memory_max),
            ("server_memory_growth", memory_growth),
            ("server_descriptors_max", descriptors_max),
            ("server_descriptors_growth", descriptors_growth),
            ("server_cpu", ratio(self.cores.iter().sum(), self.cores.len() as f64)),
            ("generator_memory_max", count(workers().map(|worker| worker.memory_max).sum())),
            ("generator_memory_per_connection", ratio(growth as f64, connections as f64)),
            ("generator_cpu", ratio(workers().map(|worker| worker.cpu_us).sum::<u64>() as f64 / 1e6, seconds)),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Acknowledgements a second between the first and the last second that had any.
    fn publish_rate(&self) -> Option<f64> {
        let mut with_any = self.points.iter().filter(|point| point.counts.acknowledged > 0).map(|point| point.second);
        let first = with_any.next()?;
        let last = with_any.next_back().unwrap_or(first);
        ratio(self.counts.acknowledged as f64, (last - first + 1) as f64)
    }

    /// The most of a value, and by how much the most of its last quarter is above that of the first.
    fn most_and_growth(&self, value: fn(&Point) -> Option<f64>) -> (Option<f64>, Option<f64>) {
        let known: Vec<f64> = self.points.iter().filter_map(value).collect();
        let most = |part: &[f64]| part.iter().copied().reduce(f64::max);
        let quarter = known.len().div_ceil(4);
        let (first, last) = (most(&known[..quarter]), most(&known[known.len() - quarter..]));
        (most(&known), last.zip(first).map(|(last, first)| last - first))
    }

    /// The longest of all storms until as many are connected as before; absent without storms, or where they never are.
    fn storm_recovery(&self, storms: &[Storm]) -> Option<f64> {
        let recovered = |storm: &Storm| {
            let (at, back) = (storm.at.us() / 1_000_000, (storm.at.us() + storm.away.us()).div_ceil(1_000_000));
            let before = self.points.iter().filter(|point| point.second < at).map(|point| point.connected).max()?;
            let whole = self.points.iter().find(|point| point.second >= back && point.connected >= before)?;
            Some((whole.second + 1 - back) as f64)
        };
        let all: Option<Vec<f64>> = storms.iter().map(recovered).collect();
        all?.into_iter().reduce(f64::max)
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    fn second(second: u64, connected: u64, acknowledged: u64) -> Second {
        let counts = Counts { acknowledged, due: 10, ..Counts::default() };
        Second { second, counts, connected, ack: vec![(1_000 * (second + 1), acknowledged)], ..Second::default() }
    }

    #[test]
    fn workers_are_added_up_second_by_second_and_a_late_one_is_waited_for() {
        let mut series = Series::default();
        for at in 0..4 {
            series.worker(0, &second(at, 3, 10));
        }
        for at in 0..4 {
            series.worker(1, &second(at, 4, 5));
        }
        series.end();
        let told: Vec<_> = series.points.iter().map(|p| (p.second, p.connected, p.counts.acknowledged)).collect();
        assert_eq!(told, [(0, 7, 15), (1, 7, 15), (2, 7, 15), (3, 7, 15)]);
        let metrics = series.metrics(7, &[]);
        assert_eq!((metrics["acknowledged"], metrics["publish_rate"], metrics["connected_max"]), (60.0, 15.0, 7.0));
        assert!((metrics["ack_max"] - 0.004).abs() < 1e-4, "{}", metrics["ack_max"]);
        assert!(!metrics.contains_key("end_to_end_p50") && !metrics.contains_key("storm_recovery_max"));
    }

    #[test]
    fn a_storm_is_over_when_as_many_are_connected_as_before() {
        let mut series = Series::default();
        for (at, connected) in [(0, 5), (1, 10), (2, 0), (3, 0), (4, 4), (5, 10)] {
            series.worker(0, &second(at, connected, 0));
        }
        series.end();
        let storm = Storm {
            at: Span::from_secs(2),
            away: Span::from_secs(2),
            over: Span::default(),
            half_open: false,
            fleets: Vec::new(),
        };
        assert_eq!(series.metrics(10, std::slice::from_ref(&storm)).get("storm_recovery_max"), Some(&2.0));
        series.points.pop();
        assert_eq!(series.metrics(10, &[storm]).get("storm_recovery_max"), None);
    }

    #[test]
    fn the_highest_value_of_each_bound_stays() {
        let mut series = Series::default();
        for values in [[Some(1.0), None, None], [Some(3.0), Some(0.0), None], [None, Some(2.0), None]] {
            series.bounds(&values);
        }
        assert_eq!(series.highest, [Some(3.0), Some(2.0), None]);
    }

    #[test]
    fn memory_and_descriptors_of_the_server_grow_from_the_first_quarter_to_the_last() {
        let mut series = Series::default();
        for (at, bytes) in [100.0, 120.0, 110.0, 150.0].into_iter().enumerate() {
            let descriptors = (at > 0).then_some(bytes / 10.0);
            let sample = ServerSample { memory_bytes: bytes, descriptors, cpu_seconds: at as f64 / 2.0 };
            series.server(at as u64 * 1_000_000, sample);
        }
        // Workers tell of a second when it is over.
        (0..4).for_each(|at| series.worker(0, &second(at, 1, 0)));
        series.end();
        let told: Vec<_> = series.points.iter().map(|point| point.server_memory_bytes).collect();
        assert_eq!(told, [Some(100.0), Some(120.0), Some(110.0), Some(150.0)]);
        let metrics = series.metrics(1, &[]);
        assert_eq!((metrics["server_memory_max"], metrics["server_memory_growth"]), (150.0, 50.0));
        assert_eq!((metrics["server_descriptors_max"], metrics["server_descriptors_growth"]), (15.0, 3.0));
        assert!((metrics["server_cpu"] - 0.5).abs() < 1e-9);
    }
}
