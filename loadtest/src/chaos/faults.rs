//! Faults by seed: what is done to which process, when, and for how long.

use crate::scenario::{Scenario, Span};

/// Faults end before this part of the duration is over, in percent: what they have done shall show.
const OVER_AT_PERCENT: u64 = 80;
/// The shortest fault, in microseconds.
const SHORTEST_US: u64 = 100_000;
/// Faults of one run.
const FAULTS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Hang,
    /// SIGTERM, and a new start when it has ended.
    Restart,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Index of the process.
    pub process: usize,
    pub kind: Kind,
    /// Since the start of the run.
    pub at_us: u64,
    pub lasts_us: u64,
}

impl Fault {
    pub fn ends_us(&self) -> u64 {
        self.at_us + self.lasts_us
    }

    /// The fault in words.
    pub fn tell(&self, name: &str) -> String {
        let (at, lasts) = (Span::from_us(self.at_us).seconds(), Span::from_us(self.lasts_us).seconds());
        let what = match self.kind {
            Kind::Kill => "kill -9",
            Kind::Hang => "SIGSTOP",
            Kind::Restart => "restart",
        };
        format!("{at:7.1} s  {what} {name} for {lasts:.1} s")
    }
}

/// The faults of a seed, in their order. A process has one at a time; several processes may have theirs together.
pub fn schedule(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let (chaos, mut random) = (&scenario.chaos, fastrand::Rng::with_seed(seed));
    let over_us = scenario.duration.us() * OVER_AT_PERCENT / 100;
    let mut busy_until_us = vec![0; chaos.processes.len()];
    let (mut faults, mut now_us) = (Vec::new(), 0);
    while faults.len() < FAULTS_MAX {
        now_us += random.u64(chaos.every.us() / 2..=chaos.every.us() * 3 / 2);
        let process = random.usize(0..chaos.processes.len());
        let kind = [Kind::Kill, Kind::Hang, Kind::Restart][random.usize(0..3)];
        let lasts_us = random.u64(SHORTEST_US..=chaos.longest.us());
        let fault = Fault { process, kind, at_us: now_us, lasts_us };
        if fault.ends_us() >= over_us {
            break;
        }
        if busy_until_us[process] < now_us {
            busy_until_us[process] = fault.ends_us();
            faults.push(fault);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let text = r#"
            title = "t"
            duration = "60s"
            [[fleet]]
            name = "f"
            devices = 1
            device = "d"
            [chaos]
            every = "2s"
            longest = "3s"
            [[chaos.process]]
            name = "a"
            command = ["a"]
            ready = "127.0.0.1:1"
            [[chaos.process]]
            name = "b"
            command = ["b"]
            ready = "127.0.0.1:2"
        "#;
        Scenario::parse(text).expect("valid")
    }

    #[test]
    fn a_seed_is_a_schedule_and_a_process_has_one_fault_at_a_time() {
        let scenario = scenario();
        assert_eq!(schedule(3, &scenario), schedule(3, &scenario));
        assert_ne!(schedule(3, &scenario), schedule(4, &scenario));
        for seed in 0..50 {
            let faults = schedule(seed, &scenario);
            assert!(faults.len() > 3, "seed {seed}: {faults:?}");
            assert!(faults.is_sorted_by_key(|fault| fault.at_us));
            assert!(faults.iter().all(|fault| fault.ends_us() < 48_000_000 && fault.lasts_us <= 3_000_000));
            for process in 0..2 {
                let own: Vec<_> = faults.iter().filter(|fault| fault.process == process).collect();
                assert!(own.windows(2).all(|pair| pair[0].ends_us() < pair[1].at_us), "seed {seed}: {own:?}");
            }
        }
    }
}
