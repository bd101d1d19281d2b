//! Nodes that share their sessions, in memory and on virtual time: one is gone, or a client moves from one to another.

mod database;
mod platform;

use std::sync::atomic::{AtomicU64, Ordering};

use drover_types::Qos;
use tokio::time::Instant;

use super::*;
use crate::domain::restore::{HELD_UP_MS, STUCK_MS};
use crate::domain::sessions::Will;
use database::Database;
use platform::{NAMES, Platform, key};

pub(crate) use platform::alone;

#[test]
fn sessions_are_spread_over_the_live_nodes_and_only_those_of_one_that_goes_change_hands() {
    let keys: Vec<Key> = (0..3_000).map(|n| key(&format!("c-{n}"))).collect();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (three, two) = (names(&NAMES), names(&["c", "a"]));
    for node in &three {
        let share = keys.iter().filter(|key| heir(key, &three) == Some(node.as_str())).count();
        assert!((800..1_200).contains(&share), "{node} has {share}");
    }
    for key in &keys {
        let (before, after) = (heir(key, &three), heir(key, &two));
        assert!(before == Some("b") || before == after, "{key:?}");
    }
    assert_eq!(heir(&keys[0], &[]), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_a_node_is_gone_reaches_its_sessions_at_the_others() {
    let platform = Platform::new().await;
    let clients: Vec<String> = (0..20).map(|n| format!("c-{n}")).collect();
    for client in &clients {
        let attached = platform.connect(1, client, None).await;
        platform.subscribe(1, &attached, "t").await;
        platform.leave(1, &attached);
    }
    platform.publish(0, 1).await;
    platform.cut(1, true);
    platform.publish(0, 2).await;
    platform.publish(2, 3).await;
    let mut shares = [0, 0];
    for client in &clients {
        let heirs = [0, 2].map(|node| platform.session(node, client));
        let at = heirs.iter().position(Option::is_some).expect("somebody has taken it");
        assert!(heirs[1 - at].is_none(), "one has it");
        assert_eq!(heirs[at].as_ref().map(|session| session.depth()), Some((3, 0)), "each message once");
        shares[at] += 1;
        // Its client comes back, at the other one.
        let attached = platform.connect([2, 0][at], client, None).await;
        assert!(attached.present);
        assert_eq!(attached.session.depth(), (3, 0));
    }
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn the_will_of_a_connection_whose_node_is_gone_is_published_once() {
    let platform = Platform::new().await;
    let watcher = platform.connect(0, "watcher", None).await;
    platform.subscribe(0, &watcher, "t").await;
    let publication = crate::domain::message::Publication {
        topic: drover_types::TopicName::new("t").expect("valid"),
        payload: bytes::Bytes::from_static(b"w"),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: 0,
        properties: None,
    };
    platform.connect(1, "c", Some(Will { publication, delay_s: 0 })).await;
    platform.cut(1, true);
    platform.publish(0, 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(watcher.session.depth(), (2, 0), "the message and the will");
    assert!(platform.session(0, "c").is_some() != platform.session(2, "c").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_only_slow_gives_up_what_others_have_taken() {
    let platform = Platform::new().await;
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    platform.cut(1, true);
    platform.publish(0, 1).await;
    assert!(platform.session(1, "c").is_some(), "it knows nothing of that");
    platform.publish(1, 2).await; // to its own session, which it takes for its own
    platform.cut(1, false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(platform.session(1, "c").is_none());
    let heir = platform.session(0, "c").or_else(|| platform.session(2, "c")).expect("taken");
    assert_eq!(heir.depth(), (2, 0), "what came late to the former owner as well");
    platform.publish(2, 3).await;
    assert_eq!(heir.depth(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moves_while_its_client_is_written_to_misses_nothing_and_has_nothing_twice() {
    let platform = Arc::new(Platform::new().await);
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    let publishing = platform.clone();
    let published = tokio::spawn(async move {
        for number in 1..=200 {
            publishing.publish(0, number).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut session = attached.session;
    for turn in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let attached = platform.connect([2, 1][turn % 2], "c", None).await;
        assert!(attached.present);
        session = attached.session;
    }
    published.await.expect("no panic");
    assert_eq!(session.depth(), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_though_the_first_connect_has_only_taken_its_ownership() {
    let platform = Platform::new().await;
    let attached = platform.connect(1, "c", None).await;
    platform.subscribe(1, &attached, "t").await;
    let (tenant, client) = key("c");
    platform.nodes[2].owners.take(&tenant, &client).await.expect("taken");
    assert!(platform.connect(2, "c", None).await.present);
    assert!(platform.session(1, "c").is_none(), "it has ended there");
    platform.publish(0, 1).await;
    assert_eq!(platform.session(2, "c").map(|session| session.depth()), Some((1, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_sessions_of_a_node_that_nobody_has_heard_since_the_start_are_taken() {
    let database = Arc::<Database>::default();
    let before = Platform::over(database.clone(), None).await;
    let attached = before.connect(1, "c", None).await;
    before.subscribe(1, &attached, "t").await;
    before.leave(1, &attached);
    before.nodes[1].journal.durable(before.nodes[1].journal.position()).await;
    (0..NAMES.len()).for_each(|node| before.cut(node, true));
    drop(before);
    let platform = Platform::over(database, Some(1)).await;
    platform.publish(0, 1).await;
    let heir = platform.session(0, "c").or_else(|| platform.session(2, "c")).expect("taken");
    assert_eq!(heir.depth(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn members_of_a_shared_subscription_are_members_where_their_sessions_are_claimed() {
    let platform = Platform::new().await;
    let members = ["c-0", "c-1", "c-2"];
    for member in members {
        let attached = platform.connect(1, member, None).await;
        platform.subscribe(1, &attached, "$share/g/t").await;
        platform.leave(1, &attached);
    }
    for number in 1..=6 {
        platform.publish(0, number).await;
    }
    platform.cut(1, true);
    for number in 7..=9 {
        platform.publish(0, number).await;
        platform.publish(2, number + 3).await;
    }
    let heirs = members.map(|member| platform.session(0, member).or_else(|| platform.session(2, member)));
    let depths = heirs.map(|heir| heir.expect("somebody has taken it").depth());
    let waiting: usize = depths.iter().map(|(waiting, _)| waiting).sum();
    assert_eq!(waiting, 12, "each message once: {depths:?}");
    assert!(depths.iter().all(|(waiting, _)| *waiting > 1), "nodes and their members take turns: {depths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_no_further_with_its_sessions_gives_up_where_others_wait_for_it() {
    let database = Arc::<Database>::default();
    let platform = Platform::over(database.clone(), None).await;
    database.is_away.store(true, Ordering::Relaxed);
    let (stuck, began) = (Duration::from_millis(STUCK_MS), Instant::now());
    let told = AtomicU64::new(0);
    let tell = |_: &RestoreError| {
        told.fetch_add(1, Ordering::Relaxed);
    };
    let error = platform.nodes[0].restore_all(tell).await.expect_err("they wait for it");
    assert!(error.may_pass() && told.load(Ordering::Relaxed) > 10, "{error}");
    assert!(began.elapsed() >= stuck && began.elapsed() < 2 * stuck, "{:?}", began.elapsed());

    // Nobody hears of this one, so that nobody waits for it.
    platform.cut(1, true);
    while platform.nodes[1].peers.any_is_there() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let waiting = tokio::time::timeout(3 * stuck, platform.nodes[1].restore_all(|_| ()));
    assert!(waiting.await.is_err(), "it has given up");
    database.is_away.store(false, Ordering::Relaxed);
    assert_eq!(platform.nodes[1].restore_all(|_| ()).await.expect("it is there again"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_does_not_keep_a_node_from_starting() {
    let database = Arc::<Database>::default();
    let before = Platform::over(database.clone(), None).await;
    let count = PAGE + 12;
    for client in 0..count {
        let attached = before.connect(1, &format!("c-{client}"), None).await;
        before.leave(1, &attached);
    }
    before.nodes[1].journal.durable(before.nodes[1].journal.position()).await;
    (0..NAMES.len()).for_each(|node| before.cut(node, true));
    drop(before);
    let platform = Platform::over(database.clone(), None).await;
    database.fails_each.store(10, Ordering::Relaxed);
    let began = Instant::now();
    let restored = platform.nodes[1].restore_all(|why| panic!("it waits: {why}")).await;
    assert_eq!(restored.expect("the store is there"), count);
    assert!(began.elapsed() < RETRY, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_read_holds_the_others_up_for_a_while_only() {
    let database = Arc::<Database>::default();
    let platform = Platform::over(database.clone(), None).await;
    // More than one of them for each heir.
    let clients: Vec<String> = (0..20).map(|n| format!("c-{n}")).collect();
    for client in &clients {
        let attached = platform.connect(1, client, None).await;
        platform.subscribe(1, &attached, "t").await;
        platform.leave(1, &attached);
    }
    platform.publish(0, 1).await;
    let broken = "c-7";
    *database.unreadable.lock().expect("no panic") = Some(key(broken));
    platform.cut(1, true);
    let (held_up, began) = (Duration::from_millis(HELD_UP_MS), Instant::now());
    platform.publish(0, 2).await;
    assert!(began.elapsed() >= held_up && began.elapsed() < 2 * held_up, "{:?}", began.elapsed());
    let depths = |client: &str| [0, 2].map(|node| platform.session(node, client).map(|session| session.depth()));
    for client in clients.iter().filter(|client| *client != broken) {
        let depths = depths(client.as_str());
        assert!(depths.contains(&Some((2, 0))) && depths.contains(&None), "{client}: {depths:?}");
    }
    assert_eq!(depths(broken), [None, None]);

    // It is left as it is, and its client finds it when it can be read.
    *database.unreadable.lock().expect("no panic") = None;
    let attached = platform.connect(2, broken, None).await;
    assert!(attached.present);
    assert_eq!(attached.session.depth(), (1, 0), "what was kept before its node was gone");
    platform.publish(0, 3).await;
    assert_eq!(attached.session.depth(), (2, 0));
}
