//! The session: windows, redelivery, bounds, and both directions of QoS 2.

mod slow;

use bytes::Bytes;
use drover_types::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};
use drover_types::{DeviceId, RecordId, TopicName};

use super::outbox::QOS0_WAITING_MAX;
use super::*;
use crate::domain::journal::tests::journal;
use crate::domain::message::{Publication, Publisher, Stamp};
use crate::domain::router::Options;
use crate::ports::sessions::{Away, Place, Stored, What};

pub fn message(payload: Vec<u8>) -> Arc<Message> {
    let publication = Publication {
        topic: TopicName::new("t").expect("valid"),
        payload: Bytes::from(payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: 1,
        properties: None,
    };
    let publisher = Publisher {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("p").expect("valid"),
        client: ClientId::new("p").expect("valid"),
        epoch: 1,
    };
    Arc::new(publication.stamp(publisher, Stamp { id: RecordId([0; 16]), time_ms: 0, traceparent: None }))
}

fn delivery(n: u8, qos: Qos) -> Delivery {
    Delivery { message: message(vec![n]), qos, retain: false, ids: Box::default(), share: None }
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

fn session() -> Session {
    Session::new(1, TenantId::default_tenant(), ClientId::new("c").expect("valid"))
}

/// Sends all that may be sent: payload, packet id and dup.
fn drain(session: &Session, epoch: u64, window: usize) -> Vec<(u8, Option<u16>, bool)> {
    std::iter::from_fn(|| match session.next(epoch, window) {
        Next::Send { delivery, packet_id, dup } => {
            Some((delivery.message.telemetry.payload[0], packet_id.map(PacketId::get), dup))
        }
        Next::Release { packet_id } | Next::Complete { packet_id } => panic!("{packet_id} was not received"),
        Next::Nothing => None,
    })
    .collect()
}

#[test]
fn the_window_bounds_what_is_in_flight_and_order_is_kept() {
    let session = session();
    session.hold(1, Arc::default());
    for n in 0..4 {
        session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
    }
    assert_eq!(drain(&session, 1, 2), [(0, Some(1), false), (1, Some(2), false)]);
    assert_eq!(session.answer(1, id(2), Answer::Acknowledged), Answered::Done);
    assert_eq!(session.answer(1, id(2), Answer::Acknowledged), Answered::Unknown, "it was acknowledged before");
    assert_eq!(drain(&session, 1, 2), [(2, Some(3), false)]);
}

#[test]
fn what_was_in_flight_is_sent_again_first_with_its_packet_id_and_dup() {
    let session = session();
    session.hold(1, Arc::default());
    for n in 0..3 {
        session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
    }
    drain(&session, 1, 2);
    session.release(1);
    session.offer(delivery(3, Qos::AtLeastOnce)).expect("room");
    session.hold(2, Arc::default());
    assert_eq!(drain(&session, 2, 1), [(0, Some(1), true)], "never beyond the new window");
    let expected = [(1, Some(2), true), (2, Some(3), false), (3, Some(4), false)];
    assert_eq!(drain(&session, 2, 10), expected);
}

#[test]
fn a_connection_that_lost_the_session_gets_and_acknowledges_nothing() {
    let session = session();
    session.hold(1, Arc::default());
    session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
    drain(&session, 1, 1);
    session.hold(2, Arc::default());
    assert_eq!(session.answer(1, PacketId::MIN, Answer::Acknowledged), Answered::Unknown);
    assert!(drain(&session, 1, 1).is_empty());
    session.release(1);
    assert_eq!(drain(&session, 2, 1), [(0, Some(1), true)]);
}

#[test]
fn the_inbox_is_bounded_in_messages_and_bytes() {
    let session = session();
    for _ in 0..INBOX_MESSAGES_MAX {
        assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Ok(0));
    }
    assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Err(Dropped::InboxFull));

    let session = self::session();
    let large = |len| Delivery { message: message(vec![0; len]), ..delivery(0, Qos::AtLeastOnce) };
    session.offer(large(INBOX_BYTES_MAX - 1)).expect("at the limit: payload and topic");
    assert_eq!(session.offer(large(0)), Err(Dropped::InboxFull));
}

#[test]
fn qos_0_is_not_kept_for_the_absent_and_gives_way_to_qos_1() {
    let session = session();
    assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Err(Dropped::Away));
    session.hold(1, Arc::default());
    for _ in 0..QOS0_WAITING_MAX {
        assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Ok(0));
    }
    assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Err(Dropped::SlowReader));
    assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Ok(0));
    session.release(1);
    assert_eq!(session.depth(), (1, 0));
}

