//! Who sent, who acknowledged, who got: the books a promise is checked against.
//!
//! Publishers number the messages of each device. The rule: an acknowledged message arrives exactly once, one sent and
//! not acknowledged at most once, nothing else arrives, and what one device sent arrives in order at each output key.
//! The order is that of the numbers: a device that redelivers sends old numbers again, and the receiver sees each once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// One device's messages: 0, 1, 2, …
#[derive(Clone, Debug, Default)]
struct Device {
    /// How many were sent.
    sent: u64,
    /// Which were acknowledged, by number.
    acknowledged: Vec<bool>,
}

/// A message received, with the output and key it arrived at.
#[derive(Clone, Debug)]
struct Receipt {
    device: String,
    number: u64,
}

/// Where the messages of one output key arrived, in the order of their arrival.
type Outputs = BTreeMap<String, Vec<Receipt>>;

/// The books of one consumer, whose receipts may lie at several output keys. For a second consumer of the same messages
/// clone the books before anything is received.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    devices: BTreeMap<String, Device>,
    outputs: Outputs,
}

impl Ledger {
    /// Numbers the next message of `device` and books it as sent; call it before sending.
    pub fn sent(&mut self, device: &str) -> u64 {
        let device = self.devices.entry(device.to_owned()).or_default();
        device.sent += 1;
        device.acknowledged.push(false);
        device.sent - 1
    }

    /// Books the acknowledgement of a message.
    ///
    /// # Panics
    /// If the message was not sent: the test's own books are wrong.
    pub fn acknowledged(&mut self, device: &str, number: u64) {
        let acknowledged = self.devices.get_mut(device).and_then(|device| device.acknowledged.get_mut(number as usize));
        *acknowledged.unwrap_or_else(|| panic!("message {number} of {device} was acknowledged but not sent")) = true;
    }

    /// Whether a message was booked as sent.
    pub fn was_sent(&self, device: &str, number: u64) -> bool {
        self.devices.get(device).is_some_and(|device| number < device.sent)
    }

    /// Whether `device` has sent anything.
    pub fn knows(&self, device: &str) -> bool {
        self.devices.contains_key(device)
    }

    /// Whether any message of `device` was acknowledged.
    pub fn has_acknowledged(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|device| device.acknowledged.contains(&true))
    }

    /// What some devices have sent, and nothing received.
    pub fn only(&self, is_one: impl Fn(&str) -> bool) -> Self {
        let devices = self.devices.iter().filter(|(name, _)| is_one(name));
        let devices = devices.map(|(name, device)| (name.clone(), device.clone())).collect();
        Self { devices, outputs: Outputs::new() }
    }

    /// Books the arrival of a message at `output`, for instance `topic/key` of a rule's output.
    pub fn received(&mut self, output: &str, device: &str, number: u64) {
        let receipt = Receipt { device: device.to_owned(), number };
        self.outputs.entry(output.to_owned()).or_default().push(receipt);
    }

    /// How many messages were sent, acknowledged and received.
    pub fn totals(&self) -> Totals {
        Totals {
            sent: self.devices.values().map(|device| device.sent).sum(),
            acknowledged: self.devices.values().map(Device::acknowledged_count).sum(),
            received: self.outputs.values().map(|receipts| receipts.len() as u64).sum(),
        }
    }

    /// Compares the books where every message is expected at one output.
    pub fn check(&self) -> Verdict {
        self.check_where(|_, _| true)
    }

    /// Compares the books; a message arrives only if `is_expected(device, number)`, for instance because a rule's
    /// condition holds for it.
    pub fn check_where(&self, is_expected: impl Fn(&str, u64) -> bool) -> Verdict {
        let mut verdict = Verdict { totals: self.totals(), ..Verdict::default() };
        let mut arrivals: HashMap<(&str, u64), u64> = HashMap::new();
        for (output, receipts) in &self.outputs {
            self.check_output(output, receipts, &is_expected, &mut arrivals, &mut verdict);
        }
        for (name, device) in &self.devices {
            for number in 0..device.sent {
                let count = arrivals.get(&(name.as_str(), number)).copied().unwrap_or(0);
                let must_arrive = device.acknowledged[number as usize] && is_expected(name, number);
                if count == 0 && must_arrive {
                    verdict.lost.add(Message { device: name.clone(), number });
                }
            }
        }
        verdict
    }

    /// One output's receipts: unexpected ones, second ones, and those behind a later one of their device.
    fn check_output<'a>(
        &self,
        output: &str,
        receipts: &'a [Receipt],
        is_expected: impl Fn(&str, u64) -> bool,
        arrivals: &mut HashMap<(&'a str, u64), u64>,
        verdict: &mut Verdict,
    ) {
        let mut latest: HashMap<&str, u64> = HashMap::new();
        for Receipt { device, number } in receipts {
            let message = || Message { device: device.clone(), number: *number };
            if !self.was_sent(device, *number) || !is_expected(device, *number) {
                verdict.unexpected.add(message());
                continue;
            }
            let count = arrivals.entry((device, *number)).or_default();
            *count += 1;
            if *count > 1 {
                verdict.doubled.add(message());
                continue;
            }
            let latest = latest.entry(device).or_insert(*number);
            if *number < *latest {
                verdict.reordered.add(Reordered { output: output.to_owned(), message: message(), after: *latest });
            }
            *latest = (*latest).max(*number);
        }
    }
}

