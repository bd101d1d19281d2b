//! Subscriptions: each filter by itself.

use super::*;

#[test]
fn each_filter_of_a_subscribe_is_granted_or_refused_by_itself() {
    // [MQTT-3.8.4-6], and QoS 2 is granted as 1
    for (version, codes) in
        [(Version::V5, [1, 0x87, 0x8f, 0x9e, 0, 0x97]), (Version::V311, [1, 0x80, 0x80, 0x80, 0, 0x80])]
    {
        let mut client = Client::connected(version);
        let mut list = SubscriptionList::default();
        let filters = [("ok/#", 2), ("secret/#", 1), ("ok/#/x", 1), ("$share/g/ok/a", 1), ("ok/+", 0), ("ok/third", 1)];
        for (filter, qos) in filters {
            let options = SubscriptionOptions::new(Qos::try_from(qos).expect("a qos"));
            list.push(Subscription { filter, options }).expect("short");
        }
        let subscriptions = list.as_subscriptions();
        let packet_id = PacketId::MIN;
        client.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), subscriptions }));
        assert!(client.output().is_empty(), "routing has not followed yet");
        client.connection.subscribed(at(0));
        assert_eq!(client.output(), [format!("SUBACK {codes:?}")]);
        let Some(Effect::Subscribe(granted)) = client.effects.last() else { panic!("a subscription") };
        assert_eq!(granted.iter().map(|g| &*g.filter).collect::<Vec<_>>(), ["ok/#", "ok/+"]);
    }
}
