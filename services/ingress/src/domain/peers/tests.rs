//! Peers that answer, hang, are away and come back, on virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use drover_host::Metrics;
use drover_types::{ClientId, Qos, TenantId};
use tokio::task::JoinHandle;

use super::peer::LEASE;
use super::*;
use crate::domain::session::tests::message;
use crate::domain::shares::{Group, Refused};
use crate::ports::{Answer, Batch};

/// Another node: what it was handed, and whether it can be reached.
#[derive(Default)]
struct Other {
    away: AtomicBool,
    hangs: AtomicBool,
    /// Only what waits for the store does.
    store_hangs: AtomicBool,
    got: Mutex<Vec<(u64, Vec<u8>)>>,
    asked: Mutex<Vec<u64>>,
    /// It has no members of shared subscriptions.
    refuses: AtomicBool,
    completed: AtomicU64,
    /// What it was told, as it was told.
    news: Mutex<Vec<News>>,
    groups: Mutex<Vec<Group>>,
}

#[async_trait]
impl PeerLink for Other {
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String> {
        if self.away.load(Ordering::Relaxed) {
            return Err("away".to_owned());
        }
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.store_hangs.load(Ordering::Relaxed) && !batch.messages.is_empty() {
            std::future::pending::<()>().await;
        }
        let payloads = batch.messages.iter().map(|message| message.telemetry.payload[0]).collect();
        self.got.lock().expect("not poisoned").push((batch.sequence, payloads));
        let mut told = self.news.lock().expect("not poisoned");
        let gapped = !batch.news.full && told.last().is_none_or(|last| last.to < batch.news.from);
        told.push(batch.news.clone());
        if let Some(groups) = batch.groups {
            *self.groups.lock().expect("not poisoned") = groups.to_vec();
        }
        let shares = batch.shares.iter().enumerate();
        let all = shares.flat_map(|(message, shares)| (0..shares.len()).map(move |share| Refused { message, share }));
        let refused = all.filter(|_| self.refuses.load(Ordering::Relaxed)).collect();
        let completed = self.completed.load(Ordering::Relaxed);
        Ok(Answer { node: "other".to_owned(), boot: 1, gapped, refused, completed })
    }

    async fn take_over(&self, _: &TenantId, _: &ClientId, epoch: u64) -> Result<Option<u64>, String> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.asked.lock().expect("not poisoned").push(epoch);
        Ok((epoch < 5).then_some(5))
    }
}

impl Other {
    /// The messages it was handed.
    fn messages(&self) -> Vec<u8> {
        self.got.lock().expect("not poisoned").iter().flat_map(|(_, payloads)| payloads.clone()).collect()
    }
}

struct Stage {
    other: Arc<Other>,
    peers: Arc<Peers>,
    telemetry: Arc<Telemetry>,
    metrics: Metrics,
    _running: JoinHandle<()>,
}

/// This node, and the other.
fn stage(node: &str, change: impl FnOnce(&Other)) -> Stage {
    let other = Arc::<Other>::default();
    change(&other);
    let metrics = Metrics::default();
    let telemetry = Arc::new(Telemetry::new(&metrics));
    let peers = Arc::new(Peers::new(node, vec![other.clone()], Instant::now()));
    let (talking, counting) = (peers.clone(), telemetry.clone());
    let _running = tokio::spawn(async move { talking.run(&counting, CancellationToken::new()).await });
    Stage { other, peers, telemetry, metrics, _running }
}

fn of_qos(qos: Qos, number: u8, bytes: usize) -> Arc<Message> {
    let mut payload = vec![number; bytes];
    payload[0] = number;
    let mut message = (*message(payload)).clone();
    message.telemetry.qos = qos;
    Arc::new(message)
}

fn qos1(numbers: std::ops::Range<u8>) -> Vec<Arc<Message>> {
    numbers.map(|number| of_qos(Qos::AtLeastOnce, number, 1)).collect()
}

