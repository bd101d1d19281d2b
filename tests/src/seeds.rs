//! Which seeds a test of simulated worlds tries, and how one of them is tried again.

use std::env;
use std::fmt::Display;

/// Seeds within which a broken variant has to be caught.
pub const BROKEN_SEEDS: u64 = 1_000;
/// How many seeds are tried instead of the ordinary number.
const COUNT: &str = "DROVER_SIM_SEEDS";
/// The one seed that is tried.
const ONE: &str = "DROVER_SIM_SEED";

/// The seeds of a test that ordinarily tries those below `ordinary`; `DROVER_SIM_SEEDS` asks for another number of them,
/// `DROVER_SIM_SEED` for one alone.
///
/// # Panics
/// If what they say is no number.
pub fn seeds(ordinary: u64) -> impl Iterator<Item = u64> {
    seeds_from(0, ordinary)
}

/// As [`seeds`], beginning with `first`.
pub fn seeds_from(first: u64, ordinary: u64) -> impl Iterator<Item = u64> {
    match (asked(ONE), asked(COUNT)) {
        (Some(one), _) => one..one + 1,
        (None, count) => first..first + count.unwrap_or(ordinary),
    }
}

fn asked(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// What a failing seed says for itself: what it showed, and the line that repeats it. `suite` and `test` are the names by
/// which cargo knows them.
pub fn failed(seed: u64, suite: &str, test: &str, shown: impl Display) -> String {
    format!("seed {seed}: {shown}\nagain: {ONE}={seed} cargo test -p drover-tests --test {suite} {test}")
}

/// The first seed at which a broken world shows its fault, and what it showed. One that never comes to rest shows nothing.
///
/// # Panics
/// If none of [`BROKEN_SEEDS`] does: whoever breaks this would not be noticed.
pub fn caught<V>(run: impl Fn(u64) -> anyhow::Result<V>, shows: impl Fn(&V) -> bool) -> (u64, V) {
    let mut verdicts = (0..BROKEN_SEEDS).filter_map(|seed| Some((seed, run(seed).ok()?)));
    let found = verdicts.find(|(_, verdict)| shows(verdict));
    found.unwrap_or_else(|| panic!("none of {BROKEN_SEEDS} seeds shows the fault"))
}
