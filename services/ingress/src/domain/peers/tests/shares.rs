//! What peers know of shared subscriptions, and what becomes of messages for members on them.

use super::*;

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
    let confirmations = stage.peers.offer(&qos1(0..2), &placed(), 0, &stage.telemetry).await;
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
        stage.peers.forward(&qos1(0..1), &placed(), 0, &stage.telemetry).await;
        stage.other.completed.store(completed, Ordering::Relaxed);
        tokio::time::sleep(LEASE).await; // it has told
        stage.other.away.store(true, Ordering::Relaxed);
        let given_back = tokio::time::timeout(LEASE * 3, stage.peers.unplaced.next()).await.unwrap_or_default();
        assert_eq!(given_back.len(), lost);
        assert!(given_back.iter().all(|unplaced| unplaced.share == Share::new(SHARED.into())));
    }
}

/// The payloads of messages that somebody else is to be found for, as soon as there are any.
async fn unplaced(stage: &Stage) -> Vec<u8> {
    let unplaced = tokio::time::timeout(LEASE * 4, stage.peers.unplaced.next()).await.unwrap_or_default();
    assert!(unplaced.iter().all(|unplaced| unplaced.share == Share::new(SHARED.into())), "nobody was asked");
    unplaced.iter().map(|unplaced| unplaced.message.telemetry.payload[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_for_members_on_a_node_that_is_gone_is_given_back_when_its_sessions_are_claimed() {
    let own = Arc::<Own>::default();
    let stage = stage_of("this", None, Some(own.clone()), |_| ());
    stage.peers.greeted().await;
    stage.peers.groups.hear("other", vec![Group { tenant: TenantId::default_tenant(), filter: SHARED.into() }]);
    let leaving = || stage.peers.leaving_member(&TenantId::default_tenant(), &Share::new(SHARED.into()));
    stage.peers.forward(&qos1(0..1), &placed(), 0, &stage.telemetry).await;
    own.hangs.store(true, Ordering::Relaxed);
    stage.other.away.store(true, Ordering::Relaxed);
    let all = stage.peers.offer(&qos1(1..2), &placed(), 0, &stage.telemetry).await.all();
    let mut all = Box::pin(all);
    assert!(tokio::time::timeout(LEASE * 3, &mut all).await.is_err(), "nobody has claimed its sessions");
    assert_eq!(leaving().as_deref(), Some("other"), "members that are away will be somewhere");
    assert!(tokio::time::timeout(LEASE, stage.peers.unplaced.next()).await.is_err(), "they are nowhere yet");
    own.hangs.store(false, Ordering::Relaxed);
    assert_eq!(unplaced(&stage).await, [0, 1], "what its members had, and what was on its way to them");
    all.await;
    assert_eq!((leaving(), own.inherited()), (None, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_a_starting_peer_has_not_taken_is_given_to_members_once_when_it_has_its_sessions() {
    let stage = stage("this", |_| ());
    stage.peers.greeted().await;
    stage.peers.forward(&qos1(0..1), &placed(), 0, &stage.telemetry).await;
    stage.other.starts.store(true, Ordering::Relaxed);
    stage.other.restarts.store(1, Ordering::Relaxed);
    let (messages, placed) = (qos1(1..2), placed());
    let mut forwarded = Box::pin(stage.peers.forward(&messages, &placed, 0, &stage.telemetry));
    assert!(tokio::time::timeout(LEASE * 2, &mut forwarded).await.is_err(), "it has not taken it");
    assert_eq!(unplaced(&stage).await, [0], "its members of before are gone with it");
    stage.other.starts.store(false, Ordering::Relaxed);
    forwarded.await;
    assert_eq!(stage.other.messages(), [0, 1]);
    assert!(unplaced(&stage).await.is_empty(), "it has given it to a member");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_sessions_back_tells_of_its_shared_subscriptions_when_it_has_them() {
    let other = Arc::<Other>::default();
    let before = Group { tenant: TenantId::default_tenant(), filter: "$share/before/t".into() };
    other.groups.lock().expect("not poisoned").push(before.clone());
    let peers = Peers::new("this", vec![other.clone()], Instant::now()).starting();
    let telemetry = Telemetry::new(&Metrics::default());
    let groups = || other.groups.lock().expect("not poisoned").clone();
    let test = async {
        peers.greeted().await;
        let tenant = TenantId::default_tenant();
        peers.announced(peers.subscribed(&tenant, SHARED)).await;
        assert_eq!(groups(), [before], "what is known of it still holds");
        peers.opened();
        tokio::time::sleep(LEASE).await;
        assert_eq!(groups(), [Group { tenant, filter: SHARED.into() }]);
    };
    let stop = CancellationToken::new();
    let done = async {
        test.await;
        stop.cancel();
    };
    tokio::join!(peers.run(None, &telemetry, stop.clone()), done);
}
