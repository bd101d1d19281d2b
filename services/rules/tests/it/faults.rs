//! Exactly once under a bus that loses writes and acknowledgements, on virtual time; and the broken variants it finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_sim::{Broken, BrokenBus, BusFaults, SeededRandom, SimBus};
use serde_json::json;

use crate::world::{World, message, text};

/// Messages of one run.
const MESSAGES: u16 = 200;

/// How often each message came out after kills and faults of one seed.
async fn run(seed: u64, broken: Broken) -> BTreeMap<String, usize> {
    let bus = SimBus::new(seed, BusFaults::default());
    let world = World::on(Arc::new(BrokenBus::new(Arc::new(bus.clone()), broken))).await;
    let rule = json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": "home.out"}}]});
    world.rule("all", 1, Some(rule)).await;
    let random = SeededRandom::new(seed);
    let faults = BusFaults { lost_acknowledgement: 100, lost_write: 100, delay_ms_max: 20, ..BusFaults::default() };
    for n in 0..MESSAGES {
        bus.set_faults(BusFaults::default());
        world.publish([message(&format!("d{}", n % 7), n, &format!("{{\"n\":{n}}}"))]).await;
        bus.set_faults(faults);
        if n % 20 == 0 {
            let running = world.start("a");
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            running.kill().await;
        }
    }
    bus.set_faults(BusFaults::default());
    let running = world.start("a");
    world.drained().await;
    running.stop().await;
    let mut counts = BTreeMap::new();
    for stored in world.read("home.out").await {
        *counts.entry(text(&stored)).or_default() += 1;
    }
    counts
}

fn is_exactly_once(counts: &BTreeMap<String, usize>) -> bool {
    counts.len() == usize::from(MESSAGES) && counts.values().all(|count| *count == 1)
}

#[tokio::test(start_paused = true)]
async fn every_message_comes_out_exactly_once_whatever_the_bus_loses() {
    for seed in 0..20 {
        let counts = run(seed, Broken::default()).await;
        assert!(is_exactly_once(&counts), "seed {seed}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_before_outputs_are_found_out() {
    let mut found = 0;
    for seed in 0..10 {
        let broken = Broken { offset_before_output: true, ..Broken::default() };
        found += usize::from(!is_exactly_once(&run(seed, broken).await));
    }
    assert!(found > 0, "no seed noticed that outputs were lost");
}
