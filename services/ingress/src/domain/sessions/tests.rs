//! Sessions through connects, closes, expiry, revocations, and the take-over by another node.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use drover_types::{DeviceId, FixedClock, Qos, TopicName};

use super::*;
use crate::domain::authorize::Policy;
use crate::domain::journal::tests::Told;
use crate::domain::link::Stop;
use crate::domain::revocations::{REVOCATIONS_MAX, Revocation, Whose};
use crate::ports::sessions::{Away, Head, Stored};

/// With a higher epoch than all before.
fn attach(generation: u64, expiry_s: u32, will_delay_s: Option<u32>) -> Attach {
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    let identity = Identity {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("d").expect("valid"),
        credential: "k".into(),
        policy: Policy::default(),
        expires_ms: 0,
        generation,
    };
    let publication = Publication {
        topic: TopicName::new("w").expect("valid"),
        payload: Bytes::new(),
        qos: Qos::AtMostOnce,
        retain: false,
        dup: false,
        packet_id: 0,
        properties: None,
    };
    Attach {
        identity: Arc::new(identity),
        client: ClientId::new("c").expect("valid"),
        epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
        clean_start: false,
        expiry_s,
        will: will_delay_s.map(|delay_s| Will { publication, delay_s }),
        version: Version::V5.into(),
        peer: ([127, 0, 0, 1], 1).into(),
        link: Arc::default(),
    }
}

fn detach(sessions: &Sessions, attached: &Attached, expiry_s: u32, now_ms: u64) -> Aftermath {
    let lost = CloseReason::ConnectionLost;
    sessions.detach(&attached.publisher, expiry_s, WillFate::Publish, lost, now_ms, |_| ())
}

#[test]
fn reports_of_a_client_alternate_and_their_epochs_grow() {
    let sessions = Sessions::new(10);
    let mut reports = Vec::new();
    let (first, _) = sessions.attach(attach(0, 0, None), 0, |r| reports.push(r)).expect("attached");
    let (second, _) = sessions.attach(attach(0, 0, None), 0, |r| reports.push(r)).expect("attached");
    for attached in [&first, &second] {
        let lost = CloseReason::ConnectionLost;
        sessions.detach(&attached.publisher, 0, WillFate::Publish, lost, 0, |r| reports.push(r));
    }
    let seen: Vec<(u64, bool)> =
        reports.iter().map(|r| (r.publisher.epoch, matches!(r.what, Presence::Connected { .. }))).collect();
    let [one, two] = [&first, &second].map(|attached| attached.publisher.epoch);
    assert_eq!(seen, [(one, true), (one, false), (two, true), (two, false)]);
    assert_eq!(sessions.counts(), (0, 0));
}

#[test]
fn a_session_is_present_until_it_expires() {
    let sessions = Sessions::new(10);
    let (first, _) = sessions.attach(attach(0, 10, None), 0, |_| ()).expect("attached");
    assert!(!first.present);
    detach(&sessions, &first, 10, 0);
    let (second, _) = sessions.attach(attach(0, 10, None), 9_999, |_| ()).expect("attached");
    assert!(second.present && second.session.number == first.session.number);
    detach(&sessions, &second, 10, 10_000);
    assert!(sessions.tick(19_999).ended.is_empty());
    assert_eq!(sessions.tick(20_000).ended.len(), 1);
    let (third, _) = sessions.attach(attach(0, 10, None), 20_000, |_| ()).expect("attached");
    assert!(!third.present);
}

