//! What every turn of every object works with.

use std::sync::{Arc, Mutex, PoisonError};

use drover_types::{Clock, Random};
use kube::Client;

use super::device::Settled;
use super::events::Events;
use super::memory::Memory;
use crate::config::OperatorConfig;
use crate::ports::{Registry, RuleRuns, Shadows};
use crate::telemetry::Telemetry;

/// Writes of status that may be made at once after a quiet time, in seconds of the rate.
const BURST_SECONDS: f64 = 2.0;

/// What a context is made of.
pub struct Parts {
    pub client: Client,
    /// Name of this process in its Events.
    pub identity: String,
    pub config: OperatorConfig,
    pub registry: Arc<dyn Registry>,
    pub shadows: Arc<dyn Shadows>,
    pub rules: Arc<dyn RuleRuns>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub telemetry: Telemetry,
}

/// Shared by all controllers.
pub struct Context {
    pub client: Client,
    pub config: OperatorConfig,
    pub registry: Arc<dyn Registry>,
    pub shadows: Arc<dyn Shadows>,
    pub rules: Arc<dyn RuleRuns>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub telemetry: Telemetry,
    pub events: Events,
    /// Failures of an object since it last went well.
    pub(super) failures: Memory<u32>,
    /// Refusals of an object since it last went well, and the generation they are of.
    pub(super) refusals: Memory<(i64, u32)>,
    /// Devices of which everything is as declared.
    pub(super) settled: Memory<Settled>,
    /// When an object was first seen to be going, milliseconds since the Unix epoch.
    pub(super) going: Memory<u64>,
    /// When the status of a rule was last written, milliseconds since the Unix epoch; that of a device says so itself.
    pub(super) written: Memory<u64>,
    writes: Mutex<Bucket>,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        let Parts { client, identity, config, registry, shadows, rules, clock, random, telemetry } = parts;
        let rate = f64::from(config.status_writes_per_second);
        let writes = Mutex::new(Bucket { rate, tokens: rate * BURST_SECONDS, filled_ms: clock.now_ms() });
        let events = Events::new(client.clone(), identity);
        Self {
            client,
            config,
            registry,
            shadows,
            rules,
            clock,
            random,
            telemetry,
            events,
            failures: Memory::default(),
            refusals: Memory::default(),
            settled: Memory::default(),
            going: Memory::default(),
            written: Memory::default(),
            writes,
        }
    }

    /// Forgets what was so of an object that goes; its failures count until it is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.refusals.forget(uid);
        self.settled.forget(uid);
        self.written.forget(uid);
    }

    /// Whether a status that is not about the spec may be written now, by the rate of all of them.
    pub fn may_write(&self) -> bool {
        let may = self.writes.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now_ms());
        if !may {
            self.telemetry.status_deferred();
        }
        may
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    /// Tokens a second.
    rate: f64,
    tokens: f64,
    filled_ms: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64) -> bool {
        let passed_s = now_ms.saturating_sub(self.filled_ms) as f64 / 1000.0;
        self.tokens = (self.tokens + passed_s * self.rate).min(self.rate * BURST_SECONDS);
        self.filled_ms = now_ms;
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_bounded_by_the_rate_and_a_burst() {
        let mut bucket = Bucket { rate: 5.0, tokens: 10.0, filled_ms: 0 };
        let mut taken = |now_ms| (0..100).filter(|_| bucket.take(now_ms)).count();
        assert_eq!((taken(0), taken(0), taken(1_000), taken(60_000)), (10, 0, 5, 10));
    }
}