#[test]
fn with_a_filter_goes_what_no_other_filter_asks_for() {
    let session = session();
    session.hold(1, Arc::default());
    for filter in ["t", "+", "other"] {
        session.add_filter(filter, 3).expect("room");
    }
    for n in 0..3 {
        session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
    }
    drain(&session, 1, 1);
    let gone = |gone: Gone| (gone.filters, gone.dropped);
    assert_eq!(gone(session.withdraw(2, |_| false)), (vec![], 0), "somebody else holds it");
    assert_eq!(gone(session.withdraw(1, |filter| filter != "t")), (vec!["t".into()], 0));
    let lost = gone(session.withdraw(1, |filter| filter != "+"));
    assert_eq!(lost, (vec!["+".into()], 3), "two waited, one was in flight");
    session.offer(delivery(3, Qos::AtLeastOnce)).expect("room");
    assert_eq!(drain(&session, 1, 1), [(3, Some(2), false)], "the window is free again");
}

#[test]
fn a_session_that_has_ended_takes_nothing_and_says_why() {
    let session = session();
    session.add_filter("t", 1).expect("room");
    session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
    let gone = session.end(Dropped::SessionExpired);
    assert_eq!((gone.filters, gone.dropped), (vec!["t".into()], 1));
    assert_eq!(session.offer(delivery(1, Qos::AtLeastOnce)), Err(Dropped::SessionExpired));
}

#[test]
fn packet_ids_wrap_around_those_in_flight() {
    let session = session();
    session.hold(1, Arc::default());
    session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
    drain(&session, 1, 2);
    for _ in 0..65_534 {
        session.offer(delivery(1, Qos::AtLeastOnce)).expect("room");
        let [(_, Some(id), false)] = drain(&session, 1, 2)[..] else { panic!("one message") };
        session.answer(1, self::id(id), Answer::Acknowledged);
    }
    session.offer(delivery(2, Qos::AtLeastOnce)).expect("room");
    assert_eq!(drain(&session, 1, 2), [(2, Some(2), false)], "0 is no id and 1 is in flight");
}

#[test]
fn a_message_of_qos_2_is_released_when_the_client_has_it_and_both_steps_survive_the_connection() {
    let session = session();
    session.hold(1, Arc::default());
    for n in 0..3 {
        session.offer(delivery(n, Qos::ExactlyOnce)).expect("room");
    }
    assert_eq!(drain(&session, 1, 2), [(0, Some(1), false), (1, Some(2), false)]);
    assert_eq!(session.answer(1, id(1), Answer::Acknowledged), Answered::Unfit, "not a message of QoS 1");
    assert_eq!(session.answer(1, id(1), Answer::Completed), Answered::Unfit, "not received yet");
    assert_eq!(session.answer(1, id(2), Answer::Received), Answered::Release); // [MQTT-4.3.3-4]
    assert!(drain(&session, 1, 2).is_empty(), "the window is open until PUBCOMP [MQTT-4.9.0-2]");
    session.hold(2, Arc::default());
    let again = [session.next(2, 2), session.next(2, 2), session.next(2, 2)];
    assert!(
        matches!(
            &again,
            [
                Next::Send { dup: true, packet_id: Some(first), .. },
                Next::Release { packet_id: second }, // [MQTT-4.4.0-1], [MQTT-4.3.3-6]
                Next::Nothing
            ] if *first == id(1) && *second == id(2)
        ),
        "{again:?}"
    );
    assert_eq!(session.answer(2, id(2), Answer::Completed), Answered::Done);
    assert_eq!(session.answer(2, id(1), Answer::Refused), Answered::Done, "[MQTT-4.3.3-4]: failure ends it");
    assert_eq!(drain(&session, 2, 2), [(2, Some(3), false)]);
}

#[test]
fn an_idle_session_is_small_and_owns_nothing_but_itself() {
    let bytes = size_of::<Session>();
    assert!(bytes <= 112, "a session has {bytes} bytes");
    let session = session();
    session.hold(1, Arc::default());
    session.offer(delivery(0, Qos::ExactlyOnce)).expect("room");
    drain(&session, 1, 1);
    session.answer(1, id(1), Answer::Received);
    session.answer(1, id(1), Answer::Completed);
    let state = session.state();
    assert!(state.outbox.is_none() && state.received.is_none());
}

