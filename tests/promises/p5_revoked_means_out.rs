//! P5: whose rights are taken away is out within a second, also while the log hangs, and does not come in again.

use drover_registry::CHANGES_TOPIC;
use drover_sim::Broken;
use drover_tests::cluster::Flaws;
use drover_tests::cluster::revoked::{Verdict, run};
use drover_tests::seeds;

/// Seeds that a sound platform has to pass.
const SOUND_SEEDS: u64 = 20;

/// The first seed at which a broken platform shows the fault, which it tells.
fn caught(flaws: Flaws, shows: impl Fn(&Verdict) -> bool) {
    let (seed, verdict) = seeds::caught(|seed| run(seed, flaws), shows);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn revoked_means_out_within_a_second_while_the_log_hangs() {
    let mut revoked = 0;
    for verdict in
        super::passing(SOUND_SEEDS, "revoked_means_out", |seed| run(seed, Flaws::default()), Verdict::is_clean)
    {
        revoked += verdict.revoked;
    }
    println!("{revoked} devices were revoked");
}

#[test]
fn nodes_that_hear_of_it_only_from_the_feed_are_caught() {
    let flaws = Flaws { revoked_by_feed_alone: true, ..Flaws::default() };
    caught(flaws, |verdict| verdict.stayed + verdict.admitted > 0);
}

#[test]
fn a_revocation_that_is_not_fed_is_caught() {
    let ingress = Broken { unread_topic: Some(CHANGES_TOPIC), ..Broken::default() };
    let flaws = Flaws { ingress, revoked_by_feed_alone: true, ..Flaws::default() };
    caught(flaws, |verdict| verdict.stayed > 0);
}
