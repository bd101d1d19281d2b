//! P6: versions of a shadow have no gap, an update is carried out exactly once, nobody's field is lost, and whoever asks
//! again is answered the same.

use drover_shadow::{CHANGES_TOPIC, DOCUMENTS_TOPIC};
use drover_sim::Broken;
use drover_tests::seeds;
use drover_tests::shadows::{Verdict, run};

/// Seeds that a sound service has to pass.
const SOUND_SEEDS: u64 = 40;

/// The first seed at which a broken service shows the fault, which it tells.
fn caught(broken: Broken, shows: impl Fn(&Verdict) -> bool) {
    let (seed, verdict) = seeds::caught(|seed| run(seed, broken), shows);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn versions_have_no_gap_and_every_update_is_carried_out_once() {
    let (mut updates, mut repeats) = (0, 0);
    for verdict in
        super::passing(SOUND_SEEDS, "versions_have_no_gap", |seed| run(seed, Broken::default()), Verdict::is_clean)
    {
        updates += verdict.updates;
        repeats += verdict.answers - verdict.updates;
    }
    println!("{updates} updates, {repeats} answers given again");
    assert!(repeats > 0, "no request was sent again: nothing was tried");
}

#[test]
fn documents_committed_without_their_offsets_are_caught() {
    let broken = Broken { document_without_offset: true, ..Broken::default() };
    caught(broken, |verdict| verdict.doubled > 0);
}

#[test]
fn a_missing_repeat_window_is_caught() {
    let broken = Broken { no_repeat_window: true, ..Broken::default() };
    caught(broken, |verdict| verdict.doubled > 0);
}

#[test]
fn an_owner_that_does_not_read_the_last_documents_is_caught() {
    let broken = Broken { unread_topic: Some(DOCUMENTS_TOPIC), ..Broken::default() };
    caught(broken, |verdict| verdict.gaps > 0);
}

#[test]
fn an_owner_that_was_replaced_and_writes_nevertheless_is_caught() {
    let broken = Broken { unfenced: true, ..Broken::default() };
    caught(broken, |verdict| verdict.gaps + verdict.doubled > 0);
}

#[test]
fn a_change_that_is_left_out_of_its_transaction_is_caught() {
    let broken = Broken { forgotten_topic: Some(CHANGES_TOPIC), ..Broken::default() };
    caught(broken, |verdict| verdict.lost > 0);
}
