//! What came of a run of the generator, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub clients: usize,
    pub idle: usize,
    pub subscribers: usize,
    /// Clients that got as far as a CONNACK.
    pub connected: usize,
    /// Time of publishing, in seconds; at QoS 1 up to the last acknowledgement.
    pub seconds: f64,
    pub sent: u64,
    /// At a pace: messages that were due while the window of their client was full, and were not sent.
    pub skipped: u64,
    /// QoS 1: positive acknowledgements. QoS 0: messages known to be read, because a later ping was answered.
    pub acknowledged: u64,
    /// QoS 1: acknowledgements with an error code.
    pub refused: u64,
    pub messages_per_second: f64,
    /// Messages that all subscribers together got, and how many a second until the last came.
    pub delivered: u64,
    pub delivered_per_second: f64,
    /// Publish, or at a pace when it was due, to acknowledgement, in microseconds; 0 at QoS 0.
    pub ack_p50_us: u64,
    pub ack_p99_us: u64,
    pub ack_max_us: u64,
    /// CPU time of this process per acknowledged message, in microseconds; absent where the system does not say.
    pub generator_us_per_message: Option<f64>,
    /// Why clients stopped early, and how many.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Why clients stopped early, and what was not sent in its time, in one line; `None`: neither happened.
    pub fn failure(&self) -> Option<String> {
        let errors: Vec<String> = self.errors.iter().map(|(error, count)| format!("{count} × {error}")).collect();
        let stopped = self.errors.values().sum::<u64>();
        let stopped = (stopped > 0).then(|| format!("{stopped} clients stopped early: {}", errors.join(", ")));
        let skipped = (self.skipped > 0).then(|| format!("{} messages were due while a window was full", self.skipped));
        let told: Vec<String> = stopped.into_iter().chain(skipped).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, idle, subscribers, connected, .. } = self;
        let all = clients + idle + subscribers;
        write!(f, "connected      {connected} of {all} clients: {clients} publishing, {idle} idle")?;
        match subscribers {
            0 => writeln!(f)?,
            _ => writeln!(f, ", {subscribers} subscribed to everything")?,
        }
        write!(f, "sent           {} in {:.1} s", self.sent, self.seconds)?;
        match self.skipped {
            0 => writeln!(f)?,
            skipped => writeln!(f, ", {skipped} skipped as a window was full")?,
        }
        writeln!(
            f,
            "acknowledged   {} ({:.0} msg/s), {} refused",
            self.acknowledged, self.messages_per_second, self.refused
        )?;
        if *subscribers > 0 {
            writeln!(f, "delivered      {} ({:.0} msg/s)", self.delivered, self.delivered_per_second)?;
        }
        writeln!(
            f,
            "ack latency    p50 {} µs, p99 {} µs, max {} µs",
            self.ack_p50_us, self.ack_p99_us, self.ack_max_us
        )?;
        if let Some(cost) = self.generator_us_per_message {
            writeln!(f, "generator cpu  {cost:.2} µs a message")?;
        }
        write!(f, "errors         {}", self.errors.values().sum::<u64>())?;
        for (error, count) in &self.errors {
            write!(f, "\n  {count} × {error}")?;
        }
        Ok(())
    }
}
