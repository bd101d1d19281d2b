//! What the books say of one world.

use std::fmt;

use drover_bus::Partition;
use drover_load::ledger::Verdict;

/// The rule's outputs, which appear exactly once and in order; what it has published again, and what the subscriber has got,
/// both at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub rule: Verdict,
    pub republished: Verdict,
    /// Messages that came more than once, or behind a later one, are no fault here.
    pub subscriber: Verdict,
    /// How often the subscriber's session was gone when it came back.
    pub forgotten: usize,
    /// What was broken, and when: virtual milliseconds since the world began.
    pub faults: Vec<(u64, &'static str)>,
    /// The rule's outputs in the order of the log: partition, device, number of the message.
    pub rows: Vec<(Partition, String, u64)>,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        let came = |verdict: &Verdict| verdict.lost.count + verdict.unexpected.count == 0;
        self.rule.is_clean() && came(&self.republished) && came(&self.subscriber) && self.forgotten == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, republished, subscriber, forgotten, .. } = self;
        write!(f, "rule: {rule}; republished: {republished}; subscriber: {subscriber}")?;
        if *forgotten > 0 { write!(f, "; session forgotten {forgotten} times") } else { Ok(()) }
    }
}
