//! Subscribers that are slower than the publishers of this node (ADR 40).

use std::time::Duration;

use drover_mqtt::{Ack, Packet, PacketId, ReasonCode, Version};
use drover_types::Qos;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::time::{Instant, timeout};

use crate::stage::{Client, Stage};

/// Messages that a publisher has on its way: as many as the server's receive maximum allows.
const WINDOW: u16 = 100;
/// Messages that a subscriber has in flight, and those that its inbox holds.
const ROOM: usize = 100 + 1_000;
/// When nothing comes for this long, nothing will.
const QUIET: Duration = Duration::from_millis(100);
/// Longer than all of a test takes, in virtual time.
const END: Duration = Duration::from_secs(60);

/// Publishes a window of messages, numbered from `first`.
async fn publish<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>, name: &str, first: usize) {
    for id in 1..=WINDOW {
        client.publish(id, "t", &format!("{name} {}", first + usize::from(id) - 1)).await;
    }
}

/// Publishes messages, a window at a time; returns when all are acknowledged.
async fn flood<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, name: &'static str, count: usize) {
    for first in (0..count).step_by(usize::from(WINDOW)) {
        publish(&mut client, name, first).await;
        client.expect_acks(1..=WINDOW).await;
    }
}

/// The value of a counter.
fn counted(stage: &Stage, name: &str) -> u64 {
    let text = stage.metrics.encode();
    text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn a_subscriber_that_is_slower_than_its_publishers_gets_all_that_was_acknowledged() {
    const EACH: usize = 1_500;
    let stage = Stage::new().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("#", Qos::AtLeastOnce).await;
    let names = ["a", "b", "c"];
    let mut publishers = Vec::new();
    for (name, version) in names.into_iter().zip([Version::V5, Version::V311, Version::V5]) {
        publishers.push(tokio::spawn(flood(stage.connect(version, name).await, name, EACH)));
    }
    stage.metric("drover_ingress_subscribers_awaited 1").await;
    assert!(publishers.iter().all(|publisher| !publisher.is_finished()));
    let mut got = Vec::new();
    while got.len() < names.len() * EACH {
        got.push(subscriber.message().await);
    }
    for publisher in publishers {
        publisher.await.expect("all are acknowledged");
    }
    for name in names {
        let of_one: Vec<_> = got.iter().filter(|payload| payload.starts_with(name)).cloned().collect();
        assert_eq!(of_one, (0..EACH).map(|n| format!("{name} {n}")).collect::<Vec<_>>(), "each once, in order");
    }
    assert!(!stage.metrics.encode().contains("inbox_full"));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_stands_still_is_waited_for_once_and_within_a_bound() {
    const WINDOWS: usize = 20;
    let window = usize::from(WINDOW);
    let stage = Stage::simulated().await;
    let mut still = stage.pipe(Version::V5, "still").await;
    let mut other = stage.pipe(Version::V5, "other").await;
    for subscriber in [&mut still, &mut other] {
        subscriber.subscribe("t", Qos::AtLeastOnce).await;
    }
    let mut publisher = stage.pipe(Version::V311, "p").await;
    let mut longest = Vec::new();
    for first in (0..WINDOWS * window).step_by(window) {
        publish(&mut publisher, "p", first).await;
        for n in first..first + window {
            assert_eq!(other.message().await, format!("p {n}"), "others do not wait");
        }
        let began = Instant::now();
        publisher.expect_acks(1..=WINDOW).await;
        longest.push(began.elapsed());
    }
    let waited: Vec<_> = longest.iter().filter(|waited| **waited > Duration::from_secs(1)).collect();
    assert_eq!(waited.len(), 1, "{longest:?}");
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(waited[0]), "{waited:?}");
    // The window in which it had no room any more is in its inbox, too.
    let (taken, sent) = (ROOM + window, WINDOWS * window);
    let dropped = sent - taken;
    stage.metric(&format!("drover_ingress_messages_dropped_total{{reason=\"inbox_full\"}} {dropped}")).await;
    assert_eq!(counted(&stage, "drover_ingress_subscribers_too_slow_total"), 1);

    for n in 0..taken {
        assert_eq!(still.message().await, format!("p {n}"));
    }
    publish(&mut publisher, "p", sent).await;
    publisher.expect_acks(1..=WINDOW).await;
    for n in sent..sent + window {
        assert_eq!(still.message().await, format!("p {n}"), "it has room again");
    }
}

enum Seen {
    Acknowledged,
    Message(String, PacketId),
}

/// A client that has subscribed to the topic of its own name.
async fn come(stage: &Stage, version: Version, name: &str) -> Client<DuplexStream> {
    let mut client = stage.pipe(version, name).await;
    client.subscribe(name, Qos::AtLeastOnce).await;
    client
}

/// Publishes to `topic`, and acknowledges only when nothing else is heard; what the client has got when that is as much as it
/// has sent, and all of it is acknowledged.
async fn exchange(mut client: Client<DuplexStream>, topic: &str, count: usize) -> Vec<String> {
    let (mut sent, mut acknowledged, mut got, mut owed) = (0, 0, Vec::new(), Vec::new());
    while got.len() < count || acknowledged < count || !owed.is_empty() {
        while sent < count && sent - acknowledged < usize::from(WINDOW) {
            let id = u16::try_from(1 + sent % 1_000).expect("small");
            client.publish(id, topic, &sent.to_string()).await;
            sent += 1;
        }
        let see = |packet: Packet<'_>| match packet {
            Packet::PubAck(_) => Seen::Acknowledged,
            Packet::Publish(publish) => {
                let payload = String::from_utf8_lossy(publish.payload).into_owned();
                Seen::Message(payload, publish.packet_id.expect("QoS 1"))
            }
            other => panic!("unexpected {other:?}"),
        };
        match timeout(QUIET, client.read(see)).await {
            Ok(Some(Seen::Acknowledged)) => acknowledged += 1,
            Ok(Some(Seen::Message(payload, id))) => {
                got.push(payload);
                owed.push(id);
            }
            Ok(None) => panic!("the connection was closed"),
            Err(_) => {
                for id in owed.drain(..) {
                    client.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success))).await;
                }
            }
        }
    }
    got
}

#[tokio::test(start_paused = true)]
async fn clients_that_publish_to_themselves_or_to_each_other_do_not_wait_for_ever() {
    const COUNT: usize = 3_000;
    let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
    for version in [Version::V311, Version::V5] {
        let stage = Stage::simulated().await;
        let own = exchange(come(&stage, version, "own").await, "own", COUNT);
        assert_eq!(timeout(END, own).await.expect("it goes on"), expected);
        let (one, two) = (come(&stage, version, "one").await, come(&stage, version, "two").await);
        let both = async { tokio::join!(exchange(one, "two", COUNT), exchange(two, "one", COUNT)) };
        let both = timeout(END, both).await.expect("they go on");
        assert!(both.0 == expected && both.1 == expected);
        assert!(counted(&stage, "drover_ingress_messages_withheld_total") > 0, "their inboxes were never full");
        assert!(!stage.metrics.encode().contains("inbox_full"));
    }
}
