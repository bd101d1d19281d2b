//! P3: from the log to a rule's output exactly once; what a device sends again is recognised.

use drover_rules::OUTBOX_TOPIC;
use drover_sim::Broken;
use drover_tests::world::Outcome;

#[test]
fn nothing_comes_out_twice_and_nothing_is_missing() {
    super::sound("nothing_comes_out_twice", Outcome::is_clean);
}

#[test]
fn offsets_committed_before_outputs_are_caught() {
    super::caught(Broken { offset_before_output: true, ..Broken::default() }, |outcome| outcome.rule.lost.count > 0);
}

#[test]
fn a_missing_repeat_window_is_caught() {
    super::caught(Broken { no_repeat_window: true, ..Broken::default() }, |outcome| outcome.rule.doubled.count > 0);
}

#[test]
fn an_entry_of_the_outbox_that_is_forgotten_is_caught() {
    let broken = Broken { forgotten_topic: Some(OUTBOX_TOPIC), ..Broken::default() };
    super::caught(broken, |outcome| outcome.republished.lost.count > 0);
}
