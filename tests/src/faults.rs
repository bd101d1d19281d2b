//! Faults by seed: which process is killed or hung, when, and for how long; and the layout they are done to.

use std::time::Duration;

use anyhow::ensure;
use drover_sim::SeededRandom;

use crate::patience::{Patience, pause};
use crate::{Backends, Processes};

/// Names of the backends among the targets.
const KAFKA: &str = "kafka";
const CASSANDRA: &str = "cassandra";
/// How long the shortest fault lasts, in milliseconds: a hiccup.
const SHORTEST_MS: u64 = 300;
/// Work that comes no further for so long has stopped, not slowed down: faults last 30 s at most.
const STANDSTILL_MAX: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Hang,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub target: &'static str,
    pub kind: Kind,
    /// It begins when this share of the work is done, in thousandths.
    pub at: u64,
    pub lasts: Duration,
}

/// `count` faults over the whole of the work, none of them longer than `longest`. The decks of targets are dealt in turn,
/// each like cards: no target comes a second time before all others, and those of the first deck come first.
pub fn schedule(seed: u64, decks: &[&[&'static str]], count: usize, longest: Duration) -> Vec<Fault> {
    let random = SeededRandom::new(seed);
    let mut turns = decks.iter().cycle();
    let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(SHORTEST_MS + 1);
    let mut deck = Vec::new();
    let fault = |number: usize| {
        if deck.is_empty() {
            deck = turns.next().map(|deck| deck.to_vec()).unwrap_or_default();
        }
        let card = usize::try_from(random.below(deck.len() as u64)).unwrap_or(0);
        let (slot, count) = (number as u64, count as u64);
        // The last tenth of the work is left alone, or a fault could begin when nothing is left to lose.
        let at = (slot * 900 + random.below(900)) / count;
        let kind = if random.chance(500) { Kind::Kill } else { Kind::Hang };
        let lasts = Duration::from_millis(SHORTEST_MS + random.below(longest_ms - SHORTEST_MS));
        Fault { target: deck.swap_remove(card), kind, at, lasts }
    };
    (0..count).map(fault).collect()
}

/// Real Kafka, real Cassandra, every service a process: what faults are done to.
pub struct Stage {
    pub backends: Backends,
    pub processes: Processes,
    /// Each with how long it has been so, and for how long it is to be.
    under_way: Vec<(Fault, Patience)>,
}

impl Stage {
    /// Starts everything and waits until it is ready. `None` where Kafka or Cassandra cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(backends) = Backends::start()? else { return Ok(None) };
        let mut processes = Processes::prepare(backends.environment())?;
        for name in Processes::names() {
            processes.start(name)?;
        }
        processes.until_ready()?;
        Ok(Some(Self { backends, processes, under_way: Vec::new() }))
    }

    /// Does `faults` as `progress` (in thousandths) comes to each, until `is_done` and all faults are over.
    pub fn suffer(
        &mut self,
        faults: &[Fault],
        progress: impl Fn() -> u64,
        is_done: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let mut waiting = faults.iter().copied().peekable();
        let (mut reached, mut going) = (progress(), Patience::new(STANDSTILL_MAX));
        while waiting.peek().is_some() || !self.under_way.is_empty() || !is_done() {
            pause();
            self.end_what_is_due()?;
            if progress() != reached {
                (reached, going) = (progress(), Patience::new(STANDSTILL_MAX));
            }
            let stands = format!("{reached} ‰ are done, and nothing more in {STANDSTILL_MAX:?}");
            ensure!(going.lasts(), "{stands}:\n{}", self.processes.log_ends());
            let is_free = |fault: &Fault| self.under_way.iter().all(|(other, _)| other.target != fault.target);
            if let Some(fault) = waiting.next_if(|fault| (progress() >= fault.at || is_done()) && is_free(fault)) {
                println!(
                    "{:5} ‰  {:?} {} for {:.1} s",
                    progress(),
                    fault.kind,
                    fault.target,
                    fault.lasts.as_secs_f64()
                );
                self.begin(&fault)?;
                self.under_way.push((fault, Patience::new(fault.lasts)));
            }
            if let Some((name, status)) = self.processes.ended()? {
                anyhow::bail!("{name} ended by itself with {status}:\n{}", self.processes.log_ends());
            }
        }
        Ok(())
    }

    fn end_what_is_due(&mut self) -> anyhow::Result<()> {
        let (under_way, due): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(|(_, lasting)| lasting.lasts());
        self.under_way = under_way;
        due.into_iter().try_for_each(|(fault, _)| self.end(&fault))
    }

    fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match (fault.target, fault.kind) {
            (KAFKA, Kind::Kill) => self.backends.kafka.kill(),
            (KAFKA, Kind::Hang) => self.backends.kafka.pause(),
            (CASSANDRA, Kind::Kill) => {
                self.backends.cassandra.kill();
                Ok(())
            }
            (CASSANDRA, Kind::Hang) => {
                self.backends.cassandra.hang();
                Ok(())
            }
            (name, Kind::Kill) => self.processes.kill(name),
            (name, Kind::Hang) => self.processes.hang(name),
        }
    }

    fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match (fault.target, fault.kind) {
            (KAFKA, Kind::Kill) => self.backends.kafka.restart(),
            (KAFKA, Kind::Hang) => self.backends.kafka.resume(),
            (CASSANDRA, Kind::Kill) => {
                self.backends.cassandra.restart();
                Ok(())
            }
            (CASSANDRA, Kind::Hang) => {
                self.backends.cassandra.resume();
                Ok(())
            }
            (name, Kind::Kill) => self.processes.start(name),
            (name, Kind::Hang) => self.processes.resume(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_that_comes_to_every_target_in_the_order_of_the_work() {
        let decks: [&[&str]; 2] = [&["a", "b", "c"], &["d", "e"]];
        let longest = Duration::from_secs(30);
        let told =
            |seed| schedule(seed, &decks, 13, longest).iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>();
        assert_eq!(told(1), told(1));
        assert_ne!(told(1), told(2));
        let faults = schedule(1, &decks, 13, longest);
        assert!(faults.iter().all(|fault| fault.lasts < longest && fault.lasts.as_millis() >= u128::from(SHORTEST_MS)));
        assert!(faults.is_sorted_by_key(|fault| fault.at) && faults.iter().all(|fault| fault.at < 900));
        let names: Vec<&str> = faults.iter().map(|fault| fault.target).collect();
        for (dealt, deck) in
            [(0..3, decks[0]), (3..5, decks[1]), (5..8, decks[0]), (8..10, decks[1]), (10..13, decks[0])]
        {
            let mut dealt = names[dealt].to_vec();
            dealt.sort_unstable();
            assert_eq!(dealt, deck);
        }
    }
}
