//! P3: from the log to a rule's output exactly once; what a device sends again is recognised.

use drover_sim::Broken;

#[test]
fn nothing_comes_out_twice_and_nothing_is_missing() {
    for (seed, verdict) in super::sound() {
        assert!(verdict.is_clean(), "seed {seed}: {verdict}");
    }
}

#[test]
fn offsets_committed_before_outputs_are_caught() {
    let broken = Broken { offset_before_output: true, ..Broken::default() };
    let (seed, verdict) = super::caught(broken, |verdict| verdict.lost.count > 0).expect("a seed loses an output");
    println!("seed {seed} shows it: {verdict}");
}

#[test]
fn a_missing_repeat_window_is_caught() {
    let broken = Broken { no_repeat_window: true, ..Broken::default() };
    let (seed, verdict) = super::caught(broken, |verdict| verdict.doubled.count > 0).expect("a seed doubles a message");
    println!("seed {seed} shows it: {verdict}");
}
