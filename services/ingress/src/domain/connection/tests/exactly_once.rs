//! QoS 2 from the client: each message is taken once, whatever happens to its connections.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::journal::tests::journal;

#[test]
fn a_message_of_qos_2_is_taken_once_and_received_when_it_is_durable() {
    // [MQTT-4.3.3-8] to [MQTT-4.3.3-12]
    for version in BOTH {
        let mut client = Client::connected(version);
        client.send(&Packet::Publish(qos2(7, "ok/a")));
        client.publish(3, "ok/a");
        assert!(client.output().is_empty(), "nothing is durable");
        client.stored(&[7]);
        assert_eq!(client.output(), ["PUBREC 7 0x00"]);
        client.send(&Packet::Publish(Publish { dup: true, ..qos2(7, "ok/a") }));
        assert!(client.output().is_empty(), "in its turn [MQTT-4.6.0-3]");
        client.stored(&[3]);
        assert_eq!(client.output(), ["PUBACK 3 0x00", "PUBREC 7 0x00"]);
        assert_eq!(client.published(), [7, 3], "once");
        client.send(&Packet::PubRel(ack(7)));
        assert_eq!(client.output(), ["PUBCOMP 7 0x00"]);
        client.send(&Packet::PubRel(ack(7)));
        let unknown = if version == Version::V5 { "PUBCOMP 7 0x92" } else { "PUBCOMP 7 0x00" };
        assert_eq!(client.output(), [unknown]);
        client.send(&Packet::Publish(qos2(7, "ok/a")));
        assert_eq!(client.published(), [7, 3, 7], "another message of that id");
    }
}