#[test]
fn a_delayed_will_waits_for_its_client_and_no_longer_than_its_session() {
    let sessions = Sessions::new(10);
    let (first, _) = sessions.attach(attach(0, 10, Some(5)), 0, |_| ()).expect("attached");
    assert!(detach(&sessions, &first, 10, 0).wills.is_empty());
    let (second, aftermath) = sessions.attach(attach(0, 10, Some(5)), 4_999, |_| ()).expect("attached");
    assert!(aftermath.wills.is_empty() && sessions.tick(9_000).wills.is_empty(), "[MQTT-3.1.3-9]");
    detach(&sessions, &second, 10, 10_000);
    assert!(sessions.tick(14_999).wills.is_empty());
    assert_eq!(sessions.tick(15_000).wills.len(), 1);
    assert!(sessions.tick(20_000).wills.is_empty(), "once");

    let (third, _) = sessions.attach(attach(0, 2, Some(5)), 30_000, |_| ()).expect("attached");
    detach(&sessions, &third, 2, 30_000);
    assert_eq!(sessions.tick(32_000).wills.len(), 1, "the session has ended");
    let (fourth, _) = sessions.attach(attach(0, 0, Some(5)), 40_000, |_| ()).expect("attached");
    assert_eq!(detach(&sessions, &fourth, 0, 40_000).wills.len(), 1);
}

/// Sessions that are kept, at this time of the world.
fn kept_sessions(unix_ms: u64) -> Sessions {
    kept_with(&Arc::new(FixedClock::at(unix_ms))).0
}

fn kept_with(clock: &Arc<FixedClock>) -> (Sessions, Arc<Journal>) {
    let journal = Arc::new(Journal::new(Arc::new(Told::default()), clock.clone()));
    (Sessions::new(10).kept_by(journal.clone()), journal)
}

fn kept(epoch: u64, expiry_s: u32, away: Option<Away>) -> Kept {
    let will = attach(0, 0, Some(5)).will;
    let head = Head { epoch: 1, device: DeviceId::new("d").expect("valid"), expiry_s, away, will, sent: None };
    let stored = Stored { head, subscriptions: Vec::new(), received: Vec::new(), stamp: 1, node: "a".into() };
    Kept { key: key(), epoch, stored, rows: Vec::new(), unsettled: false }
}

#[test]
fn a_session_comes_back_for_as_long_as_it_has_left_and_so_does_its_will() {
    let away = |ends_ms, will_ms| Some(Away { ends_ms, will_ms });
    // Monotonic times begin anew: 7 here is 100,000 in the world.
    let restored = |expiry_s, away| {
        let sessions = kept_sessions(100_000);
        let (session, aftermath) = sessions.restore(kept(2, expiry_s, away), 7);
        (sessions, session, aftermath.wills.len(), aftermath.ended.len())
    };
    let (sessions, session, wills, ended) = restored(60, away(110_000, 105_000));
    assert_eq!((session.is_some(), wills, ended), (true, 0, 0));
    assert!(sessions.tick(5_006).wills.is_empty());
    assert_eq!(sessions.tick(5_007).wills.len(), 1);
    assert!(sessions.tick(10_006).ended.is_empty());
    assert_eq!(sessions.tick(10_007).ended.len(), 1);

    let (_, session, wills, ended) = restored(60, away(110_000, 99_000));
    assert_eq!((session.is_some(), wills, ended), (true, 1, 0), "its will was due meanwhile");
    let (_, session, wills, ended) = restored(60, away(99_000, 105_000));
    assert_eq!((session.is_none(), wills, ended), (true, 1, 1), "it was over meanwhile");
    let (_, session, wills, ended) = restored(0, None);
    assert_eq!((session.is_none(), wills, ended), (true, 1, 1), "it was there for its will");

    let (sessions, session, wills, _) = restored(60, None);
    assert_eq!((session.is_some(), wills), (true, 0), "nobody saw it leave: away since now");
    assert_eq!(sessions.tick(5_007).wills.len(), 1);
    let (attached, _) = sessions.attach(attach(0, 60, None), 60_006, |_| ()).expect("attached");
    assert!(attached.present && attached.awaited.journal > 0);
    assert!(sessions.restore(kept(u64::MAX, 60, None), 7).0.is_none(), "it is here");
}

#[test]
fn only_who_has_something_to_keep_waits_for_the_store() {
    let sessions = kept_sessions(0);
    let waits = |expiry_s, will_delay_s| {
        let (attached, _) = sessions.attach(attach(0, expiry_s, will_delay_s), 0, |_| ()).expect("attached");
        let waits = attached.awaited.journal > 0;
        detach(&sessions, &attached, 0, 0);
        waits
    };
    assert_eq!([waits(0, None), waits(60, None), waits(0, Some(0)), waits(0, None)], [false, true, true, false]);
}