#[test]
fn of_a_shared_subscription_another_member_gets_what_this_one_did_not_acknowledge() {
    let session = session();
    session.hold(1, Arc::default());
    let share: Arc<str> = "$share/g/t".into();
    let shared = |n, qos| Delivery { share: Some(share.clone()), ..delivery(n, qos) };
    for delivery in [
        shared(0, Qos::AtLeastOnce),
        shared(1, Qos::ExactlyOnce),
        delivery(2, Qos::AtLeastOnce),
        shared(3, Qos::ExactlyOnce),
        shared(4, Qos::AtLeastOnce),
    ] {
        session.offer(delivery).expect("room");
    }
    drain(&session, 1, 3);
    assert!(session.shares().is_empty() && session.take_shared(|_| true).is_empty(), "its client is there");
    session.release(1);
    assert_eq!(session.shares().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&share));
    let payloads = |taken: Vec<Delivery>| taken.iter().map(|d| d.message.telemetry.payload[0]).collect::<Vec<_>>();
    assert!(session.take_shared(|share| **share != *"$share/g/t").is_empty());
    let taken = payloads(session.take_shared(|_| true));
    assert_eq!(taken, [0, 3, 4], "a delivery of QoS 2 that has begun is not moved [MQTT-4.8.2-4]");
    session.hold(2, Arc::default());
    assert_eq!(drain(&session, 2, 3), [(1, Some(2), true), (2, Some(3), true)]);
    let gone = session.end(Dropped::SessionExpired);
    assert_eq!((gone.dropped, gone.shared.len()), (2, 0), "[MQTT-4.8.2-5]");
}

#[test]
fn retained_messages_are_wanted_once_for_each_filter() {
    let session = session();
    let wanted = |filter: &str, qos| Wanted { filter: filter.into(), qos, id: None };
    assert!(session.want_retained(wanted("a", Qos::AtMostOnce)), "nobody reads yet");
    assert!(!session.want_retained(wanted("b", Qos::AtMostOnce)));
    assert!(!session.want_retained(wanted("a", Qos::AtLeastOnce)), "the newest counts");
    let next = || session.next_wanted();
    assert_eq!(
        [next(), next(), next()],
        [Some(wanted("b", Qos::AtMostOnce)), Some(wanted("a", Qos::AtLeastOnce)), None]
    );
    assert!(session.want_retained(wanted("c", Qos::AtMostOnce)), "nobody reads any more");
}

