//! Many seeds of the whole path: whatever is killed, upgraded, cut or lost, the books agree. A failing seed is printed with
//! the line that repeats it; it becomes one of `SEEDS_THAT_FAILED`.

use drover_tests::seeds::{failed, seeds};
use drover_tests::world::{Flaws, Scale, run};

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;
/// Thousands of devices that send seldom: what the subscriber misses while it is away has room in its inbox.
const MANY: Scale = Scale { devices: 2_000, messages: 3, pause_ms_max: 60_000, faults: 40 };
/// Seeds of so many devices.
const SEEDS_OF_MANY: usize = 2;
/// Seeds that found a bug once.
const SEEDS_THAT_FAILED: [u64; 0] = [];

#[test]
fn the_books_agree_whatever_is_killed_cut_or_lost() {
    let again = |seed, shown: String| failed(seed, "sim", "the_books_agree", shown);
    let (mut count, mut messages) = (0, 0);
    for seed in SEEDS_THAT_FAILED.into_iter().chain(seeds(SEEDS)) {
        let outcome = run(seed, Scale::default(), Flaws::default());
        let outcome = outcome.unwrap_or_else(|stalled| panic!("{}", again(seed, stalled.to_string())));
        assert!(outcome.is_clean(), "{}", again(seed, outcome.to_string()));
        count += 1;
        messages += outcome.rule.totals.acknowledged;
    }
    println!("{count} seeds, {messages} acknowledged messages, books clean");
}

#[test]
fn the_books_of_thousands_of_devices_agree() {
    for seed in seeds(SEEDS_OF_MANY as u64).take(SEEDS_OF_MANY) {
        let again = |shown: String| failed(seed, "sim", "the_books_of_thousands", shown);
        let outcome = run(seed, MANY, Flaws::default());
        let outcome = outcome.unwrap_or_else(|stalled| panic!("{}", again(stalled.to_string())));
        assert!(outcome.is_clean(), "{}", again(outcome.to_string()));
        let sent = outcome.rule.totals.sent;
        assert_eq!(sent, (MANY.devices * MANY.messages) as u64, "{}", again(outcome.to_string()));
    }
}

#[test]
fn a_seed_replays_exactly_and_another_does_not() {
    let story = |seed| run(seed, Scale::default(), Flaws::default()).expect("comes to rest");
    let [one, other] = [3, 4].map(|seed| {
        let once = story(seed);
        assert_eq!(once, story(seed), "seed {seed}");
        once
    });
    assert!(!one.faults.is_empty() && one.faults != other.faults, "the same faults by another seed: {one}");
    assert!(!one.rows.is_empty() && one.rows != other.rows, "the same rows by another seed: {one}");
}
