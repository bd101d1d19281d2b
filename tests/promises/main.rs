//! The promises, each with the deliberately broken variant that its test catches.

mod p1_acknowledged_means_kept;
mod p2_order_per_device;
mod p3_exactly_once;
mod p6_shadow_versions;

use drover_load::ledger::Verdict;
use drover_sim::Broken;
use drover_tests::world::{Scale, run};

/// Seeds that a sound platform has to pass here; `tests/sim` runs more.
const SOUND_SEEDS: u64 = 15;
/// Seeds within which a broken variant has to be caught.
const BROKEN_SEEDS: u64 = 60;

/// Verdicts of a sound platform.
fn sound() -> impl Iterator<Item = (u64, Verdict)> {
    (1_000..1_000 + SOUND_SEEDS).map(|seed| {
        (seed, run(seed, Scale::default(), Broken::default()).unwrap_or_else(|stalled| panic!("{stalled}")))
    })
}

/// The first verdict of a broken platform that shows the fault; a world that never comes to rest does not count.
fn caught(broken: Broken, shows: impl Fn(&Verdict) -> bool) -> Option<(u64, Verdict)> {
    let verdicts = (0..BROKEN_SEEDS).filter_map(|seed| Some((seed, run(seed, Scale::default(), broken).ok()?)));
    verdicts.into_iter().find(|(_, verdict)| shows(verdict))
}
