//! P8: an upgrade sends clients away at a bounded rate, and takes nothing from them; that no message is lost is in the books of
//! `tests/sim`, whose ingress is upgraded as often as it is killed.

use drover_tests::cluster::Flaws;
use drover_tests::cluster::upgrades::{Verdict, run};
use drover_tests::seeds;

/// Seeds that a sound platform has to pass.
const SOUND_SEEDS: u64 = 10;

#[test]
fn a_node_that_stops_closes_connections_at_its_rate_and_forgets_no_session() {
    super::passing(SOUND_SEEDS, "a_node_that_stops", |seed| run(seed, Flaws::default()), Verdict::is_clean);
}

#[test]
fn a_node_that_closes_all_connections_at_once_is_caught() {
    let flaws = Flaws { unpaced: true, ..Flaws::default() };
    let (seed, verdict) = seeds::caught(|seed| run(seed, flaws), |verdict: &Verdict| !verdict.is_clean());
    println!("seed {seed} shows it: {verdict:?}");
}
