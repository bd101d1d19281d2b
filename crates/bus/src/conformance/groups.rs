//! Promises about consumer groups.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Fixture, MOMENT, outgoing, record, settle, value, within};
use crate::{ConsumeError, GroupConfig, Polled, Position, Start, TopicPartition};

pub async fn a_single_member_gets_everything(f: &Fixture) {
    let (one, two) = (f.topic("one", 3).await, f.topic("two", 2).await);
    for partition in 0..3 {
        f.put(&one, partition, &format!("one-{partition}")).await;
    }
    f.put(&two, 1, "two-1").await;
    let mut member = f.join(f.member("g", "m", &[&one, &two])).await;
    member.hold(5).await;
    member.receive(4).await;
    assert_eq!(BTreeSet::from_iter(member.values()).len(), 4);
    let before = member.records.len();
    member.poll(MOMENT).await;
    assert_eq!(member.records.len(), before, "each record comes once");
}

pub async fn two_members_share_evenly_without_overlap(f: &Fixture) {
    let topic = f.topic("shared", 4).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    a.hold(4).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    settle(&mut [&mut a, &mut b], &[2, 2]).await;
    assert!(a.held.keys().all(|at| !b.held.contains_key(at)));
    for partition in 0..4 {
        f.put(&topic, partition, &partition.to_string()).await;
    }
    a.receive(2).await;
    b.receive(2).await;
    let got: BTreeSet<_> = a.values().into_iter().chain(b.values()).collect();
    assert_eq!(got.len(), 4);
}

pub async fn three_members_share_and_leavers_are_replaced(f: &Fixture) {
    let topic = f.topic("three", 6).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    let mut c = f.join(f.member("g", "c", &[&topic])).await;
    settle(&mut [&mut a, &mut b, &mut c], &[2, 2, 2]).await;
    let kept: Vec<_> = a.held.keys().cloned().collect();
    drop(c);
    settle(&mut [&mut a, &mut b], &[3, 3]).await;
    assert!(kept.iter().all(|at| a.held.contains_key(at)), "who stays keeps what it has");
    drop(b);
    a.hold(6).await;
}

pub async fn a_group_resumes_where_it_committed(f: &Fixture) {
    let topic = f.topic("resume", 1).await;
    for i in 0..10 {
        f.put(&topic, 0, &i.to_string()).await;
    }
    let mut first = f.join(f.member("g", "m", &[&topic])).await;
    first.receive(10).await;
    let next = Position { at: TopicPartition::new(topic.clone(), 0), offset: first.records[4].position.offset };
    first.consumer.commit(vec![next.clone()]).await.expect("commits");
    assert_eq!(f.bus.committed(&f.name("g"), &topic).await, Ok(vec![next.clone()]));
    drop(first);
    let mut second = f.join(f.member("g", "other", &[&topic])).await;
    second.receive(6).await;
    assert_eq!(second.held[&next.at], next.offset);
    assert_eq!(second.values(), ["4", "5", "6", "7", "8", "9"]);
}

pub async fn a_group_starts_at_the_end_if_told_so(f: &Fixture) {
    let topic = f.topic("end", 1).await;
    f.put(&topic, 0, "old").await;
    let mut member = f.join(GroupConfig { start: Start::End, ..f.member("g", "m", &[&topic]) }).await;
    member.hold(1).await;
    f.put(&topic, 0, "new").await;
    member.receive(1).await;
    assert_eq!(member.values(), ["new"]);
}

pub async fn a_member_that_comes_back_gets_its_partitions(f: &Fixture) {
    let topic = f.topic("static", 6).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    settle(&mut [&mut a, &mut b], &[3, 3]).await;
    let (of_a, of_b) = (BTreeSet::from_iter(a.held.keys().cloned()), b.held.clone());
    drop(a);
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    settle(&mut [&mut a, &mut b], &[3, 3]).await;
    assert_eq!(BTreeSet::from_iter(a.held.keys().cloned()), of_a);
    assert_eq!(b.held, of_b, "the others keep theirs");
}

