//! P1: what a device holds an acknowledgement for is in the log, and so in the rule's output; and in the inbox of whoever is
//! subscribed to it, there or away.

use drover_sim::Broken;
use drover_tests::world::StoreFlaws;

#[test]
fn nothing_acknowledged_is_lost() {
    super::sound("nothing_acknowledged_is_lost", |outcome| {
        (outcome.rule.lost.count, outcome.subscriber.lost.count, outcome.forgotten) == (0, 0, 0)
    });
}

#[test]
fn an_acknowledgement_before_the_append_is_caught() {
    super::caught(Broken { ack_before_append: true, ..Broken::default() }, |outcome| outcome.rule.lost.count > 0);
}

#[test]
fn an_acknowledgement_before_the_inbox_has_the_message_is_caught() {
    let flaws = StoreFlaws { answers_before: true, ..StoreFlaws::default() };
    super::caught(flaws, |outcome| outcome.subscriber.lost.count > 0);
}

#[test]
fn an_inbox_that_forgets_is_caught() {
    let flaws = StoreFlaws { forgets_messages: true, ..StoreFlaws::default() };
    super::caught(flaws, |outcome| outcome.subscriber.lost.count > 0);
}

#[test]
fn a_session_that_is_not_taken_back_after_a_restart_is_caught() {
    let flaws = StoreFlaws { forgets_sessions: true, ..StoreFlaws::default() };
    super::caught(flaws, |outcome| outcome.forgotten > 0);
}