impl Device {
    fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().filter(|acknowledged| **acknowledged).count() as u64
    }
}

/// Sums over all devices and outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub acknowledged: u64,
    pub received: u64,
}

/// A message by its device and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub device: String,
    pub number: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.device, self.number)
    }
}

/// A message that arrived behind a later one of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reordered {
    pub output: String,
    pub message: Message,
    /// Highest number that had arrived before.
    pub after: u64,
}

impl fmt::Display for Reordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after #{} at {}", self.message, self.after, self.output)
    }
}

impl AsRef<Message> for Message {
    fn as_ref(&self) -> &Message {
        self
    }
}

impl AsRef<Message> for Reordered {
    fn as_ref(&self) -> &Message {
        &self.message
    }
}

/// Cases of one kind: how many, and the smallest (lowest number, then device) as the counter-example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases<T> {
    pub count: u64,
    pub smallest: Option<T>,
}

impl<T> Default for Cases<T> {
    fn default() -> Self {
        Self { count: 0, smallest: None }
    }
}

impl<T: AsRef<Message>> Cases<T> {
    fn add(&mut self, case: T) {
        fn order<T: AsRef<Message>>(case: &T) -> (u64, &str) {
            let message = case.as_ref();
            (message.number, &message.device)
        }
        self.count += 1;
        if self.smallest.as_ref().is_none_or(|smallest| order(&case) < order(smallest)) {
            self.smallest = Some(case);
        }
    }
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub totals: Totals,
    /// Acknowledged and missing.
    pub lost: Cases<Message>,
    /// Arrivals beyond the first of a message, over all outputs.
    pub doubled: Cases<Message>,
    /// First arrivals behind a later message of the same device at the same output.
    pub reordered: Cases<Reordered>,
    /// Arrivals of messages never sent, or that must not arrive.
    pub unexpected: Cases<Message>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost.count + self.doubled.count + self.reordered.count + self.unexpected.count == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { sent, acknowledged, received } = self.totals;
        write!(f, "{sent} sent, {acknowledged} acknowledged, {received} received")?;
        put_cases(f, "lost", &self.lost)?;
        put_cases(f, "doubled", &self.doubled)?;
        put_cases(f, "reordered", &self.reordered)?;
        put_cases(f, "unexpected", &self.unexpected)
    }
}