impl Stage {
    async fn forward(&self, messages: &[Arc<Message>]) {
        self.peers.forward(messages, &[], &self.telemetry).await;
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|l| l == line)
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_qos_1_are_waited_for_and_arrive_in_order() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.forward(&qos1(0..3)).await;
    assert_eq!(stage.other.messages(), [0, 1, 2]);
    stage.forward(&[of_qos(Qos::AtMostOnce, 3, 1)]).await;
    stage.forward(&qos1(4..5)).await;
    assert_eq!(stage.other.messages(), [0, 1, 2, 3, 4], "those of QoS 0 in their place");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_answered_is_sent_again_under_its_number() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.hangs.store(true, Ordering::Relaxed);
    let (other, began) = (stage.other.clone(), Instant::now());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.hangs.store(false, Ordering::Relaxed);
    });
    stage.forward(&qos1(0..1)).await;
    assert!(began.elapsed() < LEASE && began.elapsed() > Duration::from_millis(500));
    let numbered: Vec<u64> =
        stage.other.got.lock().expect("not poisoned").iter().map(|(n, _)| *n).filter(|n| *n > 0).collect();
    assert_eq!(numbered, [1], "the first try was not answered, the second is the same batch");
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_waited_for_until_its_lease_ends_and_not_beyond_and_has_all_again_when_it_is_back() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.away.store(true, Ordering::Relaxed);
    let began = Instant::now();
    stage.forward(&qos1(0..2)).await;
    assert!(began.elapsed() <= LEASE + Duration::from_secs(1), "{:?}", began.elapsed());
    let began = Instant::now();
    stage.forward(&qos1(2..3)).await;
    assert!(began.elapsed().is_zero(), "nobody waits for one that is away");
    assert!(stage.counts("drover_ingress_messages_not_forwarded_total{reason=\"peer_away\"} 3"));

    stage.other.away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.forward(&qos1(3..4)).await;
    assert_eq!(stage.other.messages(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_store_is_away_is_waited_for_as_long_as_it_speaks() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.store_hangs.store(true, Ordering::Relaxed);
    let messages = qos1(0..1);
    let mut forwarded = Box::pin(stage.forward(&messages));
    assert!(tokio::time::timeout(LEASE * 3, &mut forwarded).await.is_err(), "it is there, and has not confirmed");
    let version = stage.peers.subscribed(&TenantId::default_tenant(), "a/b");
    let told = tokio::time::timeout(LEASE, stage.peers.announced(version)).await;
    assert!(told.is_ok(), "what is wanted does not wait for the store");
    stage.other.store_hangs.store(false, Ordering::Relaxed);
    forwarded.await;
    assert_eq!(stage.other.messages(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_qos_0_and_counts_it_and_holds_qos_1_back() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.hangs.store(true, Ordering::Relaxed);
    let large = |qos, number| [of_qos(qos, number, 255 * 1024)];
    for number in 0..140 {
        stage.forward(&large(Qos::AtMostOnce, number)).await;
    }
    let counted = (1..140)
        .find(|n| stage.counts(&format!("drover_ingress_messages_not_forwarded_total{{reason=\"queue_full\"}} {n}")));
    assert_eq!(counted, Some(140 - 128), "128 pieces of 256 KiB are 32 MiB");
    let last = large(Qos::AtLeastOnce, 200);
    assert!(tokio::time::timeout(Duration::from_millis(900), stage.forward(&last)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_finds_itself_among_its_peers_does_not_speak_to_itself() {
    let stage = stage("other", |_| ());
    stage.peers.greeted().await;
    stage.forward(&qos1(0..1)).await;
    assert!(stage.other.messages().is_empty());
    let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
    assert_eq!(stage.peers.take_over(None, &key, 1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_former_owner_is_asked_by_its_name_and_one_that_hangs_is_not_waited_for() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
    for former in [Some("other"), Some("never heard of"), None] {
        assert_eq!(stage.peers.take_over(former, &key, 7).await, None);
        assert_eq!(stage.peers.take_over(former, &key, 4).await, Some(5), "it holds what is newer");
    }
    assert_eq!(*stage.other.asked.lock().expect("not poisoned"), [7, 4, 7, 4, 7, 4]);
    stage.other.hangs.store(true, Ordering::Relaxed);
    let began = Instant::now();
    assert_eq!(stage.peers.take_over(Some("other"), &key, 8).await, None);
    assert!(began.elapsed() >= TAKE_OVER && began.elapsed() < TAKE_OVER * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_never_there_holds_the_start_up_for_a_lease_only() {
    let stage = stage("this", |other| other.away.store(true, Ordering::Relaxed));
    let began = Instant::now();
    stage.peers.greeted().await;
    assert!(began.elapsed() >= LEASE && began.elapsed() < LEASE * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_to_the_peers_that_may_want_it_only() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let tenant = TenantId::default_tenant();
    let news = |hashes: Vec<u64>| News { full: true, everything: false, from: 0, to: 1, generation: 0, hashes };
    assert!(stage.peers.hear("other", 1, news(vec![interest::of_filter(&tenant, "u/#")])));
    stage.forward(&qos1(0..1)).await;
    assert!(stage.other.messages().is_empty(), "the topic is t");
    assert!(stage.peers.hear("other", 2, news(vec![interest::of_filter(&tenant, "t")])));
    stage.forward(&qos1(1..2)).await;
    tokio::time::sleep(LEASE).await;
    assert!(stage.peers.hear("other", 3, news(Vec::new())));
    tokio::time::sleep(LEASE).await;
    stage.forward(&qos1(2..3)).await;
    assert_eq!(stage.other.messages(), [1, 2], "one that has said nothing for a lease may want everything");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_answered_when_every_peer_knows_of_it_or_its_lease_has_ended() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let tenant = TenantId::default_tenant();
    let told = |filter: &str| {
        let hash = interest::of_filter(&tenant, filter);
        stage.other.news.lock().expect("not poisoned").iter().any(|news| news.hashes.contains(&hash))
    };
    stage.peers.announced(stage.peers.subscribed(&tenant, "a/b")).await;
    assert!(told("a/b"));
    stage.other.hangs.store(true, Ordering::Relaxed);
    let began = Instant::now();
    stage.peers.announced(stage.peers.subscribed(&tenant, "c/#")).await;
    assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < LEASE * 2, "{:?}", began.elapsed());
    stage.other.hangs.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(told("c/#"), "it is back, and is told all");
}

const SHARED: &str = "$share/g/t";

/// The first of several messages is for a member on the other node.
fn placed() -> [Placed; 1] {
    [Placed { at: 0, node: "other".into(), share: Share::new(SHARED.into()) }]
}

#[tokio::test(start_paused = true)]
async fn peers_know_of_a_shared_subscription_when_it_is_answered_and_hear_when_it_is_gone() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let tenant = TenantId::default_tenant();
    let group = Group { tenant: tenant.clone(), filter: SHARED.into() };
    stage.peers.announced(stage.peers.subscribed(&tenant, SHARED)).await;
    assert_eq!(*stage.other.groups.lock().expect("not poisoned"), [group]);
    let wanted = interest::of_filter(&tenant, "t");
    let is_wanted = |news: &News| news.hashes.contains(&wanted);
    assert!(
        !stage.other.news.lock().expect("not poisoned").iter().any(is_wanted),
        "it is asked for what it shall have"
    );
    stage.peers.unsubscribed(&tenant, SHARED);
    tokio::time::sleep(LEASE).await;
    assert!(stage.other.groups.lock().expect("not poisoned").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_has_no_member_for_is_waited_for_until_somebody_else_has_it() {
    let stage = stage("this", |other| other.refuses.store(true, Ordering::Relaxed));
    stage.peers.greeted().await;
    let confirmations = stage.peers.offer(&qos1(0..2), &placed(), &stage.telemetry).await;
    let unplaced = stage.peers.unplaced.next().await;
    assert_eq!(unplaced.len(), 1);
    assert_eq!(unplaced[0].share.tried, [Arc::<str>::from("other")]);
    stage.peers.groups.hear("other", vec![Group { tenant: TenantId::default_tenant(), filter: SHARED.into() }]);
    let member = |share: &Share| stage.peers.member(&TenantId::default_tenant(), share);
    assert_eq!(member(&unplaced[0].share), None, "it was asked");
    assert_eq!(member(&Share::new(SHARED.into())).as_deref(), Some("other"));
    let mut all = Box::pin(confirmations.all());
    assert!(tokio::time::timeout(LEASE * 2, &mut all).await.is_err(), "nobody has it yet");
    drop(unplaced);
    all.await;
}

#[tokio::test(start_paused = true)]
async fn what_members_of_a_lost_peer_have_not_done_with_is_given_back() {
    for (completed, lost) in [(0, 1), (u64::MAX, 0)] {
        let stage = stage("this", |_| ());
        stage.peers.greeted().await;
        stage.peers.forward(&qos1(0..1), &placed(), &stage.telemetry).await;
        stage.other.completed.store(completed, Ordering::Relaxed);
        tokio::time::sleep(LEASE).await; // it has told
        stage.other.away.store(true, Ordering::Relaxed);
        let given_back = tokio::time::timeout(LEASE * 3, stage.peers.unplaced.next()).await.unwrap_or_default();
        assert_eq!(given_back.len(), lost);
        assert!(given_back.iter().all(|unplaced| unplaced.share == Share::new(SHARED.into())));
    }
}
