//! The promises, each with the deliberately broken variants that its test catches.

mod p1_acknowledged_means_kept;
mod p2_order_per_device;
mod p3_exactly_once;
mod p4_presence;
mod p5_revoked_means_out;
mod p6_shadow_versions;
mod p7_backpressure;
mod p8_upgrades;
mod p9_tenants_are_walls;

use std::fmt::{Debug, Display};

use drover_tests::seeds;
use drover_tests::world::{Flaws, Outcome, Scale, run};

/// Seeds that a sound platform has to pass here, and the first of them: `tests/sim` runs more, other ones.
const SOUND_SEEDS: u64 = 15;
const FIRST_SOUND_SEED: u64 = 1_000;

/// Worlds of a sound platform, as [`passing`] tries them; what they show is told in one line.
fn sound(test: &str, is_clean: impl Fn(&Outcome) -> bool) {
    for seed in seeds::seeds_from(FIRST_SOUND_SEED, SOUND_SEEDS) {
        let again = |shown: &dyn Display| seeds::failed(seed, "promises", test, shown);
        let outcome = run(seed, Scale::default(), Flaws::default());
        let outcome = outcome.unwrap_or_else(|stalled| panic!("{}", again(&stalled)));
        assert!(is_clean(&outcome), "{}", again(&outcome));
    }
}

/// The first seed at which a broken platform shows the fault, which it tells.
fn caught(flaws: impl Into<Flaws>, shows: impl Fn(&Outcome) -> bool) {
    let flaws: Flaws = flaws.into();
    let (seed, outcome) = seeds::caught(|seed| run(seed, Scale::default(), flaws), shows);
    println!("seed {seed} shows it: {outcome}");
}

/// Verdicts of sound worlds, seed after seed: so many ordinarily, as [`seeds::seeds`] says. Fails at the first that stalls or is
/// not clean, with the line that repeats it; `test` is how the name of the calling test begins.
fn passing<V: Debug>(
    ordinary: u64,
    test: &str,
    run: impl Fn(u64) -> anyhow::Result<V>,
    is_clean: impl Fn(&V) -> bool,
) -> Vec<V> {
    let tried = seeds::seeds(ordinary).map(|seed| {
        let verdict = run(seed);
        let verdict = verdict.unwrap_or_else(|stalled| panic!("{}", seeds::failed(seed, "promises", test, stalled)));
        assert!(is_clean(&verdict), "{}", seeds::failed(seed, "promises", test, format_args!("{verdict:?}")));
        verdict
    });
    tried.collect()
}
