//! The names of what a run measures, with their units: thresholds, reports and comparisons speak of these.

/// What a metric's number means. Base units: seconds, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    PerSecond,
    /// From 0 to 1.
    Share,
    Seconds,
    Bytes,
    Cores,
}

impl Unit {
    /// A value as people read it.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::Share => format!("{:.3} %", value * 100.0),
            Self::Cores => format!("{value:.2} cores"),
            Self::Seconds if value < 1e-3 => format!("{:.0} µs", value * 1e6),
            Self::Seconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes if value < 10_240.0 => format!("{value:.0} B"),
            Self::Bytes if value < 10_485_760.0 => format!("{:.1} KiB", value / 1_024.0),
            Self::Bytes => format!("{:.1} MiB", value / 1_048_576.0),
        }
    }
}

/// Every metric: its name, unit and meaning.
pub const METRICS: &[(&str, Unit, &str)] = &[
    ("devices", Unit::Count, "devices of the scenario"),
    ("connects", Unit::Count, "connections made"),
    ("connected_max", Unit::Count, "most connections at once"),
    ("connect_failures", Unit::Count, "attempts to connect that failed"),
    ("connections_lost", Unit::Count, "connections that the other side ended"),
    ("sessions_lost", Unit::Count, "sessions to be kept that the server had not when their devices came back"),
    ("connect_p50", Unit::Seconds, "from when a connection was due to its CONNACK"),
    ("connect_p99", Unit::Seconds, ""),
    ("connect_max", Unit::Seconds, ""),
    ("due", Unit::Count, "messages that the schedule asked for"),
    ("sent", Unit::Count, "messages written, without repetitions"),
    ("acknowledged", Unit::Count, "messages acknowledged; at QoS 0 written"),
    ("acknowledged_share", Unit::Share, "acknowledged of those due"),
    ("refused", Unit::Count, "messages and subscriptions that the server refused"),
    ("unsent", Unit::Count, "messages that were due and not sent: the device's queue was full, or time was up"),
    ("unacknowledged", Unit::Count, "messages without an answer at the end"),
    ("publish_rate", Unit::PerSecond, "acknowledged a second, over the time from the first to the last"),
    ("ack_p50", Unit::Seconds, "from when a message was due to its acknowledgement; without one, to the end"),
    ("ack_p95", Unit::Seconds, ""),
    ("ack_p99", Unit::Seconds, ""),
    ("ack_p999", Unit::Seconds, ""),
    ("ack_max", Unit::Seconds, ""),
    ("received", Unit::Count, "messages that subscribers got"),
    ("end_to_end_p50", Unit::Seconds, "from when a message was due to its arrival at a subscriber"),
    ("end_to_end_p99", Unit::Seconds, ""),
    ("end_to_end_max", Unit::Seconds, ""),
    ("answered", Unit::Count, "commands and wishes that devices answered"),
    ("errors", Unit::Count, "failures to connect, connections lost, messages refused or unsent"),
    ("storm_recovery_max", Unit::Seconds, "from the end of an outage until as many are connected as before"),
    ("server_memory_max", Unit::Bytes, "most memory of the server"),
    ("server_memory_growth", Unit::Bytes, "of the server, from the first quarter of the run to its last"),
    ("server_descriptors_max", Unit::Count, "most open descriptors of the server"),
    ("server_descriptors_growth", Unit::Count, "of the server, from the first quarter of the run to its last"),
    ("server_cpu", Unit::Cores, "processor time of the server a second"),
    ("generator_memory_max", Unit::Bytes, "memory of all workers"),
    ("generator_memory_per_connection", Unit::Bytes, "growth of the workers over their connections"),
    ("generator_cpu", Unit::Cores, "processor time of the workers a second"),
    ("ledger_lost", Unit::Count, "acknowledged and missing at a consumer"),
    ("ledger_doubled", Unit::Count, "twice at a consumer that is promised each once"),
    ("ledger_reordered", Unit::Count, "behind a later message of the same device"),
    ("ledger_unexpected", Unit::Count, "never sent, but there"),
    ("ledger_misversioned", Unit::Count, "changes of a shadow whose version is not the one after that before"),
];

/// A metric's unit; `None` if there is no such metric.
pub fn unit(name: &str) -> Option<Unit> {
    METRICS.iter().find(|(metric, ..)| *metric == name).map(|(_, unit, _)| *unit)
}

pub fn names() -> Vec<&'static str> {
    METRICS.iter().map(|(name, ..)| *name).collect()
}
