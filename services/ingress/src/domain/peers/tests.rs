//! Peers that answer, hang, are away and come back, on virtual time.

mod shares;

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
use crate::ports::{Answer, Batch, Claimed, Heir};

/// Another node: what it was handed, and whether it can be reached.
#[derive(Default)]
struct Other {
    /// Its name, if that is not `other`.
    name: Option<&'static str>,
    /// It takes its sessions of before back.
    starts: AtomicBool,
    /// How often it has started anew.
    restarts: AtomicU64,
    heir: Own,
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

/// One that takes what nodes leave: what it was asked for, and what it has inherited.
#[derive(Default)]
struct Own {
    /// Its store is away.
    hangs: AtomicBool,
    /// It has heard the node that is said to be gone.
    hears: AtomicBool,
    /// It has no part in what others leave.
    never: AtomicBool,
    /// How long its inboxes take.
    inherits_ms: AtomicU64,
    claims: Mutex<Vec<(String, Vec<String>)>>,
    inherited: Mutex<Vec<u8>>,
}

#[async_trait]
impl Heir for Own {
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String> {
        while self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.claims.lock().expect("not poisoned").push((gone.to_owned(), live.to_vec()));
        if self.never.load(Ordering::Relaxed) {
            return Ok(Claimed::Never);
        }
        Ok(if self.hears.load(Ordering::Relaxed) { Claimed::Returned } else { Claimed::Done })
    }

    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        tokio::time::sleep(Duration::from_millis(self.inherits_ms.load(Ordering::Relaxed))).await;
        let mut inherited = self.inherited.lock().expect("not poisoned");
        for payload in messages.iter().map(|message| message.telemetry.payload[0]) {
            if !inherited.contains(&payload) {
                inherited.push(payload); // what a session has it does not get again
            }
        }
        Ok(())
    }
}

#[async_trait]
impl OwnHeir for Own {
    async fn nodes(&self) -> Vec<String> {
        ["this", "other", "unheard"].map(str::to_owned).to_vec()
    }
}

impl Own {
    fn inherited(&self) -> Vec<u8> {
        self.inherited.lock().expect("not poisoned").clone()
    }
}

#[async_trait]
impl Heir for Other {
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String> {
        self.heir.claim(gone, live).await
    }

    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        self.heir.inherit(messages).await
    }
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
        let starting = self.starts.load(Ordering::Relaxed);
        if !starting {
            let payloads = batch.messages.iter().map(|message| message.telemetry.payload[0]).collect();
            self.got.lock().expect("not poisoned").push((batch.sequence, payloads));
        }
        let mut told = self.news.lock().expect("not poisoned");
        let gapped = !batch.news.full && told.last().is_none_or(|last| last.to < batch.news.from);
        told.push(batch.news.clone());
        if let Some(groups) = batch.groups {
            *self.groups.lock().expect("not poisoned") = groups.to_vec();
        }
        let shares = batch.shares.iter().enumerate();
        let all = shares.flat_map(|(message, shares)| (0..shares.len()).map(move |share| Refused { message, share }));
        let refused = all.filter(|_| self.refuses.load(Ordering::Relaxed)).collect();
        let (node, boot) = (self.name.unwrap_or("other").to_owned(), 1 + self.restarts.load(Ordering::Relaxed));
        let completed = self.completed.load(Ordering::Relaxed);
        Ok(Answer { node, boot, gapped, refused, completed, starting })
    }

    async fn take_over(&self, _: &TenantId, _: &ClientId, epoch: u64) -> Result<Option<u64>, String> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.asked.lock().expect("not poisoned").push(epoch);
        Ok((epoch < 5).then_some(5))
    }

    async fn flush(&self) -> Result<(), String> {
        Ok(())
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
    stage_of(node, None, None, change)
}