#[test]
fn the_session_of_a_long_connection_is_written_anew_once_a_week() {
    let week_ms = 7 * 24 * 3600 * 1_000;
    let clock = Arc::new(FixedClock::at(0));
    let (sessions, journal) = kept_with(&clock);
    sessions.attach(attach(0, 60, None), 0, |_| ()).expect("attached");
    let written = || {
        let before = journal.position();
        sessions.refresh();
        journal.position() - before
    };
    assert_eq!(written(), 0);
    clock.advance(week_ms - 1);
    assert_eq!(written(), 0);
    clock.advance(1);
    assert_eq!([written(), written()], [3, 0], "head, subscriptions and what was received");
}

#[test]
fn an_identity_verified_before_its_revocation_is_refused_after_it() {
    let sessions = Sessions::new(10);
    let before = sessions.generation();
    sessions.attach(attach(before, 0, None), 0, |_| ()).expect("attached");
    let revocation =
        |device: &str, whose| Revocation { tenant: TenantId::default_tenant(), device: device.to_owned(), whose };
    assert!(sessions.revoke(revocation("d", Whose::Anonymous)).is_empty(), "it has shown a credential");
    let links = sessions.revoke(revocation("d", Whose::Credential("k".into())));
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].stopped(), Some(Stop::Revoked));
    assert_eq!(sessions.attach(attach(before, 0, None), 0, |_| ()).err(), Some(AttachError::Revoked));
    let after = sessions.generation();
    assert!(sessions.attach(attach(after, 0, None), 0, |_| ()).is_ok(), "verified anew");
    for n in 0..=REVOCATIONS_MAX {
        sessions.revoke(revocation(&format!("new-{n}"), Whose::Anonymous));
    }
    assert!(sessions.attach(attach(after, 0, None), 0, |_| ()).is_ok(), "it is none of those");
    for n in 0..=REVOCATIONS_MAX {
        sessions.revoke(revocation(&format!("other-{n}"), Whose::All));
    }
    let forgotten = sessions.attach(attach(after, 0, None), 0, |_| ()).err();
    assert_eq!(forgotten, Some(AttachError::Revoked), "in doubt");
}

#[test]
fn persistent_sessions_are_bounded() {
    let sessions = Sessions::new(1);
    let other = |expiry_s| Attach { client: ClientId::new("e").expect("valid"), ..attach(0, expiry_s, None) };
    let (first, _) = sessions.attach(attach(0, 10, None), 0, |_| ()).expect("at the limit");
    let refused = sessions.attach(other(10), 0, |_| ()).err();
    assert_eq!(refused, Some(AttachError::TooManySessions { limit: 1 }));
    assert!(sessions.attach(other(0), 0, |_| ()).is_ok(), "it is not persistent");
    detach(&sessions, &first, 10, 0);
    assert!(sessions.attach(attach(0, 10, None), 0, |_| ()).is_ok(), "it has its place already");
}

#[test]
fn connections_of_a_device_and_of_a_tenant_are_bounded() {
    let of = |client: &str, device: &str| {
        let attach = attach(0, 60, None);
        let identity = Arc::into_inner(attach.identity).expect("nobody else has it");
        let identity = Arc::new(Identity { device: DeviceId::new(device).expect("valid"), ..identity });
        Attach { client: ClientId::new(client).expect("valid"), identity, ..attach }
    };
    let sessions = Sessions::new(10).within(ConnectionQuotas { device: 2, tenant: 3 });
    let connect = |client, device| sessions.attach(of(client, device), 0, |_| ()).map(|(attached, _)| attached);
    let first = connect("a", "d").expect("the first");
    connect("b", "d").expect("at the limit");
    let over = |of, limit| Some(AttachError::TooManyConnections { of, limit });
    assert_eq!(connect("c", "d").err(), over(QuotaOf::Device, 2));
    let asked = |client: &str| {
        let key = (TenantId::default_tenant(), ClientId::new(client).expect("valid"));
        sessions.check_connections(&key, &DeviceId::new("d").expect("valid")).err()
    };
    assert_eq!((asked("c"), asked("a")), (over(QuotaOf::Device, 2), None), "before anything is taken from anybody");
    connect("b", "d").expect("it replaces itself");
    connect("e", "e").expect("at the limit of the tenant");
    assert_eq!(connect("f", "f").err(), over(QuotaOf::Tenant, 3));
    assert_eq!(connect("e", "d").err(), over(QuotaOf::Device, 2), "as another device it does not replace itself");
    assert!(connect("a", "d").expect("it replaces itself").present);
    detach(&sessions, &first, 60, 0); // of a connection that was replaced: nothing happens
    assert_eq!(connect("f", "f").err(), over(QuotaOf::Tenant, 3));
    let last = connect("a", "d").expect("it replaces itself");
    detach(&sessions, &last, 60, 0);
    assert!(connect("f", "f").is_ok(), "an absent session is no connection");
}

