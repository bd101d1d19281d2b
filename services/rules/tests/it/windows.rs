//! Rules that group messages: their states survive any kill, go with their rule, and move with the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_rules::{ERRORS_TOPIC, STATE_TOPIC};
use drover_sim::{Broken, BrokenBus, BusFaults, SeededRandom, SimBus};
use drover_types::{FixedClock, Telemetry};
use serde_json::{Value, json};

use crate::world::{RECEIVED_MS, World, header, message, open, text, until};

/// Longer than any window of these tests, in milliseconds.
const LONG_MS: u64 = 100_000_000;
/// Messages of one run with faults.
const MESSAGES: u16 = 200;
/// Length of a window, in milliseconds, and from one message to the next.
const WINDOW_MS: u64 = 10_000;
const STEP_MS: u64 = 700;

/// Messages that change places lie in a block of so many: the first and the last of it are less than 30 s apart.
const BLOCK: usize = 40;

/// Messages of ten seconds, by the time they say.
fn counted() -> Value {
    counted_within("0s")
}

fn counted_within(lateness: &str) -> Value {
    let sql = format!(
        "SELECT device().name AS d, window_start() AS s, count(*) AS n, sum(n) AS sum, last(n) AS last FROM '#' \
         GROUP BY device(), TUMBLING(10s) EVENT TIME t LATENESS {lateness}"
    );
    json!({"sql": sql, "actions": [{"kafka": {"topic": "home.out"}}]})
}

/// Message `n` of a device of seven, and its time.
fn timed(n: u16) -> Telemetry {
    let t = RECEIVED_MS + u64::from(n) * STEP_MS;
    message(&format!("d{}", n % 7), n, &format!("{{\"n\":{n},\"t\":{t}}}"))
}

