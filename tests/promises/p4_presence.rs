//! P4: presence never contradicts itself, whatever dies and wherever clients go; and no client is at two nodes.

use drover_registry::EVENTS_TOPIC;
use drover_sim::Broken;
use drover_tests::cluster::presence::{Verdict, run};
use drover_tests::cluster::{Flaws, OwnersFlaws};
use drover_tests::seeds;

/// Seeds that a sound platform has to pass.
const SOUND_SEEDS: u64 = 30;

/// The first seed at which a broken platform shows the fault, which it tells.
fn caught(flaws: Flaws, shows: impl Fn(&Verdict) -> bool) {
    let (seed, verdict) = seeds::caught(|seed| run(seed, flaws), shows);
    println!("seed {seed} shows it: {verdict:?}");
}

#[test]
fn presence_alternates_and_is_true_in_the_end() {
    let mut events = 0;
    for verdict in
        super::passing(SOUND_SEEDS, "presence_alternates", |seed| run(seed, Flaws::default()), Verdict::is_clean)
    {
        events += verdict.events;
    }
    println!("{events} events");
    assert!(events > 0, "nobody came or went: nothing was tried");
}

#[test]
fn nodes_that_give_epochs_each_by_itself_are_caught() {
    let owners = OwnersFlaws { unshared: true, ..OwnersFlaws::default() };
    let shows = |verdict: &Verdict| verdict.contradictions + verdict.untrue + verdict.at_two_nodes > 0;
    caught(Flaws { owners, ..Flaws::default() }, shows);
}

#[test]
fn a_session_that_is_taken_without_fencing_its_former_owner_is_caught() {
    let owners = OwnersFlaws { nobody_before: true, ..OwnersFlaws::default() };
    // The events would end the former connection, too.
    let ingress = Broken { unread_topic: Some(EVENTS_TOPIC), ..Broken::default() };
    caught(Flaws { owners, ingress, ..Flaws::default() }, |verdict| verdict.at_two_nodes > 0);
}

#[test]
fn reports_that_are_committed_before_their_events_are_caught() {
    let registry = Broken { offset_before_output: true, ..Broken::default() };
    caught(Flaws { registry, ..Flaws::default() }, |verdict| verdict.untrue + verdict.contradictions > 0);
}

#[test]
fn a_registry_that_does_not_read_what_it_told_before_is_caught() {
    let registry = Broken { unread_topic: Some(EVENTS_TOPIC), ..Broken::default() };
    caught(Flaws { registry, ..Flaws::default() }, |verdict| verdict.contradictions > 0);
}