fn key() -> Key {
    (TenantId::default_tenant(), ClientId::new("c").expect("valid"))
}

#[test]
fn a_newer_epoch_elsewhere_ends_what_is_here_present_or_absent() {
    let sessions = Sessions::new(10);
    let mut reports = Vec::new();
    let live = attach(0, 10, Some(5));
    let link = live.link.clone();
    let (first, _) = sessions.attach(live, 0, |r| reports.push(r)).expect("attached");
    let epoch = first.publisher.epoch;
    let (left, aftermath) = sessions.taken_elsewhere(&key(), epoch - 1, |r| reports.push(r));
    assert!(matches!(left, Left::Newer(newer) if newer == epoch) && aftermath.ended.is_empty());
    let (left, _) = sessions.taken_elsewhere(&key(), epoch, |r| reports.push(r));
    assert!(matches!(left, Left::Older(None)), "it is this very session");
    let (left, aftermath) = sessions.taken_elsewhere(&key(), epoch + 1, |r| reports.push(r));
    assert!(matches!(left, Left::Older(Some(_))));
    assert_eq!(link.stopped(), Some(Stop::TakenOver));
    assert_eq!(
        (aftermath.ended[0].1, aftermath.wills.len()),
        (Dropped::Moved, 1),
        "the session ends, so its will is due"
    );
    let lost = Presence::Disconnected { reason: CloseReason::TakenOver };
    assert_eq!((reports.len(), &reports[1].what), (2, &lost));
    assert!(detach(&sessions, &first, 10, 0).ended.is_empty(), "it is gone already");

    let (away, _) = sessions.attach(attach(0, 10, None), 0, |_| ()).expect("attached");
    detach(&sessions, &away, 10, 0);
    let (left, aftermath) = sessions.taken_elsewhere(&key(), u64::MAX, |r| reports.push(r));
    assert!(matches!(left, Left::Older(None)) && aftermath.ended.len() == 1);
    assert_eq!((reports.len(), sessions.counts()), (2, (0, 0)));
}

#[test]
fn an_epoch_that_is_outdated_when_it_arrives_gets_nothing_though_nothing_is_left_of_the_newer() {
    let sessions = Sessions::new(10);
    let (older, newer) = (attach(0, 0, None), attach(0, 0, None));
    sessions.begin_claim(&key());
    sessions.begin_claim(&key());
    let (attached, _) = sessions.attach(newer, 0, |_| ()).expect("attached");
    sessions.end_claim(&key());
    detach(&sessions, &attached, 0, 0);
    assert_eq!(sessions.attach(older, 0, |_| ()).err(), Some(AttachError::TakenOver));
    sessions.end_claim(&key());

    let late = attach(0, 0, None);
    sessions.begin_claim(&key());
    sessions.taken_elsewhere(&key(), late.epoch + 1, |_| ());
    assert_eq!(sessions.attach(late, 0, |_| ()).err(), Some(AttachError::TakenOver));
    sessions.end_claim(&key());
    assert!(sessions.lock().claims.is_empty(), "nothing is kept for ever");
}

