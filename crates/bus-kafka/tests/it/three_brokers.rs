//! Three brokers, as in production: what becomes of records while leaders, followers and coordinators die, hang or are
//! restarted.
//!
//! The tests share a cluster and take turns at it.

mod copies;
mod load;
mod turn;

use std::sync::atomic::Ordering;
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_bus::{Bus, TopicConfig};
use drover_bus_kafka::{KafkaBus, KafkaOptions, ProducerState};
use futures::FutureExt;

use crate::broker::{record, topic, values, within};
use crate::existing;
use crate::faults::{Flood, flood, resident_bytes};
use copies::Copies;
use load::Load;
use turn::Turn;

/// Appends of a key are so far apart: several are on their way at any time.
const DENSE: Duration = Duration::from_millis(5);
/// The same, for others to keep up with.
const SPARSE: Duration = Duration::from_millis(50);
/// Longest time until appends go on without a broker that is gone: its session, which is 2 s here (`kafka.sh`), and an
/// election, on a machine that does many other things.
const GOES_ON_MAX: Duration = Duration::from_secs(30);

/// Returns when appends go on without somebody who is away.
async fn goes_on_without(load: &Load, whom: &str) {
    let took = load.goes_on().await;
    println!("appends went on without {whom} after {took:?}");
    assert!(took < GOES_ON_MAX, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_in_three_copies_two_of_which_have_what_is_acknowledged() {
    let Some(turn) = Turn::wait().await else { return };
    let (bus, brokers) = (turn.bus(), turn.options().brokers.join(","));
    for compact in [false, true] {
        let topic = format!("three-copies-{compact}");
        let config = TopicConfig {
            topic: topic.as_str().into(),
            partitions: 2,
            compact,
            retention_ms: None,
            retention_bytes: None,
        };
        assert_eq!(within(bus.create_topic(config)).await, Ok(true));
        assert_eq!(existing::copies(&brokers, &topic).await, (vec![3, 3], Some("2".to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_reads_go_on_without_a_leader_that_was_killed() {
    let Some(turn) = Turn::wait().await else { return };
    let load = Load::start(&turn.bus(), "leader-killed", DENSE).await;
    load.goes_on().await;
    let leader = turn.leader(&load.topic, 0).await;
    turn.harm(leader, Kafka::kill).await;
    goes_on_without(&load, "a leader that was killed").await;
    turn.harm(leader, Kafka::restart).await;
    load.goes_on().await;
    load.end().await;
}

/// It wakes up as a leader, with requests that it has not answered and records that nobody else has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_reads_go_on_without_a_leader_that_hangs_and_over_its_return() {
    let Some(turn) = Turn::wait().await else { return };
    let load = Load::start(&turn.bus(), "leader-hung", DENSE).await;
    load.goes_on().await;
    let leader = turn.leader(&load.topic, 0).await;
    turn.harm(leader, Kafka::pause).await;
    goes_on_without(&load, "a leader that hangs").await;
    turn.harm(leader, Kafka::resume).await;
    load.goes_on().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enough_copies_nothing_is_acknowledged_and_callers_wait_until_they_are_back() {
    const BEFORE: usize = 1_000;
    const COUNT: usize = 20_000;
    const QUEUE: u32 = 5_000;
    /// So long is nothing acknowledged; beyond what counts as ordinary.
    const SILENCE: Duration = Duration::from_secs(6);
    let Some(turn) = Turn::wait().await else { return };
    let bus = KafkaBus::open(KafkaOptions { queue_messages_max: QUEUE, ..turn.options() }).expect("opens");
    let strict = KafkaBus::open(KafkaOptions { min_insync_replicas: 3, ..turn.options() }).expect("opens");
    let (two, three) = (topic(&bus, "two-of-three", 1).await, topic(&strict, "three-of-three", 1).await);
    let before = (0..BEFORE).map(|number| record(&two, "k", &format!("before-{number}"))).collect();
    within(bus.append(before).await.expect("is taken")).await.expect("is acknowledged");

    let leader = turn.leader(&two, 0).await;
    let [first, second] = match leader {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    };
    turn.harm(first, Kafka::kill).await;
    turn.copies(&three, 2).await;
    let mut waiting = strict.append(vec![record(&three, "k", "waits")]).await.expect("is taken");
    let goes = bus.append(vec![record(&two, "k", "goes")]).await.expect("is taken");
    within(goes).await.expect("two copies are enough");

    turn.harm(second, Kafka::kill).await;
    let resident = resident_bytes();
    let Flood { taken, appending } = flood(&bus, &two, COUNT);
    tokio::time::sleep(SILENCE).await;
    let state = bus.append_state();
    let queued = usize::try_from(QUEUE).expect("a number");
    assert_eq!((state.records_waiting, state.callers_waiting, state.producer), (queued, 1, ProducerState::Stalled));
    assert_eq!(taken.load(Ordering::Relaxed), queued, "the next caller waits");
    let grown = resident_bytes().saturating_sub(resident);
    assert!(grown < 64 << 20, "{grown} bytes more for {QUEUE} records");
    assert!((&mut waiting).now_or_never().is_none(), "is acknowledged by two of the three it wants");

    turn.restore().await;
    within(appending).await.expect("no panic").expect("all are acknowledged");
    within(waiting).await.expect("is acknowledged");
    assert_eq!(within(values(&strict, &three, 0)).await, ["waits"]);
    let expected = (0..BEFORE).map(|number| format!("before-{number}")).chain(["goes".to_owned()]);
    let expected: Vec<String> = expected.chain((0..COUNT).map(|number| number.to_string())).collect();
    let stored = within(values(&bus, &two, 0)).await;
    assert!(stored == expected, "in order, each once: {} of {}", stored.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_copied_once_and_in_order_over_the_deaths_of_both_coordinators() {
    let Some(turn) = Turn::wait().await else { return };
    let load = Load::start(&turn.bus(), "coordinators-in", SPARSE).await;
    let copies = Copies::start(&turn, &load, "coordinators").await;
    copies.go_on(&load).await;
    let transactional_id = copies.transactional_id();
    for (topic, name) in [("__transaction_state", transactional_id.as_str()), ("__consumer_offsets", copies.group())] {
        let coordinator = turn.coordinator(topic, name).await;
        turn.harm(coordinator, Kafka::kill).await;
        let took = copies.go_on(&load).await;
        println!("copies went on without the coordinator in {topic} after {took:?}");
        turn.harm(coordinator, Kafka::restart).await;
        turn.whole().await;
    }
    copies.end(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_copies_go_on_while_all_brokers_are_restarted_one_after_another() {
    let Some(turn) = Turn::wait().await else { return };
    let load = Load::start(&turn.bus(), "rolling-in", SPARSE).await;
    let copies = Copies::start(&turn, &load, "rolling").await;
    copies.go_on(&load).await;
    for id in 1..=3 {
        turn.harm(id, Kafka::stop).await;
        goes_on_without(&load, "a broker that is restarted").await;
        turn.harm(id, Kafka::restart).await;
        turn.whole().await;
    }
    copies.end(load).await;
}
