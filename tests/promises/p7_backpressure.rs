//! P7: what is too much is refused or waits, and what is dropped is counted: nothing is lost in silence.

use drover_sim::Broken;
use drover_tests::flood::{Flaws, Verdict, run};
use drover_tests::seeds;
use drover_tests::world::StoreFlaws;

/// Seeds that a sound platform has to pass.
const SOUND_SEEDS: u64 = 10;

/// The first seed at which a broken platform shows the fault, which it tells.
fn caught(flaws: Flaws, shows: impl Fn(&Verdict) -> bool) {
    let (seed, verdict) = seeds::caught(|seed| run(seed, flaws), shows);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn what_is_not_delivered_was_refused_or_is_counted() {
    for verdict in
        super::passing(SOUND_SEEDS, "what_is_not_delivered", |seed| run(seed, Flaws::default()), Verdict::is_clean)
    {
        assert!(verdict.dropped > 0 && verdict.refused > 0, "nothing was too much: {verdict:?}");
    }
}

#[test]
fn acknowledgements_that_do_not_wait_for_a_log_that_hangs_are_caught() {
    let bus = Broken { ack_before_append: true, ..Broken::default() };
    caught(Flaws { bus, ..Flaws::default() }, |verdict| verdict.early > 0);
}

#[test]
fn messages_that_are_lost_in_silence_are_caught() {
    let store = StoreFlaws { forgets_messages: true, ..StoreFlaws::default() };
    caught(Flaws { store, ..Flaws::default() }, |verdict| verdict.silent > 0);
}

#[test]
fn a_quota_that_is_not_kept_is_caught() {
    caught(Flaws { unlimited: true, ..Flaws::default() }, |verdict| verdict.over_quota > 0);
}
