//! Appends and reads under which the cluster is harmed, and what must have come of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_bus::{Bus, Offset, ReadError, Receipt, Topic, TopicPartition};
use drover_bus_kafka::KafkaBus;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::broker::{record, topic, value, values, within};

pub const PARTITIONS: u32 = 3;
/// Two for most partitions.
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Records of an append, and appends of a key on their way at a time.
const BATCH: usize = 5;
const UNDER_WAY: usize = 4;
/// Pause of a follower that was told that nobody knows.
const AGAIN: Duration = Duration::from_millis(50);

/// Appends to a topic of its own, key by key in order, and followers of all its partitions; until it is ended.
pub struct Load {
    bus: KafkaBus,
    pub topic: Topic,
    is_on: watch::Sender<bool>,
    is_followed: watch::Sender<bool>,
    lanes: Vec<(Arc<Lane>, JoinHandle<()>)>,
    followers: Vec<JoinHandle<Vec<String>>>,
}

/// What has become of one key's records.
#[derive(Default)]
struct Lane {
    taken: AtomicUsize,
    acknowledged: AtomicUsize,
}

impl Load {
    /// Appends of a key are so far apart at least.
    pub async fn start(bus: &KafkaBus, name: &str, apart: Duration) -> Self {
        let topic = topic(bus, name, PARTITIONS).await;
        let (is_on, is_followed) = (watch::channel(true).0, watch::channel(true).0);
        let lane = |key| {
            let (lane, bus, topic, is_on) = (Arc::<Lane>::default(), bus.clone(), topic.clone(), is_on.subscribe());
            let running = lane.clone();
            (lane, tokio::spawn(async move { running.run(&bus, &topic, key, apart, is_on).await }))
        };
        let lanes = KEYS.into_iter().map(lane).collect();
        let follower = |partition| {
            let at = TopicPartition::new(topic.clone(), partition);
            tokio::spawn(follow(bus.clone(), at, is_followed.subscribe()))
        };
        let followers = (0..PARTITIONS).map(follower).collect();
        Self { bus: bus.clone(), topic, is_on, is_followed, lanes, followers }
    }

    /// Returns when of each key all that has been taken by now is acknowledged, and some more; how long that took.
    pub async fn goes_on(&self) -> Duration {
        let since = Instant::now();
        for (lane, _) in &self.lanes {
            let now = lane.taken.load(Ordering::Relaxed);
            within(async {
                while lane.acknowledged.load(Ordering::Relaxed) <= now {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        since.elapsed()
    }

    /// Records that are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.lanes.iter().map(|(lane, _)| lane.acknowledged.load(Ordering::Relaxed)).sum()
    }

    /// Appends no more, and fails unless all was acknowledged and is there, for followers too: in order, each once. Returns
    /// how many there are of each key.
    pub async fn end(self) -> Vec<usize> {
        self.is_on.send_replace(false);
        let mut counts = Vec::new();
        for (lane, appending) in self.lanes {
            within(appending).await.expect("a cluster that goes on is no reason to give a record up");
            counts.push(lane.acknowledged.load(Ordering::Relaxed));
        }
        check(&self.bus, &self.topic, &counts).await;
        self.is_followed.send_replace(false);
        for (partition, following) in (0..).zip(self.followers) {
            let followed =
                within(following).await.expect("a follower hears of no other failure than that nobody answers");
            let stored = within(values(&self.bus, &self.topic, partition)).await;
            assert!(followed == stored, "{partition}: a follower has read something else than there is");
        }
        counts
    }
}

impl Lane {
    async fn run(&self, bus: &KafkaBus, topic: &Topic, key: &str, apart: Duration, is_on: watch::Receiver<bool>) {
        let mut under_way = VecDeque::<Receipt>::new();
        loop {
            let is_on = *is_on.borrow();
            if under_way.len() >= if is_on { UNDER_WAY } else { 1 } {
                let receipt = under_way.pop_front().expect("there is one");
                let positions = receipt.await.expect("is acknowledged");
                self.acknowledged.fetch_add(positions.len(), Ordering::Relaxed);
            } else if is_on {
                let number = self.taken.fetch_add(BATCH, Ordering::Relaxed);
                let batch = (number..number + BATCH).map(|number| record(topic, key, &format!("{key}-{number}")));
                under_way.push_back(bus.append(batch.collect()).await.expect("is taken"));
                tokio::time::sleep(apart).await;
            } else {
                return;
            }
        }
    }
}

/// Reads on from where the last read ended, up to the end there is when nobody wants more.
async fn follow(bus: KafkaBus, at: TopicPartition, is_followed: watch::Receiver<bool>) -> Vec<String> {
    let (mut next, mut followed): (Offset, Vec<String>) = (0, Vec::new());
    loop {
        let is_followed = *is_followed.borrow();
        match bus.read(&at, next, 1 << 20, Duration::from_millis(100)).await {
            Ok(read) if read.is_empty() && !is_followed => return followed,
            Ok(read) => {
                next = read.last().map_or(next, |last| last.position.offset + 1);
                followed.extend(read.iter().map(value));
            }
            Err(ReadError::Unavailable { .. }) => tokio::time::sleep(AGAIN).await,
            Err(error) => panic!("{}/{}: {error}", at.topic, at.partition),
        }
    }
}

/// Fails unless a topic has of each key all numbers below its count: in order, each once.
pub async fn check(bus: &KafkaBus, topic: &Topic, counts: &[usize]) {
    let mut stored = BTreeMap::<String, Vec<usize>>::new();
    for partition in 0..PARTITIONS {
        for value in within(values(bus, topic, partition)).await {
            let (key, number) = value.split_once('-').expect("a key and a number");
            stored.entry(key.to_owned()).or_default().push(number.parse().expect("a number"));
        }
    }
    let failure = |(key, count): (&&str, &usize)| {
        let of_key = stored.get(*key).map_or(&[][..], Vec::as_slice);
        let misplaced = of_key.iter().enumerate().find(|(place, number)| place != *number);
        let is_right = of_key.len() == *count && misplaced.is_none();
        (!is_right).then(|| format!("{key}: {} of {count}, the first out of its place: {misplaced:?}", of_key.len()))
    };
    let failures: Vec<String> = KEYS.iter().zip(counts).filter_map(failure).collect();
    assert!(failures.is_empty(), "{topic}: {failures:#?}");
}
