//! Whatever arrives, in whatever pieces.

use proptest::prelude::*;

use super::*;

/// Any packet a client may send, and some it may not.
pub fn packets() -> impl Strategy<Value = Vec<u8>> {
    let publish = (0u16..6, any::<bool>(), prop_oneof![Just("ok/a"), Just("secret"), Just("")], 0usize..1_200)
        .prop_map(|(id, dup, topic, size)| {
            let payload = vec![1; size];
            let packet_id = PacketId::new(id);
            let qos = if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            let dup = dup && packet_id.is_some();
            bytes_of(&Packet::Publish(Publish { qos, dup, packet_id, payload: &payload, ..Publish::new(topic, b"") }))
        });
    prop_oneof![
        8 => publish,
        1 => Just(bytes_of(&Packet::PingReq)),
        1 => Just(bytes_of(&Packet::PubAck(ack(1)))),
        1 => (1u16..4).prop_map(|id| bytes_of(&Packet::PubRec(ack(id)))),
        1 => (1u16..4).prop_map(|id| bytes_of(&Packet::PubRel(ack(id)))),
        1 => (1u16..4).prop_map(|id| bytes_of(&Packet::PubComp(ack(id)))),
        1 => Just(bytes_of(&Packet::Connect(Connect::new(Version::V5, "c")))),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn bytes_of(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, Version::V5, &mut bytes).expect("valid");
    bytes
}

proptest! {
    #[test]
    fn whatever_arrives_in_whatever_pieces_only_stored_messages_are_acknowledged_in_order(
        packets in proptest::collection::vec(packets(), 0..40),
        cuts in proptest::collection::vec((1usize..500, 0usize..3), 1..60),
    ) {
        let mut client = Client::connected(Version::V5);
        let stream = packets.concat();
        let (mut sent, mut stored, mut acknowledged) = (0, 0, Vec::new());
        for (piece, store) in cuts.iter().cycle().take(200) {
            let end = (sent + piece).min(stream.len());
            if client.connection.wants_bytes(client.input.len()) {
                client.input.put_slice(&stream[sent..end]);
                sent = end;
            }
            client.go(0);
            let store = (*store).min(client.published().len() - stored);
            client.connection.stored(store, at(0));
            stored += store;
            acknowledged.extend(client.output().into_iter().filter(|p| p.starts_with("PUBACK") && p.ends_with("0x00")));
            prop_assert!(client.input.len() <= 500 + LIMITS.packet_bytes_max as usize);
            let expected: Vec<String> = client.published()[..stored]
                .iter()
                .filter(|id| **id > 0)
                .map(|id| format!("PUBACK {id} 0x00"))
                .collect();
            prop_assert!(expected.starts_with(&acknowledged));
            if client.closed().is_none() {
                // A refusal in front holds nothing back that is not itself behind an open message.
                prop_assert_eq!(&expected, &acknowledged);
            }
        }
    }
}