pub async fn a_member_that_ends_while_it_gives_up_leaves_nothing_behind(f: &Fixture) {
    let topic = f.topic("giving-up", 4).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    a.hold(4).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    within(async {
        while !matches!(a.consumer.poll(10, MOMENT).await.expect("polls"), Polled::Revoked(_)) {
            b.poll(Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(a);
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    settle(&mut [&mut a, &mut b], &[2, 2]).await;
}

pub async fn a_silent_member_is_fenced(f: &Fixture) {
    let topic = f.topic("silent", 2).await;
    let six = Duration::from_secs(6);
    let short =
        |member| GroupConfig { session_timeout: six, max_poll_interval: six, ..f.member("g", member, &[&topic]) };
    f.put(&topic, 0, "x").await;
    let mut silent = f.join(short("silent")).await;
    silent.hold(2).await;
    silent.receive(1).await;
    let mut other = f.join(short("other")).await;
    other.hold(2).await;
    let refused = silent.consumer.commit(silent.next()).await;
    assert!(matches!(refused, Err(ConsumeError::Fenced { .. })), "{refused:?}");
    let refused = silent.consumer.poll(1, MOMENT).await;
    assert!(matches!(refused, Err(ConsumeError::Fenced { .. })), "{refused:?}");
    assert_eq!(f.bus.committed(&f.name("g"), &topic).await, Ok(vec![]));
}

pub async fn commits_for_partitions_of_others_are_fenced(f: &Fixture) {
    let topic = f.topic("foreign", 2).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    settle(&mut [&mut a, &mut b], &[1, 1]).await;
    let foreign = b.held.keys().next().expect("holds one").clone();
    let refused = a.consumer.commit(vec![Position { at: foreign, offset: 0 }]).await;
    assert!(matches!(refused, Err(ConsumeError::Fenced { .. })), "{refused:?}");
}

pub async fn revoked_partitions_can_be_committed_until_the_next_poll(f: &Fixture) {
    let topic = f.topic("handshake", 2).await;
    let batch = (0..2).map(|partition| outgoing(&topic, partition, record("x"))).collect();
    f.append(batch).await;
    let mut a = f.join(f.member("g", "a", &[&topic])).await;
    a.receive(2).await;
    let mut b = f.join(f.member("g", "b", &[&topic])).await;
    let revoked = within(async {
        loop {
            b.poll(Duration::from_millis(10)).await;
            if let Polled::Revoked(partitions) = a.consumer.poll(10, MOMENT).await.expect("polls") {
                break partitions;
            }
        }
    })
    .await;
    b.poll(MOMENT).await;
    assert_eq!(b.held.len(), 0, "nothing moves before the next poll of its holder");
    a.commit().await;
    a.held.retain(|at, _| !revoked.contains(at));
    settle(&mut [&mut a, &mut b], &[1, 1]).await;
    assert_eq!(b.held, revoked.into_iter().map(|at| (at, 1)).collect(), "the new holder starts behind the commit");
}

pub async fn seeking_reads_again(f: &Fixture) {
    let topic = f.topic("seek", 1).await;
    for i in 0..3 {
        f.put(&topic, 0, &i.to_string()).await;
    }
    let mut member = f.join(f.member("g", "m", &[&topic])).await;
    member.receive(3).await;
    let to = member.records[1].position.clone();
    member.consumer.seek(to).await.expect("seeks");
    member.receive(5).await;
    assert_eq!(member.values(), ["0", "1", "2", "1", "2"]);
}

pub async fn groups_of_unknown_topics_are_refused(f: &Fixture) {
    let unknown = f.name("unknown").into();
    let refused = f.bus.join(f.member("g", "m", &[&unknown])).await.err();
    assert_eq!(refused, Some(ConsumeError::UnknownTopic { topic: unknown.to_string() }));
}

pub async fn a_dropped_poll_loses_nothing(f: &Fixture) {
    let topic = f.topic("dropped", 1).await;
    let mut member = f.join(f.member("g", "m", &[&topic])).await;
    member.hold(1).await;
    let mut got = Vec::new();
    for i in 0..40 {
        f.put(&topic, 0, &i.to_string()).await;
        let poll = member.consumer.poll(3, MOMENT);
        if let Ok(Ok(Polled::Records(records))) = tokio::time::timeout(Duration::from_micros(i * 50), poll).await {
            got.extend(records.iter().map(value));
        }
    }
    member.receive(40 - got.len()).await;
    got.extend(member.values());
    assert_eq!(got, (0..40).map(|i| i.to_string()).collect::<Vec<_>>());
}