#[test]
fn a_connection_that_was_declared_gone_closes_and_no_other() {
    let sessions = Sessions::new(10);
    let live = attach(0, 0, None);
    let (link, epoch) = (live.link.clone(), live.epoch);
    sessions.attach(live, 0, |_| ()).expect("attached");
    sessions.declared_gone(&key(), epoch - 1);
    assert_eq!(link.stopped(), None);
    sessions.declared_gone(&key(), epoch);
    assert_eq!(link.stopped(), Some(Stop::DeclaredGone));
}

#[test]
fn a_session_that_is_arriving_takes_nothing_back_from_the_store_before_it_is_here() {
    let sessions = kept_sessions(100_000);
    let session = sessions.arriving(kept(7, 60, None), 7).expect("nothing is here");
    assert!(sessions.is_arriving(&key()) && sessions.arriving(kept(8, 60, None), 7).is_none());
    assert!(sessions.arriving_with(&key(), 6).is_none());
    let (left, _) = sessions.taken_elsewhere(&key(), 6, |_| ());
    assert!(matches!(left, Left::Newer(7)));
    let away = Some(Away { ends_ms: 110_000, will_ms: 99_000 });
    let (here, aftermath) = sessions.arrived(&key(), 7, kept(7, 60, away).stored.head, 7);
    assert!(here.is_some_and(|here| here.number == session.number));
    assert_eq!(aftermath.wills.len(), 1, "as its former owner has left it");
    assert!(!sessions.is_arriving(&key()));
    assert!(sessions.arrived(&key(), 7, kept(7, 60, away).stored.head, 7).0.is_none(), "it is here already");
    assert_eq!(sessions.tick(10_007).ended.len(), 1);
}

#[test]
fn owners_of_long_connections_are_renewed_every_week() {
    let sessions = Sessions::new(10);
    let epoch = 1_000_000;
    let live = Attach { epoch: epoch * 1_000, ..attach(0, 10, None) };
    let (attached, _) = sessions.attach(live, 0, |_| ()).expect("attached");
    let due = |from_ms: u64, now_ms: u64| sessions.to_renew(epoch + from_ms, epoch + now_ms).len();
    assert_eq!(
        [due(0, RENEWED_MS - 1), due(RENEWED_MS - 1, RENEWED_MS), due(RENEWED_MS, 2 * RENEWED_MS - 1)],
        [0, 1, 0]
    );
    assert_eq!(due(RENEWED_MS, 5 * RENEWED_MS), 1, "a process that slept");
    detach(&sessions, &attached, 10, 0);
    assert_eq!(due(0, RENEWED_MS), 0, "nobody is connected");
}

#[test]
fn a_session_that_cannot_be_kept_ends_with_its_connection() {
    let sessions = Sessions::new(10);
    let live = attach(0, 10, Some(5));
    let link = live.link.clone();
    let mut reports = Vec::new();
    let (attached, _) = sessions.attach(live, 0, |r| reports.push(r)).expect("attached");
    let keys = HashSet::from([Arc::new(key())]);
    let aftermath = sessions.end_unwritable(&keys, |r| reports.push(r));
    assert_eq!(
        (link.stopped(), aftermath.ended[0].1, aftermath.wills.len()),
        (Some(Stop::NotKept), Dropped::NotKept, 1)
    );
    assert_eq!(reports[1].what, Presence::Disconnected { reason: CloseReason::NotKept });
    assert!(detach(&sessions, &attached, 10, 0).ended.is_empty());
    assert!(sessions.end_unwritable(&keys, |r| reports.push(r)).ended.is_empty());
    assert_eq!((reports.len(), sessions.counts()), (2, (0, 0)));
}

#[test]
fn what_the_table_keeps_of_a_client_is_small() {
    for (what, bytes, limit) in [
        ("an entry", size_of::<Entry>(), 64),
        ("a session", size_of::<Session>(), 112),
        ("an identity", size_of::<Identity>(), 72),
    ] {
        println!("{what}: {bytes} B");
        assert!(bytes <= limit, "{what} has {bytes} bytes, limit is {limit}");
    }
}