/// Rows that messages up to `MESSAGES` come to, in order.
fn expected() -> Vec<String> {
    let mut windows: BTreeMap<(u16, u64), Vec<u16>> = BTreeMap::new();
    for n in 0..MESSAGES {
        let t = RECEIVED_MS + u64::from(n) * STEP_MS;
        windows.entry((n % 7, t - t % WINDOW_MS)).or_default().push(n);
    }
    let row = |((device, start), numbers): (&(u16, u64), &Vec<u16>)| {
        let (sum, last) = (numbers.iter().sum::<u16>(), numbers[numbers.len() - 1]);
        format!("{{\"d\":\"d{device}\",\"s\":{start},\"n\":{},\"sum\":{sum},\"last\":{last}}}", numbers.len())
    };
    let mut rows: Vec<String> = windows.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// All rows after kills and faults of one seed.
async fn run(seed: u64, broken: Broken) -> Vec<String> {
    run_over(seed, broken, counted(), (0..MESSAGES).collect()).await
}

/// The messages in another order, by seed.
fn shuffled(seed: u64) -> Vec<u16> {
    let (mut order, random) = ((0..MESSAGES).collect::<Vec<_>>(), SeededRandom::new(seed));
    for block in order.chunks_mut(BLOCK) {
        for last in (1..block.len()).rev() {
            block.swap(last, random.below(last as u64 + 1) as usize);
        }
    }
    order
}

/// As [`run`], of a rule over messages in an order.
async fn run_over(seed: u64, broken: Broken, rule: Value, order: Vec<u16>) -> Vec<String> {
    let bus = SimBus::new(seed, BusFaults::default());
    let mut world = World::on(Arc::new(BrokenBus::new(Arc::new(bus.clone()), broken))).await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    world.rule("counted", 1, Some(rule)).await;
    let random = SeededRandom::new(seed);
    let faults = BusFaults { lost_acknowledgement: 100, lost_write: 100, delay_ms_max: 20, ..BusFaults::default() };
    for (i, n) in order.into_iter().enumerate() {
        bus.set_faults(BusFaults::default());
        world.publish([timed(n)]).await;
        bus.set_faults(faults);
        if i % 20 == 0 {
            let running = world.start("a");
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            running.kill().await;
        }
    }
    bus.set_faults(BusFaults::default());
    let running = world.start("a");
    world.drained().await;
    clock.advance(LONG_MS);
    // Two looks at the clock: windows close with the first.
    tokio::time::sleep(Duration::from_secs(3)).await;
    running.stop().await;
    world.values("home.out").await
}

#[tokio::test(start_paused = true)]
async fn every_window_comes_out_once_and_whole_whatever_the_bus_loses() {
    for seed in 0..10 {
        assert_eq!(run(seed, Broken::default()).await, expected(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shuffled_stream_gives_the_rows_of_a_sorted_one_whatever_the_bus_loses() {
    let mut reordered = 0;
    for seed in 0..5 {
        let order = shuffled(seed);
        reordered += usize::from(!order.is_sorted());
        assert_eq!(run_over(seed, Broken::default(), counted_within("30s"), order).await, expected(), "seed {seed}");
    }
    assert_eq!(reordered, 5);
    let late = run_over(0, Broken::default(), counted(), shuffled(0)).await;
    assert_ne!(late, expected(), "without lateness messages are left out");
}

#[tokio::test(start_paused = true)]
async fn states_of_a_transaction_that_is_just_decided_are_waited_for() {
    let late = Broken { late_topic: Some(STATE_TOPIC), ..Broken::default() };
    let mut found = 0;
    for seed in 0..5 {
        assert_eq!(run(seed, late).await, expected(), "seed {seed}");
        found += usize::from(run(seed, Broken { never_settles: true, ..late }).await != expected());
    }
    assert!(found > 0, "no seed noticed that the last states were missing");
}

#[tokio::test(start_paused = true)]
async fn offsets_before_states_and_states_that_are_not_restored_are_found_out() {
    let offsets_first = Broken { offset_before_output: true, ..Broken::default() };
    let unread = Broken { unread_topic: Some(STATE_TOPIC), ..Broken::default() };
    for broken in [offsets_first, unread] {
        let mut found = 0;
        for seed in 0..5 {
            found += usize::from(run(seed, broken).await != expected());
        }
        assert!(found > 0, "no seed noticed that windows were wrong");
    }
}

#[tokio::test]
async fn a_killed_engine_goes_on_with_its_windows_from_the_log() {
    let (mut world, dir) = World::embedded().await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    world.rule("counted", 1, Some(counted())).await;
    for round in 0..5u16 {
        let running = world.start("a");
        let numbers = round * MESSAGES / 5..(round + 1) * MESSAGES / 5;
        world.publish(numbers.map(timed)).await;
        if round % 2 == 0 {
            world.drained().await;
        }
        running.kill().await;
        let bus = std::mem::replace(&mut world.bus, Arc::new(SimBus::new(0, BusFaults::default())));
        until("the killed engine let go", async || Arc::strong_count(&bus) == 1).await;
        drop(bus);
        world.bus = open(&dir);
    }
    let running = world.start("a");
    world.drained().await;
    clock.advance(LONG_MS);
    until("all windows are closed", async || world.values("home.out").await.len() >= expected().len()).await;
    assert_eq!(world.values("home.out").await, expected());
    until("nothing is kept but watermarks", async || {
        world.compacted(STATE_TOPIC).await.keys().all(|key| key.ends_with('/'))
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_window_closes_by_the_clock_and_its_row_goes_through_the_actions() {
    let (mut world, _dir) = World::embedded().await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    let sql = "SELECT device().name AS d, room, avg(v) AS v FROM 'sensors/+' GROUP BY room, device(), TUMBLING(1m)";
    let actions =
        json!([{"kafka": {"topic": "home.keyed", "key": "${room}/${d}"}}, {"kafka": {"topic": "home.plain"}}]);
    world.rule("mean", 1, Some(json!({"sql": sql, "actions": actions}))).await;
    let running = world.start("a");
    world.publish([1, 2, 6].map(|v| message("d", v, &format!("{{\"room\":\"hall\",\"v\":{v}}}")))).await;
    world.drained().await;
    until("the group is told of", async || world.status("mean").await.is_ok_and(|status| status.groups == 1)).await;
    assert!(world.read("home.plain").await.is_empty());
    clock.advance(LONG_MS);
    until("the window is closed", async || world.read("home.plain").await.len() == 1).await;
    let (keyed, plain) = (world.read("home.keyed").await, world.read("home.plain").await);
    assert_eq!((text(&keyed[0]), text(&plain[0])), (r#"{"d":"d","room":"hall","v":3}"#.into(), text(&keyed[0])));
    assert_eq!(
        (keyed[0].record.key.as_deref(), plain[0].record.key.as_deref()),
        (Some(&b"hall/d"[..]), Some(&b"d"[..]))
    );
    let end_ms = RECEIVED_MS - RECEIVED_MS % 60_000 + 60_000;
    assert_eq!((header(&plain[0], "rule"), header(&plain[0], "time")), ("mean".into(), end_ms.to_string()));
    assert_ne!(keyed[0].record.header("id"), plain[0].record.header("id"));
    until("counted", async || world.status("mean").await.is_ok_and(|status| status.emitted == 2)).await;
    let status = world.status("mean").await.expect("known");
    assert_eq!((status.matched, status.failed, status.dropped), (3, 0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_device_that_falls_silent_is_told_of_once_with_nothing_else_coming() {
    let (mut world, _dir) = World::embedded().await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    let sql = "SELECT device().name AS silent, last(v) AS v FROM '#' GROUP BY device(), ABSENT(5m)";
    world.rule("silent", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.silent"}}]}))).await;
    let running = world.start("a");
    world.publish([message("a", 1, r#"{"v":1}"#), message("b", 2, r#"{"v":2}"#)]).await;
    world.drained().await;
    clock.advance(200_000);
    world.publish([Telemetry { time_ms: RECEIVED_MS + 200_000, ..message("b", 3, r#"{"v":3}"#) }]).await;
    world.drained().await;
    clock.advance(200_000);
    until("a is silent", async || world.values("home.silent").await == [r#"{"silent":"a","v":1}"#]).await;
    clock.advance(LONG_MS);
    until("b is silent", async || world.values("home.silent").await.len() > 1).await;
    clock.advance(LONG_MS);
    running.stop().await;
    assert_eq!(world.values("home.silent").await, [r#"{"silent":"a","v":1}"#, r#"{"silent":"b","v":3}"#]);
}

#[tokio::test]
async fn states_go_with_their_rule_and_a_rule_that_says_something_else_begins_anew() {
    let (mut world, _dir) = World::embedded().await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    let rule = |window: &str, topic: &str| {
        let sql = format!("SELECT count(*) AS n FROM '#' GROUP BY device(), {window}");
        Some(json!({"sql": sql, "actions": [{"kafka": {"topic": topic}}]}))
    };
    let running = world.start("a");
    let groups = async || world.compacted(STATE_TOPIC).await.keys().filter(|key| key.ends_with(']')).count();
    world.rule("r", 1, rule("TUMBLING(1h)", "home.out")).await;
    until("in force", async || world.status("r").await.is_ok_and(|status| status.observed_generation == 1)).await;
    world.publish((0..20).map(|n| message(&format!("d{n}"), n, "{}"))).await;
    until("kept", async || groups().await == 20).await;
    // Another topic says nothing about windows.
    world.rule("r", 2, rule("TUMBLING(1h)", "home.other")).await;
    until("in force", async || world.status("r").await.is_ok_and(|status| status.observed_generation == 2)).await;
    world.publish([message("d1", 100, "{}")]).await;
    world.drained().await;
    assert_eq!(groups().await, 20);
    world.rule("r", 3, rule("TUMBLING(2h)", "home.other")).await;
    until("removed", async || groups().await == 0).await;
    world.publish([message("d1", 101, "{}")]).await;
    until("begun anew", async || groups().await == 1).await;
    world.rule("r", 4, None).await;
    until("nothing is left", async || world.compacted(STATE_TOPIC).await.is_empty()).await;
    clock.advance(LONG_MS);
    running.stop().await;
    assert!(world.read("home.out").await.is_empty() && world.read("home.other").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_call_functions_for_their_messages_and_for_their_rows() {
    let (mut world, _dir) = World::embedded().await;
    let clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.clock = clock.clone();
    let source = "function main(n) { if (n > 100) { throw new Error('too much'); } return 2 * n; }";
    let sql = "SELECT sum(twice(v)) AS sum, twice(sum(v)) AS twice FROM '#' GROUP BY device(), TUMBLING(1h)";
    world.function("twice", Some(source)).await;
    world.rule("twice", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.out"}}]}))).await;
    let running = world.start("a");
    world.publish([message("d", 1, r#"{"v":1}"#), message("e", 2, r#"{"v":60}"#)]).await;
    world.drained().await;
    running.stop().await;
    let running = world.start("a");
    world.publish([message("d", 3, r#"{"v":7}"#), message("e", 4, r#"{"v":60}"#)]).await;
    world.drained().await;
    clock.advance(LONG_MS);
    until("the windows are closed", async || {
        world.read("home.out").await.len() == 1 && world.read(ERRORS_TOPIC).await.len() == 1
    })
    .await;
    running.stop().await;
    assert_eq!(world.values("home.out").await, [r#"{"sum":16,"twice":16}"#]);
    let letters = world.read(ERRORS_TOPIC).await;
    let (rule, error) = (header(&letters[0], "rule"), header(&letters[0], "error"));
    assert_eq!(rule, "twice");
    assert!(error.starts_with("twice: main threw: Error: too much"), "{error}");
    assert!(text(&letters[0]).contains(r##""#value1":120"##), "{}", text(&letters[0]));
}

#[tokio::test]
async fn a_late_message_is_counted_as_dropped_and_one_without_time_is_a_dead_letter() {
    let (mut world, _dir) = World::embedded().await;
    world.clock = Arc::new(FixedClock::at(RECEIVED_MS));
    world.rule("counted", 1, Some(counted())).await;
    let running = world.start("a");
    let event = |n: u16, t: u64| message("d", n, &format!("{{\"n\":{n},\"t\":{}}}", RECEIVED_MS + t));
    world.publish([event(1, 50_000), event(2, 10_000), message("d", 3, r#"{"n":3}"#)]).await;
    until("counted", async || world.status("counted").await.is_ok_and(|status| status.dropped + status.failed == 2))
        .await;
    let status = world.status("counted").await.expect("known");
    assert_eq!((status.matched, status.dropped, status.failed), (2, 1, 1));
    let error = status.last_error.expect("an error");
    assert_eq!(error.message, "event time undefined is no number of milliseconds since the Unix epoch");
    assert_eq!((error.topic.as_str(), error.sample.as_str()), ("sensors/d", r#"{"n":3}"#));
    assert!(error.source.starts_with("drover.telemetry/"), "{}", error.source);
    assert_eq!(world.values(ERRORS_TOPIC).await, [r#"{"n":3}"#]);
    running.stop().await;
}
