//! P6: versions of a shadow have no gap, an update is carried out exactly once, nobody's field is lost, and whoever asks
//! again is answered the same.

use drover_shadow::DOCUMENTS_TOPIC;
use drover_sim::Broken;
use drover_tests::shadows::{Verdict, run};

/// Seeds that a sound service has to pass.
const SOUND_SEEDS: u64 = 40;
/// Seeds within which a broken variant has to be caught.
const BROKEN_SEEDS: u64 = 60;

fn verdict(seed: u64, broken: Broken) -> Verdict {
    run(seed, broken).unwrap_or_else(|stalled| panic!("seed {seed}: {stalled}"))
}

/// The first verdict of a broken service that shows the fault.
fn caught(broken: Broken, shows: impl Fn(&Verdict) -> bool) -> (u64, Verdict) {
    let verdicts = (0..BROKEN_SEEDS).map(|seed| (seed, verdict(seed, broken)));
    verdicts.into_iter().find(|(_, verdict)| shows(verdict)).expect("a seed shows the fault")
}

#[test]
fn versions_have_no_gap_and_every_update_is_carried_out_once() {
    let (mut updates, mut repeats) = (0, 0);
    for seed in 0..SOUND_SEEDS {
        let verdict = verdict(seed, Broken::default());
        assert!(verdict.is_clean(), "seed {seed}: {verdict:?}");
        updates += verdict.updates;
        repeats += verdict.answers - verdict.updates;
    }
    assert!(repeats > 0, "no request was sent again: nothing was tried");
    println!("{SOUND_SEEDS} seeds, {updates} updates, {repeats} answers given again");
}

#[test]
fn documents_committed_without_their_offsets_are_caught() {
    let broken = Broken { document_without_offset: true, ..Broken::default() };
    let (seed, verdict) = caught(broken, |verdict| verdict.doubled > 0);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn a_missing_repeat_window_is_caught() {
    let broken = Broken { no_repeat_window: true, ..Broken::default() };
    let (seed, verdict) = caught(broken, |verdict| verdict.doubled > 0);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn an_owner_that_does_not_read_the_last_documents_is_caught() {
    let broken = Broken { unread_topic: Some(DOCUMENTS_TOPIC), ..Broken::default() };
    let (seed, verdict) = caught(broken, |verdict| verdict.gaps > 0);
    println!("seed {seed} shows it: {verdict:?}");
}
