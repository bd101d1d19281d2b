//! P1: what a device holds an acknowledgement for is in the log, and so in the rule's output.

use drover_sim::Broken;

#[test]
fn nothing_acknowledged_is_lost() {
    for (seed, verdict) in super::sound() {
        assert_eq!(verdict.lost.count, 0, "seed {seed}: {verdict}");
    }
}

#[test]
fn an_acknowledgement_before_the_append_is_caught() {
    let broken = Broken { ack_before_append: true, ..Broken::default() };
    let (seed, verdict) = super::caught(broken, |verdict| verdict.lost.count > 0).expect("a seed loses a message");
    println!("seed {seed} shows it: {verdict}");
}
