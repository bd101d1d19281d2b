//! Many seeds of the whole path: whatever is killed, cut or lost, the books agree. A failing seed is printed; it
//! becomes a line of `SEEDS_THAT_FAILED`.

use drover_sim::Broken;
use drover_tests::world::{Scale, run};

/// Seeds of one run; `DROVER_SIM_SEEDS` asks for more.
const SEEDS: u64 = 100;
/// Seeds that found a bug once.
const SEEDS_THAT_FAILED: [u64; 0] = [];

#[test]
fn the_books_agree_whatever_is_killed_cut_or_lost() {
    let wanted = std::env::var("DROVER_SIM_SEEDS").ok().map(|n| n.parse().expect("DROVER_SIM_SEEDS is a number"));
    let mut messages = 0;
    for seed in SEEDS_THAT_FAILED.into_iter().chain(0..wanted.unwrap_or(SEEDS)) {
        let verdict = run(seed, Scale::default(), Broken::default()).unwrap_or_else(|stalled| panic!("{stalled}"));
        assert!(verdict.is_clean(), "seed {seed}: {verdict}");
        messages += verdict.totals.acknowledged;
    }
    println!("{} seeds, {messages} acknowledged messages, books clean", wanted.unwrap_or(SEEDS));
}

#[test]
fn a_seed_replays_exactly() {
    let books = |seed| run(seed, Scale::default(), Broken::default()).expect("comes to rest").to_string();
    for seed in [3, 4] {
        assert_eq!(books(seed), books(seed));
    }
}
