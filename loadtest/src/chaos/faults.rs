//! Faults by seed: what is done to which process, when, and for how long.

use crate::scenario::{Kind, Scenario, Span};

/// Faults end before this part of the duration is over, in percent: what they have done shall show.
const OVER_AT_PERCENT: u64 = 80;
/// The shortest fault, in microseconds.
const SHORTEST_US: u64 = 100_000;
/// Faults of one run.
const FAULTS_MAX: usize = 10_000;
/// A clock is set by at least and at most so many seconds.
const CLOCK_SECONDS: (i64, i64) = (2, 120);

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Index of the process.
    pub process: usize,
    pub kind: Kind,
    /// The other side of a partition; `None`: the devices.
    pub peer: Option<usize>,
    /// By how much a clock is set, in seconds.
    pub jump_s: i64,
    /// Since the start of the run.
    pub at_us: u64,
    pub lasts_us: u64,
}

impl Fault {
    pub fn ends_us(&self) -> u64 {
        self.at_us + self.lasts_us
    }

    /// The fault in words; `names` are those of the processes.
    pub fn tell(&self, names: &[&str]) -> String {
        let (at, lasts) = (Span::from_us(self.at_us).seconds(), Span::from_us(self.lasts_us).seconds());
        let name = names[self.process];
        let what = match self.kind {
            Kind::Kill => format!("kill -9 {name}"),
            Kind::Hang => format!("SIGSTOP {name}"),
            Kind::Restart => format!("restart {name}"),
            Kind::Cut => format!("cut {name} off"),
            Kind::Partition => format!("part {name} and {}", self.peer.map_or("the devices", |peer| names[peer])),
            Kind::Reset => format!("reset connections of {name}"),
            Kind::Loss => format!("lose packets of {name}"),
            Kind::Delay => format!("delay packets of {name}"),
            Kind::Narrow => format!("narrow the link of {name}"),
            Kind::Full => format!("fill the disk of {name}"),
            Kind::Slow => format!("slow the disk of {name}"),
            Kind::Clock => format!("set the clock of {name} by {:+} s", self.jump_s),
        };
        format!("{at:7.1} s  {what} for {lasts:.1} s")
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
        let kinds = chaos.faults_of(&chaos.processes[process]);
        let kind = kinds[random.usize(0..kinds.len())];
        let lasts_us = random.u64(SHORTEST_US..=chaos.longest.us());
        let peer = (kind == Kind::Partition).then(|| peer(process, chaos.processes.len(), &mut random)).flatten();
        let jump_s = if kind == Kind::Clock { jump_s(&mut random) } else { 0 };
        let fault = Fault { process, kind, peer, jump_s, at_us: now_us, lasts_us };
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

/// One of the other processes, or the devices.
fn peer(process: usize, processes: usize, random: &mut fastrand::Rng) -> Option<usize> {
    let chosen = random.usize(0..processes);
    (chosen != process).then_some(chosen)
}

fn jump_s(random: &mut fastrand::Rng) -> i64 {
    let seconds = random.i64(CLOCK_SECONDS.0..=CLOCK_SECONDS.1);
    if random.bool() { seconds } else { -seconds }
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

    #[test]
    fn every_kind_that_a_process_may_suffer_comes_and_no_other() {
        let mut scenario = scenario();
        scenario.chaos.faults =
            vec![Kind::Cut, Kind::Partition, Kind::Reset, Kind::Loss, Kind::Delay, Kind::Narrow, Kind::Clock];
        scenario.chaos.processes[1].faults = vec![Kind::Full, Kind::Slow];
        let all: Vec<Fault> = (0..200).flat_map(|seed| schedule(seed, &scenario)).collect();
        for process in 0..2 {
            let mut kinds: Vec<Kind> =
                all.iter().filter(|fault| fault.process == process).map(|fault| fault.kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            assert_eq!(kinds, scenario.chaos.faults_of(&scenario.chaos.processes[process]));
        }
        let parted = |peer| all.iter().any(|fault| fault.kind == Kind::Partition && fault.peer == peer);
        assert!(parted(None) && parted(Some(1)) && !parted(Some(0)), "a process is not parted from itself");
        let jumps: Vec<i64> = all.iter().filter(|fault| fault.kind == Kind::Clock).map(|fault| fault.jump_s).collect();
        assert!(jumps.iter().any(|jump| *jump < -1) && jumps.iter().any(|jump| *jump > 1), "{jumps:?}");
        assert!(jumps.iter().all(|jump| (2..=120).contains(&jump.abs())), "{jumps:?}");
        let told = all.iter().find(|fault| fault.peer == Some(1)).map(|fault| fault.tell(&["a", "b"]));
        assert!(told.is_some_and(|told| told.contains("  part a and b for ")));
    }
}