/// The same with a third node, and an heir on this one.
fn stage_of(node: &str, third: Option<Arc<Other>>, own: Option<Arc<Own>>, change: impl FnOnce(&Other)) -> Stage {
    let other = Arc::<Other>::default();
    change(&other);
    let metrics = Metrics::default();
    let telemetry = Arc::new(Telemetry::new(&metrics));
    let mut links: Vec<Arc<dyn PeerLink>> = vec![other.clone()];
    links.extend(third.map(|third| -> Arc<dyn PeerLink> { third }));
    let peers = Arc::new(Peers::new(node, links, Instant::now()));
    let (talking, counting) = (peers.clone(), telemetry.clone());
    let _running = tokio::spawn(async move {
        let own = own.as_deref().map(|own| own as &dyn OwnHeir);
        talking.run(own, &counting, CancellationToken::new()).await;
    });
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
        self.peers.forward(messages, &[], self.peers.round(), &self.telemetry).await;
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
async fn what_is_in_no_log_goes_to_peers_that_are_known_to_want_it() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let home = TenantId::default_tenant();
    let tell = |number| stage.peers.tell(&of_qos(Qos::AtMostOnce, number, 1), &stage.telemetry);
    assert!(!stage.peers.is_any_known_to_want(&home, "t"), "it has told nothing");
    tell(1);
    let hashes = vec![interest::of_filter(&home, "t")];
    let news = News { full: true, everything: false, from: 0, to: 1, generation: 0, hashes };
    assert!(stage.peers.hear("other", 1, news));
    assert!(stage.peers.is_any_known_to_want(&home, "t") && !stage.peers.is_any_known_to_want(&home, "u"));
    tell(2);
    stage.forward(&qos1(3..4)).await;
    assert_eq!(stage.other.messages(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_finds_itself_among_its_peers_does_not_speak_to_itself() {
    let stage = stage("other", |_| ());
    stage.peers.greeted().await;
    stage.forward(&qos1(0..1)).await;
    assert!(stage.other.messages().is_empty());
    let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
    assert_eq!(stage.peers.take_over(None, &key, 1).await, Ended::Done);
}

#[tokio::test(start_paused = true)]
async fn a_former_owner_is_asked_by_its_name_and_one_that_hangs_is_not_waited_for() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
    for (former, ended) in
        [(Some("other"), Ended::Done), (Some("never heard of"), Ended::Unanswered), (None, Ended::Done)]
    {
        assert_eq!(stage.peers.take_over(former, &key, 7).await, ended);
        assert_eq!(stage.peers.take_over(former, &key, 4).await, Ended::Newer(5), "it holds what is newer");
    }
    assert_eq!(*stage.other.asked.lock().expect("not poisoned"), [7, 4, 7, 4, 7, 4]);
    stage.other.hangs.store(true, Ordering::Relaxed);
    let began = Instant::now();
    assert_eq!(stage.peers.take_over(Some("other"), &key, 8).await, Ended::Unanswered);
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

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_waited_for_until_the_others_have_its_sessions_and_what_was_for_it() {
    let (third, own) = (Arc::new(Other { name: Some("third"), ..Other::default() }), Arc::<Own>::default());
    let stage = stage_of("this", Some(third.clone()), Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    own.hangs.store(true, Ordering::Relaxed);
    stage.other.away.store(true, Ordering::Relaxed);
    let messages = qos1(0..2);
    let mut forwarded = Box::pin(stage.forward(&messages));
    assert!(tokio::time::timeout(LEASE * 4, &mut forwarded).await.is_err(), "nobody has claimed its sessions");
    let version = stage.peers.subscribed(&TenantId::default_tenant(), "a/b");
    assert!(tokio::time::timeout(LEASE, stage.peers.announced(version)).await.is_ok(), "it need not know of that");
    stage.forward(&[of_qos(Qos::AtMostOnce, 9, 1)]).await;
    own.hangs.store(false, Ordering::Relaxed);
    forwarded.await;
    for heir in [&*own, &third.heir] {
        let claims = heir.claims.lock().expect("not poisoned").clone();
        assert!(claims.iter().all(|(gone, live)| gone == "other" && *live == ["third", "this"]), "{claims:?}");
        assert!(!claims.is_empty());
        assert_eq!(heir.inherited(), [0, 1]);
    }
    assert!(stage.other.messages().is_empty());

    let began = Instant::now();
    stage.forward(&qos1(2..3)).await;
    assert!(began.elapsed() < Duration::from_millis(100), "it is away");
    assert_eq!((own.inherited(), third.heir.claims.lock().expect("not poisoned").len()), (vec![0, 1], 1));
}

#[tokio::test(start_paused = true)]
async fn the_share_of_one_that_has_no_part_in_what_others_leave_is_for_the_others() {
    let (third, own) = (Arc::new(Other { name: Some("third"), ..Other::default() }), Arc::<Own>::default());
    let stage = stage_of("this", Some(third.clone()), Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    third.heir.never.store(true, Ordering::Relaxed);
    stage.other.away.store(true, Ordering::Relaxed);
    stage.forward(&qos1(0..1)).await;
    let claims = own.claims.lock().expect("not poisoned").clone();
    let live: Vec<_> = claims.iter().map(|(_, live)| live.join(" ")).collect();
    assert_eq!(live, ["third this", "this"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_routed_before_the_sessions_of_a_peer_were_claimed_is_inherited_however_late_it_comes() {
    let own = Arc::<Own>::default();
    let stage = stage_of("this", None, Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    let before = stage.peers.round();
    stage.other.away.store(true, Ordering::Relaxed);
    stage.forward(&qos1(0..1)).await;
    assert!(stage.peers.round() > before);
    stage.peers.forward(&qos1(1..2), &[], before, &stage.telemetry).await;
    assert_eq!(own.inherited(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_sessions_are_claimed_comes_back_however_much_is_published() {
    let own = Arc::new(Own { inherits_ms: AtomicU64::new(200), ..Own::default() });
    let stage = stage_of("this", None, Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    stage.other.away.store(true, Ordering::Relaxed);
    let publishing = async {
        for number in (0..100).cycle() {
            let messages = qos1(number..number + 1);
            drop(stage.peers.offer(&messages, &[], stage.peers.round(), &stage.telemetry).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut publishing = Box::pin(publishing);
    assert!(tokio::time::timeout(LEASE * 3, &mut publishing).await.is_err(), "it goes on");
    assert!(!stage.peers.is_live("other") && own.inherited().contains(&0));
    stage.other.away.store(false, Ordering::Relaxed);
    assert!(tokio::time::timeout(LEASE, &mut publishing).await.is_err(), "it goes on");
    assert!(stage.peers.is_live("other"), "it was spoken to");
    assert!(!stage.other.messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_another_hears_has_what_is_inherited_as_well_when_it_is_back() {
    let own = Arc::<Own>::default();
    let stage = stage_of("this", None, Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    own.hears.store(true, Ordering::Relaxed);
    stage.other.away.store(true, Ordering::Relaxed);
    let other = stage.other.clone();
    tokio::spawn(async move {
        tokio::time::sleep(LEASE + Duration::from_secs(2)).await;
        other.away.store(false, Ordering::Relaxed);
    });
    stage.forward(&qos1(0..2)).await;
    assert_eq!((own.inherited(), stage.other.messages()), (vec![0, 1], vec![0, 1]));

    stage.other.away.store(true, Ordering::Relaxed);
    let began = Instant::now();
    stage.forward(&qos1(2..3)).await;
    assert!(began.elapsed() >= LEASE && began.elapsed() < LEASE * 3, "one lease more: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_its_sessions_back_gets_messages_when_it_has_them() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.starts.store(true, Ordering::Relaxed);
    let messages = qos1(0..2);
    let mut forwarded = Box::pin(stage.forward(&messages));
    assert!(tokio::time::timeout(LEASE * 3, &mut forwarded).await.is_err(), "it is there");
    stage.other.starts.store(false, Ordering::Relaxed);
    forwarded.await;
    assert_eq!(stage.other.messages(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_sessions_back_wants_everything_until_it_has_them() {
    let other = Arc::<Other>::default();
    let peers = Peers::new("this", vec![other.clone()], Instant::now()).starting();
    let telemetry = Telemetry::new(&Metrics::default());
    let tenant = TenantId::default_tenant();
    let test = async {
        peers.greeted().await;
        assert!(peers.is_starting());
        peers.announced(peers.subscribed(&tenant, "a")).await;
        peers.opened();
        assert!(!peers.is_starting());
        tokio::time::sleep(LEASE).await;
        let told = other.news.lock().expect("not poisoned");
        assert!(told[0].everything);
        let full = told.iter().rfind(|news| news.full).expect("it was told all anew");
        assert!(!full.everything && full.hashes == [interest::of_filter(&tenant, "a")]);
    };
    let stop = CancellationToken::new();
    let done = async {
        test.await;
        stop.cancel();
    };
    tokio::join!(peers.run(None, &telemetry, stop.clone()), done);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_stores_are_away_is_none_for_its_peers() {
    let other = Arc::<Other>::default();
    let peers = Peers::new("this", vec![other.clone()], Instant::now()).starting().closed();
    let telemetry = Telemetry::new(&Metrics::default());
    let test = async {
        assert!(tokio::time::timeout(LEASE * 2, peers.greeted()).await.is_err());
        assert!(!peers.admits() && other.news.lock().expect("not poisoned").is_empty(), "it has said nothing");
        peers.admit();
        peers.greeted().await;
        assert!(peers.admits() && peers.is_live("other"));
    };
    let stop = CancellationToken::new();
    let done = async {
        test.await;
        stop.cancel();
    };
    tokio::join!(peers.run(None, &telemetry, stop.clone()), done);
    assert!(Peers::new("this", Vec::new(), Instant::now()).closed().admits(), "there is nobody to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_heard_again_and_is_silent_since_is_not_back() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.other.away.store(true, Ordering::Relaxed);
    tokio::time::sleep(LEASE * 3).await;
    assert!(!stage.peers.is_live("other"));
    let news = News { full: true, everything: false, from: 0, to: 1, generation: 0, hashes: Vec::new() };
    assert!(stage.peers.hear("other", 1, news));
    assert!(stage.peers.is_back("other"));
    tokio::time::sleep(LEASE).await;
    assert!(!stage.peers.is_back("other"));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_a_peer_can_be_waited_for() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.peers.flushed().await;
    stage.other.store_hangs.store(true, Ordering::Relaxed);
    drop(stage.peers.offer(&qos1(0..2), &[], 0, &stage.telemetry).await);
    let mut flushed = Box::pin(stage.peers.flushed());
    assert!(tokio::time::timeout(LEASE, &mut flushed).await.is_err());
    stage.other.store_hangs.store(false, Ordering::Relaxed);
    flushed.await;
    assert_eq!(stage.other.messages(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn of_a_peer_that_never_answered_the_sessions_of_all_nodes_that_nobody_has_heard_are_claimed() {
    let third = Arc::new(Other { name: Some("other"), ..Other::default() });
    let own = Arc::<Own>::default();
    let stage = stage_of("this", Some(third), Some(own.clone()), |other| other.away.store(true, Ordering::Relaxed));
    stage.forward(&qos1(0..1)).await;
    let claims = own.claims.lock().expect("not poisoned").clone();
    assert_eq!(claims, [("unheard".to_owned(), vec!["other".to_owned(), "this".to_owned()])]);
    assert_eq!(own.inherited(), [0]);
}
