//! Nanoseconds per packet of those a server sees most: a 128-byte QoS 1 PUBLISH, PUBACK, PINGREQ and SUBSCRIBE.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use drover_mqtt::{
    Ack, Decoder, Packet, PacketId, Properties, Publish, ReasonCode, Side, Subscribe, Subscription, SubscriptionList,
    SubscriptionOptions, Version, encode,
};
use drover_types::Qos;

fn publish(payload: &[u8]) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "sensors/building-7/room-12/climate",
        packet_id: PacketId::new(7),
        properties: Properties::default(),
        payload,
    })
}

fn codec(c: &mut Criterion) {
    let payload = [b'x'; 128];
    for version in [Version::V311, Version::V5] {
        let (mut bytes, decoder) = (Vec::new(), Decoder::new(Side::Client, version));
        encode(&publish(&payload), version, &mut bytes).expect("valid");
        c.bench_function(&format!("decode publish, mqtt {version}"), |bench| {
            bench.iter(|| {
                let (packet, taken) = decoder.decode(black_box(&bytes)).expect("valid").expect("complete");
                let Packet::Publish(publish) = packet else { unreachable!("a publish was encoded") };
                black_box((publish.topic.len(), publish.payload.len(), taken))
            });
        });
        let mut out = Vec::with_capacity(256);
        c.bench_function(&format!("encode publish, mqtt {version}"), |bench| {
            bench.iter(|| {
                out.clear();
                encode(black_box(&publish(&payload)), version, &mut out).expect("valid");
                black_box(out.len())
            });
        });
        let ack = Packet::PubAck(Ack::new(PacketId::MIN, ReasonCode::Success));
        c.bench_function(&format!("encode puback, mqtt {version}"), |bench| {
            bench.iter(|| {
                out.clear();
                encode(black_box(&ack), version, &mut out).expect("valid");
                black_box(out.len())
            });
        });
    }
}

/// The other packets that a server reads all the time.
fn others(c: &mut Criterion) {
    let mut list = SubscriptionList::default();
    let options = SubscriptionOptions::new(Qos::AtLeastOnce);
    list.push(Subscription { filter: "sensors/building-7/+/climate", options }).expect("short");
    let subscribe = Subscribe {
        packet_id: PacketId::MIN,
        properties: Properties::default(),
        subscriptions: list.as_subscriptions(),
    };
    let ack = Ack::new(PacketId::MIN, ReasonCode::Success);
    for packet in [Packet::PubAck(ack), Packet::PingReq, Packet::Subscribe(subscribe)] {
        let (mut bytes, decoder) = (Vec::new(), Decoder::new(Side::Client, Version::V5));
        encode(&packet, Version::V5, &mut bytes).expect("valid");
        c.bench_function(&format!("decode {}, mqtt 5", packet.packet_type()), |bench| {
            bench.iter(|| {
                let (packet, taken) = decoder.decode(black_box(&bytes)).expect("valid").expect("complete");
                if let Packet::Subscribe(subscribe) = packet {
                    black_box(
                        subscribe.subscriptions.iter().map(|subscription| subscription.filter.len()).sum::<usize>(),
                    );
                }
                black_box(taken)
            });
        });
    }
}

criterion_group!(benches, codec, others);
criterion_main!(benches);
