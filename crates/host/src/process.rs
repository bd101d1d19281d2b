//! Metrics of the process itself, read from the kernel whenever somebody asks.
//!
//! Names are those every Prometheus client uses for them, so that common dashboards work.

use std::fs;

use drover_types::Clock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::Metrics;

/// Descriptors the process has open, and how many it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    pub open: u64,
    pub most: u64,
}

/// Reads the kernel's figures. `None` for what this kernel does not tell.
pub fn descriptors() -> Option<Descriptors> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(Descriptors { open: u64::try_from(open).ok()?, most: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) })
}

/// Memory the process holds in RAM, in bytes.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Processor time of all threads, in seconds.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
        .as_secs_f64()
}

#[derive(Debug)]
struct ProcessCollector {
    /// Seconds since the Unix epoch.
    started: f64,
}

/// Adds the process's own metrics; to be called once, at its start.
pub fn register(metrics: &Metrics, clock: &dyn Clock) {
    let started = std::time::Duration::from_millis(clock.now_ms()).as_secs_f64();
    metrics.register(|registry| registry.register_collector(Box::new(ProcessCollector { started })));
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, unit: Option<&Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        gauge("process_start_time", "Start, since the Unix epoch", Some(&Unit::Seconds), self.started)?;
        if let Some(resident) = resident_bytes() {
            gauge("process_resident_memory", "Memory held in RAM", Some(&Unit::Bytes), resident as f64)?;
        }
        if let Some(descriptors) = descriptors() {
            gauge("process_open_fds", "Open descriptors", None, descriptors.open as f64)?;
            gauge("process_max_fds", "Descriptors the process may open", None, descriptors.most as f64)?;
        }
        let cpu = ConstCounter::new(cpu_seconds());
        let help = "Processor time of all threads";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)
    }
}