fn put_cases<T: fmt::Display>(f: &mut fmt::Formatter<'_>, kind: &str, cases: &Cases<T>) -> fmt::Result {
    match &cases.smallest {
        Some(smallest) => write!(f, "; {} {kind}, smallest: {smallest}", cases.count),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Books with `sent` messages of device `d`, all acknowledged but the last.
    fn books(sent: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for _ in 0..sent {
            ledger.sent("d");
        }
        for number in 0..sent - 1 {
            ledger.acknowledged("d", number);
        }
        ledger
    }

    #[test]
    fn what_arrives_once_and_in_order_is_clean_with_or_without_the_unacknowledged() {
        for arrived in [2, 3] {
            let mut ledger = books(3);
            for number in 0..arrived {
                ledger.received("out/d", "d", number);
            }
            assert!(ledger.check().is_clean(), "{}", ledger.check());
        }
    }

    #[test]
    fn an_acknowledged_message_that_is_missing_is_lost() {
        let mut ledger = books(4);
        ledger.received("out", "d", 1);
        let verdict = ledger.check();
        assert_eq!(verdict.to_string(), "4 sent, 3 acknowledged, 1 received; 2 lost, smallest: d #0");
    }

    #[test]
    fn a_message_that_arrives_twice_is_doubled_also_at_another_output_and_unacknowledged() {
        let mut ledger = books(2);
        for (output, number) in [("a", 0), ("a", 1), ("b", 1), ("a", 0)] {
            ledger.received(output, "d", number);
        }
        let verdict = ledger.check();
        assert_eq!((verdict.doubled.count, verdict.reordered.count), (2, 0));
        assert_eq!(verdict.doubled.smallest.expect("two").number, 0);
    }

    #[test]
    fn order_is_checked_at_each_output_alone() {
        let mut ledger = books(4);
        for (output, number) in [("a", 2), ("b", 0), ("b", 1), ("b", 3)] {
            ledger.received(output, "d", number);
        }
        assert!(ledger.check().is_clean());
        let mut ledger = books(4);
        for number in [0, 2, 1, 3] {
            ledger.received("a", "d", number);
        }
        let verdict = ledger.check();
        assert_eq!(
            verdict.to_string(),
            "4 sent, 3 acknowledged, 4 received; 1 reordered, smallest: d #1 after #2 at a"
        );
    }

    #[test]
    fn what_was_never_sent_or_must_not_arrive_is_unexpected() {
        let mut ledger = books(3);
        for (device, number) in [("d", 0), ("d", 1), ("d", 3), ("e", 0)] {
            ledger.received("out", device, number);
        }
        let verdict = ledger.check_where(|_, number| number != 1);
        assert_eq!((verdict.unexpected.count, verdict.lost.count), (3, 0));
        assert_eq!(verdict.unexpected.smallest.expect("three").to_string(), "e #0");
    }

    /// One thing that happens: a device sends, is acknowledged, or something arrives.
    #[derive(Clone, Debug)]
    enum Step {
        Send(u8),
        Acknowledge(u8, u64),
        Arrive(u8, u8, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u8..2).prop_map(Step::Send),
            (0u8..2, 0u64..6).prop_map(|(device, number)| Step::Acknowledge(device, number)),
            (0u8..2, 0u8..2, 0u64..6).prop_map(|(output, device, number)| Step::Arrive(output, device, number)),
        ];
        prop::collection::vec(step, 0..40)
    }

    /// The rule by its words, comparing every pair.
    fn naive(sent: &[u64; 2], acknowledged: &[(u8, u64)], arrived: &[(u8, u8, u64)]) -> [u64; 4] {
        let expected: Vec<_> = arrived.iter().filter(|(_, device, number)| *number < sent[*device as usize]).collect();
        // Outputs are looked at one after the other, so the first arrival is that at the smallest output.
        let mut by_output = expected.clone();
        by_output.sort_by_key(|(output, ..)| *output);
        let is_first = |at: usize| {
            let (_, device, number) = by_output[at];
            !by_output[..at].iter().any(|(_, d, n)| (d, n) == (device, number))
        };
        let firsts: Vec<_> = (0..by_output.len()).filter(|at| is_first(*at)).map(|at| by_output[at]).collect();
        let behind_a_later = |at: usize| {
            let (output, device, number) = firsts[at];
            firsts[..at].iter().any(|(o, d, n)| (o, d) == (output, device) && n > number)
        };
        let mut acknowledged = acknowledged.to_vec();
        acknowledged.sort();
        acknowledged.dedup();
        let lost =
            acknowledged.iter().filter(|(d, n)| !expected.iter().any(|(_, device, number)| (device, number) == (d, n)));
        [
            lost.count() as u64,
            (expected.len() - firsts.len()) as u64,
            (0..firsts.len()).filter(|at| behind_a_later(*at)).count() as u64,
            (arrived.len() - expected.len()) as u64,
        ]
    }

    proptest! {
        #[test]
        fn the_verdict_is_that_of_a_naive_checker(steps in steps()) {
            let mut ledger = Ledger::default();
            let (mut sent, mut acknowledged, mut arrived) = ([0u64; 2], Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Send(device) => {
                        prop_assert_eq!(ledger.sent(&device.to_string()), sent[device as usize]);
                        sent[device as usize] += 1;
                    }
                    Step::Acknowledge(device, number) if number < sent[device as usize] => {
                        ledger.acknowledged(&device.to_string(), number);
                        acknowledged.push((device, number));
                    }
                    Step::Acknowledge(..) => {}
                    Step::Arrive(output, device, number) => {
                        ledger.received(&output.to_string(), &device.to_string(), number);
                        arrived.push((output, device, number));
                    }
                }
            }
            let verdict = ledger.check();
            let counts = [verdict.lost.count, verdict.doubled.count, verdict.reordered.count, verdict.unexpected.count];
            prop_assert_eq!(counts, naive(&sent, &acknowledged, &arrived));
            prop_assert_eq!(verdict.is_clean(), counts == [0; 4]);
        }
    }
}
