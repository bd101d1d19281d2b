//! Clients that are slower than their publishers: who waits for them, how long, and for whom nobody does (ADR 40).

use super::*;
use crate::domain::session::outbox::OVERFULL_MESSAGES_MAX;
use crate::domain::session::overfull::{MISTRUST_MS, PATIENCE_MS};

/// Puts in a message of QoS 1 whose publisher can wait; whether it has to.
fn put(session: &Session) -> Result<bool, Dropped> {
    session.put(delivery(0, Qos::AtLeastOnce), WhenFull::Wait).map(|taken| taken.overfull)
}

/// A session whose client is there, with as many messages as its inbox holds and one more.
fn overfull() -> Session {
    let session = session();
    session.hold(1, Arc::default());
    for _ in 0..INBOX_MESSAGES_MAX {
        assert_eq!(put(&session), Ok(false));
    }
    assert_eq!(put(&session), Ok(true));
    session
}

/// The client takes and acknowledges messages until fewer than `left` wait.
fn take_until(session: &Session, left: usize) {
    while session.depth().0 >= left {
        let Next::Send { packet_id: Some(id), .. } = session.next(1, 1) else { panic!("a message") };
        session.answer(1, id, Answer::Acknowledged);
    }
}

#[tokio::test]
async fn publishers_wait_for_a_full_inbox_until_half_of_it_is_free() {
    let (session, publisher) = (overfull(), Arc::<Link>::default());
    session.withhold(&publisher);
    let mut room = session.room().expect("none is left");
    assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Err(Dropped::InboxFull), "of one that cannot wait");
    let at_most_once = session.put(delivery(0, Qos::AtMostOnce), WhenFull::Wait);
    assert_eq!(at_most_once, Err(Dropped::SlowReader), "nobody waits at QoS 0");
    take_until(&session, QOS0_WAITING_MAX + 1);
    assert!(publisher.is_withheld() && !room.has_changed().expect("somebody waits"));
    assert_eq!(put(&session), Ok(true), "whoever comes meanwhile waits as well");
    take_until(&session, QOS0_WAITING_MAX);
    assert!(!publisher.is_withheld() && room.changed().await.is_err());
    session.withhold(&publisher);
    assert!(!publisher.is_withheld() && session.room().is_none(), "there is room by now");
    assert_eq!(put(&session), Ok(false));
}

#[test]
fn what_waits_with_its_publishers_is_bounded() {
    let session = overfull();
    for _ in INBOX_MESSAGES_MAX + 1..OVERFULL_MESSAGES_MAX {
        assert_eq!(put(&session), Ok(true));
    }
    assert_eq!(put(&session), Err(Dropped::InboxFull));
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_waited_for_within_a_bound_and_not_again_for_a_while() {
    let (session, publisher) = (overfull(), Arc::<Link>::default());
    session.withhold(&publisher);
    let mut room = session.room().expect("none is left");
    assert_eq!([0, PATIENCE_MS - 1].map(|now_ms| session.look(now_ms)), [Look::Awaited; 2]);
    take_until(&session, QOS0_WAITING_MAX + 1);
    assert_eq!(session.look(PATIENCE_MS), Look::GivenUp, "half of it is not free");
    assert!(!publisher.is_withheld());
    room.changed().await.expect("whoever waits is told");
    session.withhold(&publisher);
    assert!(!publisher.is_withheld() && session.room().is_none());

    take_until(&session, QOS0_WAITING_MAX);
    let trusted_ms = PATIENCE_MS + MISTRUST_MS;
    for now_ms in [PATIENCE_MS + 1, trusted_ms - 1] {
        assert_eq!(session.look(now_ms), Look::Mistrusted);
        while session.depth().0 < INBOX_MESSAGES_MAX {
            assert_eq!(put(&session), Ok(false));
        }
        assert_eq!(put(&session), Err(Dropped::InboxFull), "nobody waits");
    }
    assert_eq!(session.look(trusted_ms), Look::Over);
    assert_eq!(put(&session), Ok(true));
}

#[test]
fn a_client_that_was_too_slow_stays_so_when_it_has_taken_all_and_when_it_comes_again() {
    let session = overfull();
    assert_eq!([0, PATIENCE_MS].map(|now_ms| session.look(now_ms)), [Look::Awaited, Look::GivenUp]);
    take_until(&session, 1);
    assert_eq!(session.depth(), (0, 0));
    session.release(1);
    session.hold(2, Arc::default());
    while session.depth().0 < INBOX_MESSAGES_MAX {
        assert_eq!(put(&session), Ok(false));
    }
    assert_eq!(put(&session), Err(Dropped::InboxFull), "nobody waits");
    let trusted_ms = PATIENCE_MS + MISTRUST_MS;
    assert_eq!([trusted_ms - 1, trusted_ms].map(|now_ms| session.look(now_ms)), [Look::Mistrusted, Look::Over]);
    assert_eq!(put(&session), Ok(true));

    let session = overfull();
    assert_eq!([0, PATIENCE_MS].map(|now_ms| session.look(now_ms)), [Look::Awaited, Look::GivenUp]);
    take_until(&session, 1);
    assert!(session.state().outbox.is_some());
    assert_eq!(session.look(trusted_ms), Look::Over);
    assert!(session.state().outbox.is_none(), "nothing is left of it");
}

#[test]
fn nobody_waits_for_a_client_that_is_away_or_may_miss_messages() {
    let (session, publisher) = (overfull(), Arc::<Link>::default());
    session.withhold(&publisher);
    session.release(1);
    assert!(!publisher.is_withheld());
    assert_eq!((put(&session), session.depth().0), (Err(Dropped::InboxFull), INBOX_MESSAGES_MAX + 1));
    session.hold(2, Arc::new(Link::default().skipping()));
    assert_eq!(put(&session), Err(Dropped::InboxFull));
    session.hold(3, Arc::default());
    assert_eq!(put(&session), Ok(true));
    session.withhold(&publisher);
    session.end(Dropped::SessionClosed);
    assert!(!publisher.is_withheld());
}
