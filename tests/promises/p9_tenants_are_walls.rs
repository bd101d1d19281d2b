//! P9: no message crosses from one tenant to another, whatever their devices are called and whatever dies.

use drover_tests::cluster::Flaws;
use drover_tests::cluster::tenants::{Verdict, run};
use drover_tests::seeds;
use drover_tests::world::StoreFlaws;

/// Seeds that a sound platform has to pass.
const SOUND_SEEDS: u64 = 15;

#[test]
fn nobody_gets_what_is_another_tenants_and_everybody_what_is_their_own() {
    super::passing(SOUND_SEEDS, "nobody_gets_what_is_another", |seed| run(seed, Flaws::default()), Verdict::is_clean);
}

#[test]
fn a_store_that_knows_sessions_by_their_client_ids_alone_is_caught() {
    let store = StoreFlaws { ignores_tenants: true, ..StoreFlaws::default() };
    let flaws = Flaws { store, ..Flaws::default() };
    let (seed, verdict) = seeds::caught(|seed| run(seed, flaws), |verdict: &Verdict| verdict.crossed > 0);
    println!("seed {seed} shows it: {verdict:?}");
}