fn row(number: u32, packet_id: u16, delivery: Option<Delivery>) -> Row {
    Row { place: Place { epoch: 1, number }, packet_id: id(packet_id), delivery }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_in_the_store_before_it_is_needed_and_leaves_it_when_it_is_acknowledged() {
    let (store, journal) = journal(0);
    let session = session();
    session.record(journal.clone(), 1, true);
    session.hold(1, Arc::default());
    assert_eq!(session.offer(delivery(9, Qos::AtMostOnce)), Ok(0), "nobody waits for that");
    let positions = [0, 1, 2].map(|n| session.offer(delivery(n, Qos::AtLeastOnce)).expect("room"));
    assert!(!journal.is_durable(positions[0]));
    journal.durable(positions[2]).await;
    let puts = store.whats();
    assert!(matches!(&puts[..], [What::Put(first), What::Put(_), What::Put(third)]
        if first.place == Place { epoch: 1, number: 0 } && third.packet_id == id(3)));
    let sent = drain(&session, 1, 10);
    assert_eq!(sent, [(9, None, false), (0, Some(1), false), (1, Some(2), false), (2, Some(3), false)]);
    for packet_id in [2, 1] {
        session.answer(1, id(packet_id), Answer::Acknowledged);
    }
    journal.durable(journal.position()).await;
    let left = &store.whats()[3..];
    let at = |number| Place { epoch: 1, number };
    assert!(
        matches!(left, [What::Remove(one), What::Passed { from, before }]
            if *one == at(1) && (*from, *before) == (at(0), at(2))),
        "{left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn of_what_is_kept_neither_pubrel_nor_pubcomp_leaves_before_the_store_knows() {
    let (_, journal) = journal(0);
    let session = session();
    session.record(journal.clone(), 1, true);
    session.hold(1, Arc::default());
    session.offer(delivery(0, Qos::ExactlyOnce)).expect("room");
    drain(&session, 1, 10);
    assert_eq!(session.answer(1, id(1), Answer::Received), Answered::Later);
    assert_eq!(session.answer(1, id(1), Answer::Received), Answered::Later, "said twice");
    assert!(matches!(session.next(1, 10), Next::Nothing));
    journal.durable(journal.position()).await;
    assert!(matches!(session.next(1, 10), Next::Release { packet_id } if packet_id == id(1)));
    assert!(matches!(session.next(1, 10), Next::Nothing), "once");
    assert_eq!(session.answer(1, id(1), Answer::Completed), Answered::Done);

    assert_eq!(session.begin(1, id(7)), Begun::New { reused: false });
    let position = session.stored(id(7)).expect("it is news");
    assert!(position > 0 && session.stored(id(7)).is_none());
    assert_eq!(session.released(1, id(7)), Released::Later);
    assert!(matches!(session.next(1, 10), Next::Nothing));
    journal.durable(journal.position()).await;
    assert!(matches!(session.next(1, 10), Next::Complete { packet_id } if packet_id == id(7)));
    assert_eq!(session.released(1, id(7)), Released::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_from_the_store_is_sent_again_as_what_may_have_been_sent() {
    let (store, journal) = journal(0);
    let rows = vec![
        row(3, 7, None),
        row(4, 8, Some(delivery(1, Qos::ExactlyOnce))),
        row(5, 9, Some(delivery(2, Qos::AtLeastOnce))),
    ];
    let head = |away, sent| Head {
        epoch: 1,
        device: DeviceId::new("d").expect("valid"),
        expiry_s: 60,
        away,
        will: None,
        sent,
    };
    let back = |head| {
        let filter = Subscription { filter: "t".into(), options: Options::default() };
        let stored = Stored { head, subscriptions: vec![filter], received: vec![id(5)], stamp: 1, node: "a".into() };
        let kept = crate::domain::sessions::Kept {
            key: session().key().clone(),
            epoch: 2,
            stored,
            rows: rows.clone(),
            unsettled: false,
        };
        let session = Session::restored(2, journal.clone(), kept);
        assert!(session.has_filter("t"));
        session.offer(delivery(3, Qos::AtLeastOnce)).expect("room");
        session.hold(3, Arc::default());
        assert!(session.has_received(3, id(5)));
        assert!(matches!(session.next(3, 10), Next::Release { packet_id } if packet_id == id(7)));
        session
    };
    let held = back(head(None, None));
    assert_eq!(drain(&held, 3, 10), [(1, Some(8), true), (2, Some(9), true), (3, Some(10), false)]);
    let away = Some(Away { ends_ms: 1, will_ms: 1 });
    let left = back(head(away, Some(Place { epoch: 1, number: 4 })));
    assert_eq!(drain(&left, 3, 10), [(1, Some(8), true), (2, Some(9), false), (3, Some(10), false)]);
    for packet_id in [7, 8] {
        left.answer(3, id(packet_id), if packet_id == 7 { Answer::Completed } else { Answer::Refused });
    }
    journal.durable(journal.position()).await;
    let passed = store.whats().pop();
    assert!(
        matches!(passed, Some(What::Passed { before, .. }) if before == Place { epoch: 1, number: 5 }),
        "{passed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_on_elsewhere_takes_nothing_here_and_forgets_nothing_there() {
    let (store, journal) = journal(0);
    let session = session();
    session.record(journal.clone(), 1, true);
    session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
    assert_eq!(session.close_record(Dropped::Moved, false), 0);
    assert_eq!(session.offer(delivery(1, Qos::AtLeastOnce)), Err(Dropped::Moved));
    assert_eq!(session.end(Dropped::Moved).dropped, 0, "it is kept");
    journal.durable(journal.position()).await;
    assert!(matches!(store.whats()[..], [What::Put(_)]));
}

/// A message with a record, as those that come from other nodes have one.
fn named(n: u8, qos: Qos) -> Delivery {
    let mut delivery = delivery(n, qos);
    let mut message = (*delivery.message).clone();
    message.telemetry.id = RecordId([n + 1; 16]);
    delivery.message = Arc::new(message);
    delivery
}

/// A session that has moved from the node `a`, with this inbox.
fn moved(journal: &Arc<Journal>, rows: Vec<Row>, unsettled: bool) -> Session {
    let (key, stored) = (session().key().clone(), left_at_a());
    let kept = crate::domain::sessions::Kept { key, epoch: 2, stored, rows, unsettled };
    Session::restored(2, journal.clone(), kept)
}

fn left_at_a() -> Stored {
    let head = Head {
        epoch: 1,
        device: DeviceId::new("d").expect("valid"),
        expiry_s: 60,
        away: Some(Away { ends_ms: 1, will_ms: 1 }),
        will: None,
        sent: None,
    };
    let filter = Subscription { filter: "t".into(), options: Options::default() };
    Stored { head, subscriptions: vec![filter], received: Vec::new(), stamp: 1, node: "a".into() }
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_a_session_that_has_moved_by_two_ways_is_kept_once() {
    let (store, journal) = journal(0);
    let session = moved(&journal, vec![row(0, 1, Some(named(1, Qos::AtLeastOnce)))], false);
    assert!(session.has_moved());
    session.offer(named(1, Qos::AtLeastOnce)).expect("it is there");
    session.offer(named(2, Qos::AtLeastOnce)).expect("room");
    let position = session.offer(named(2, Qos::AtLeastOnce)).expect("it is there");
    journal.durable(position).await;
    assert_eq!(store.whats().len(), 1, "whoever sends it again waits for the first");
    session.offer(Delivery { retain: true, ..named(2, Qos::AtLeastOnce) }).expect("a retained message is asked for");
    session.hold(3, Arc::default());
    let payloads: Vec<u8> = drain(&session, 3, 10).into_iter().map(|(payload, ..)| payload).collect();
    assert_eq!(payloads, [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_came_while_a_session_was_arriving_stands_behind_what_its_former_owner_has_left() {
    let (store, journal) = journal(0);
    let session = moved(&journal, Vec::new(), true);
    for n in [2, 3] {
        session.offer(named(n, Qos::AtLeastOnce)).expect("room");
    }
    let left = |number, packet_id, n| row(number, packet_id, Some(named(n, Qos::AtLeastOnce)));
    let stored = Stored { subscriptions: Vec::new(), received: vec![id(9)], ..left_at_a() };
    let gone = session.arrived(&stored, vec![left(0, 1, 1), left(1, 2, 2)], false);
    assert_eq!(gone, [Box::<str>::from("t")], "it was unsubscribed meanwhile");
    assert_eq!(session.unsettled(2), None);
    session.hold(3, Arc::default());
    assert!(session.has_received(3, id(9)));
    assert_eq!(drain(&session, 3, 10), [(1, Some(1), false), (2, Some(2), false), (3, Some(3), false)]);
    journal.durable(journal.position()).await;
    let removed = store.whats().into_iter().filter(|what| matches!(what, What::Remove(place) if place.epoch == 2));
    assert_eq!(removed.count(), 1, "what both had");
}

#[tokio::test(start_paused = true)]
async fn what_a_former_owner_has_written_late_is_taken_up_and_nothing_else() {
    let (store, journal) = journal(0);
    let left = |number, packet_id, n| row(number, packet_id, Some(named(n, Qos::AtLeastOnce)));
    let session = moved(&journal, vec![left(0, 1, 1), left(1, 2, 2)], true);
    session.hold(3, Arc::default());
    drain(&session, 3, 10);
    session.answer(3, id(1), Answer::Acknowledged);
    let known = session.unsettled(2).expect("its former owner has not answered");
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [Place { epoch: 1, number: 1 }]);
    journal.durable(journal.position()).await;
    assert!(
        !store.whats().iter().any(|what| matches!(what, What::Passed { .. })),
        "what may come late is not removed unseen"
    );
    let known = session.unsettled(2).expect("not settled");
    let dropped = session.take_up(2, vec![left(1, 2, 2), left(2, 3, 4)], &known, false);
    assert!(dropped.is_empty());
    assert_eq!(drain(&session, 3, 10).into_iter().map(|(payload, ..)| payload).collect::<Vec<_>>(), [4]);
    let known = session.unsettled(2).expect("more may come");
    session.take_up(2, vec![left(1, 2, 2)], &known, true);
    assert_eq!(session.unsettled(2), None);
    session.answer(3, id(2), Answer::Acknowledged);
    journal.durable(journal.position()).await;
    assert!(store.whats().iter().any(|what| matches!(what, What::Passed { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_connection_a_session_was_taken_for_goes_on_behind_what_came_before_it() {
    let (store, journal) = journal(0);
    let session = moved(&journal, Vec::new(), false);
    session.offer(named(1, Qos::AtLeastOnce)).expect("room");
    session.hold(2, Arc::default());
    journal.durable(session.offer(named(2, Qos::AtLeastOnce)).expect("room")).await;
    let place = |what| if let What::Put(row) = what { Some(row.place) } else { None };
    let places: Vec<Place> = store.whats().into_iter().filter_map(place).collect();
    assert_eq!(places, [Place { epoch: 2, number: 0 }, Place { epoch: 2, number: 1 }]);
}