#[test]
fn received_ids_outlive_the_connection_and_a_message_in_doubt_is_marked_as_a_repeat() {
    let dups = |client: &Client| -> Vec<bool> {
        let of = |effect: &Effect| if let Effect::Publish(publication) = effect { Some(publication.dup) } else { None };
        client.effects.iter().filter_map(of).collect()
    };
    for version in BOTH {
        let mut client = Client::connected(version);
        client.send(&Packet::Publish(qos2(1, "ok/stored")));
        client.send(&Packet::Publish(qos2(2, "ok/open")));
        client.stored(&[1]);
        let mut client = client.again();
        for id in [1, 2, 3] {
            client.send(&Packet::Publish(Publish { dup: true, ..qos2(id, "ok/a") }));
        }
        assert_eq!(client.published(), [2, 3]);
        assert_eq!(dups(&client), [true, true], "3 may be of before this session");
        client.stored(&[2, 3]);
        assert_eq!(client.output(), ["PUBREC 1 0x00", "PUBREC 2 0x00", "PUBREC 3 0x00"]);
        client.send(&Packet::PubRel(ack(3)));
        let mut client = client.again();
        client.send(&Packet::Publish(Publish { dup: true, ..qos2(3, "ok/a") }));
        assert_eq!(dups(&client), [false], "3 is done: this is another message, whose first sending got lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_answered_when_the_store_has_what_came_of_it() {
    let (_store, journal) = journal(0);
    let mut client = Client::connected(Version::V5);
    client.session.record(journal.clone(), 1, true);
    client.send(&Packet::Publish(qos2(7, "ok/a")));
    client.session.stored(PacketId::new(7).expect("not 0")); // and its connection ends before it is told
    let mut client = client.again();
    client.send(&Packet::Publish(Publish { dup: true, ..qos2(7, "ok/a") }));
    client.connection.deliver(at(0));
    assert!(client.output().is_empty(), "the store has nothing yet");
    journal.durable(journal.position()).await;
    client.connection.deliver(at(0));
    assert_eq!((client.output(), client.published()), (vec!["PUBREC 7 0x00".to_owned()], vec![]));
}

#[test]
fn a_refused_message_of_qos_2_is_over_with_its_pubrec() {
    let mut client = Client::connected(Version::V5);
    client.send(&Packet::Publish(qos2(1, "secret")));
    assert_eq!(client.output(), ["PUBREC 1 0x87"]); // [MQTT-4.3.3-9]
    client.send(&Packet::PubRel(ack(1)));
    assert_eq!(client.output(), ["PUBCOMP 1 0x92"]);
}

#[test]
fn the_receive_maximum_counts_messages_of_qos_2_until_they_are_released() {
    // [MQTT-3.3.4-9], section 4.9
    let mut client = Client::connected(Version::V5);
    for id in 1..=LIMITS.receive_maximum {
        client.send(&Packet::Publish(qos2(id, "ok/a")));
        client.stored(&[id]);
    }
    client.send(&Packet::PubRel(ack(1)));
    client.send(&Packet::Publish(qos2(9, "ok/a")));
    assert!(client.closed().is_none());
    client.output();
    client.publish(10, "ok/a");
    assert_eq!(client.output(), ["DISCONNECT 0x93"]);
    let mut client = Client::connected(Version::V311);
    for id in 1..=RECEIVED_MAX as u16 + 1 {
        client.send(&Packet::Publish(qos2(id, "ok/a")));
        client.stored(&[id]);
    }
    assert_eq!(client.closed().expect("closed").fault, Some(Fault::Unreleased { limit: RECEIVED_MAX }));
}

/// What happens to a client that publishes at QoS 2 and to its connection.
#[derive(Clone, Debug)]
enum Step {
    /// It sends message `id`, as a repeat if it was sent before and not released.
    Publish(u16),
    /// The log has so many more.
    Store(usize),
    Release(u16),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u16..4).prop_map(Step::Publish),
        3 => (1usize..3).prop_map(Step::Store),
        2 => (1u16..4).prop_map(Step::Release),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// A client that keeps the rules: it numbers a new message only when the number is free, and sends PUBREL only after
    /// PUBREC. The log takes what it was given in order, or the connection ends before it answers.
    #[test]
    fn a_message_of_qos_2_is_new_to_the_log_exactly_once(
        steps in steps(),
        version in proptest::sample::select(&BOTH[..]),
    ) {
        let mut client = Client::connected(version);
        let (mut open, mut sent, mut received) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut begun, mut new, mut given, mut stored) = (0, 0, 0, 0);
        for step in steps {
            match step {
                Step::Publish(id) if sent.contains(&id) => {}
                Step::Publish(id) => {
                    sent.insert(id);
                    let dup = !open.insert(id);
                    begun += usize::from(!dup);
                    client.send(&Packet::Publish(Publish { dup, ..qos2(id, "ok/a") }));
                }
                Step::Store(count) => {
                    let ids = client.published();
                    let ids = &ids[stored.min(ids.len())..];
                    let ids = ids[..count.min(ids.len())].to_vec();
                    stored += ids.len();
                    client.stored(&ids);
                }
                Step::Release(id) if received.remove(&id) => {
                    open.remove(&id);
                    sent.remove(&id);
                    client.send(&Packet::PubRel(ack(id)));
                    let completed = client.output() == [format!("PUBCOMP {id} 0x00")];
                    prop_assert!(completed, "message {} was received", id);
                }
                Step::Release(_) => {}
                Step::Reconnect => {
                    given += client.published().len();
                    client = client.again();
                    (stored, sent, received) = (0, BTreeSet::new(), BTreeSet::new());
                }
            }
            let taken = client.effects.iter().filter(|effect| matches!(effect, Effect::Publish(p) if !p.dup)).count();
            if taken > 0 {
                new += taken;
                // Counted once: the effects of this connection stay for `published`.
                for effect in &mut client.effects {
                    if let Effect::Publish(publication) = effect {
                        publication.dup = true;
                    }
                }
            }
            prop_assert_eq!(new, begun, "each message is new once, and no repeat is");
            for packet in client.output() {
                if let Some(id) = packet.strip_prefix("PUBREC ").and_then(|rest| rest.strip_suffix(" 0x00")) {
                    received.insert(id.parse::<u16>().expect("a number"));
                }
            }
            prop_assert!(received.is_subset(&open));
            prop_assert!(client.closed().is_none(), "{:?}", client.closed());
        }
        prop_assert!(given + client.published().len() >= begun);
    }
}
