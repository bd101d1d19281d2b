//! Members of groups in processes of their own: here, on buses of their own.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_bus::conformance::{Fixture, Member};
use drover_bus::{Polled, TopicPartition};

use crate::broker::{bus, shared, within};

/// Polls both until each holds as many partitions as told.
async fn settle(members: &mut [&mut Member], counts: &[usize]) {
    within(async {
        while members.iter().zip(counts).any(|(member, count)| member.held.len() != *count) {
            for member in members.iter_mut() {
                member.poll(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_that_restarts_moves_nobody_and_gets_the_same_partitions() {
    let Some(kafka) = shared().await else { return };
    let fixture = Fixture::new(std::sync::Arc::new(bus(kafka)), ());
    let topic = fixture.topic("restart", 6).await;
    let mut stays = fixture.join(fixture.member("g", "stays", &[&topic])).await;
    let other = bus(kafka);
    let join = || async {
        use drover_bus::Bus;
        let consumer = other.join(fixture.member("g", "restarts", &[&topic])).await.expect("joins");
        Member { consumer, held: Default::default(), records: Vec::new() }
    };
    let mut restarts = join().await;
    settle(&mut [&mut stays, &mut restarts], &[3, 3]).await;
    let before: BTreeSet<TopicPartition> = restarts.held.keys().cloned().collect();
    drop(restarts);
    for _ in 0..20 {
        let polled = stays.consumer.poll(10, Duration::from_millis(100)).await.expect("polls");
        assert!(matches!(polled, Polled::Idle), "nothing moves while it is away: {polled:?}");
    }
    let mut restarts = join().await;
    within(async {
        while restarts.held.len() < 3 {
            restarts.poll(Duration::from_millis(20)).await;
            let polled = stays.consumer.poll(10, Duration::from_millis(20)).await.expect("polls");
            assert!(matches!(polled, Polled::Idle), "nothing moves when it is back: {polled:?}");
        }
    })
    .await;
    assert_eq!(restarts.held.keys().cloned().collect::<BTreeSet<_>>(), before);
}
