//! Filters that are granted or refused, one by one.

use super::*;

#[test]
fn each_filter_of_a_subscribe_is_granted_or_refused_by_itself() {
    // [MQTT-3.8.4-6]
    for (version, codes) in
        [(Version::V5, [2, 0x87, 0x8f, 0x87, 0, 0x97]), (Version::V311, [2, 0x80, 0x80, 0x80, 0, 0x80])]
    {
        let mut client = Client::connected(version);
        let mut list = SubscriptionList::default();
        let filters =
            [("ok/#", 2), ("secret/#", 1), ("ok/#/x", 1), ("$share/g/secret", 1), ("ok/+", 0), ("ok/third", 1)];
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

#[test]
fn a_filter_that_nobody_may_have_is_refused_without_a_reason() {
    for version in BOTH {
        let limits = Limits { denied_filters: vec!["ok/denied".into()], ..LIMITS };
        let mut client = Client::connected_with(version, limits);
        let mut list = SubscriptionList::default();
        list.push(Subscription { filter: "ok/denied", options: SubscriptionOptions::new(Qos::AtMostOnce) })
            .expect("short");
        let subscriptions = list.as_subscriptions();
        let packet_id = PacketId::MIN;
        client.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), subscriptions }));
        client.connection.subscribed(at(0));
        assert_eq!(client.output(), ["SUBACK [128]"]);
    }
}
