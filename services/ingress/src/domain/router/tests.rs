//! The router against matching one by one, and the rules of overlapping and shared subscriptions.

use proptest::prelude::*;

use super::*;

const PLAIN: Options = Options { qos: Qos::AtLeastOnce, no_local: false, retain_as_published: false, id: None };

fn home() -> TenantId {
    TenantId::new("home").expect("valid")
}

fn router(filters: &[(&str, Subscriber, Options)]) -> Router<Subscriber> {
    let mut router = Router::default();
    for (filter, number, options) in filters {
        router.subscribe(&home(), filter, *number, *number, *options);
    }
    router
}

fn subscribers(router: &Router<Subscriber>, topic: &str) -> Vec<Subscriber> {
    router.matches(&home(), topic, None, |_| true).into_iter().map(|m| m.subscriber).collect()
}

#[test]
fn overlapping_filters_deliver_once_at_the_highest_qos_with_all_ids() {
    let with = |qos, id| Options { qos, id: SubscriptionId::new(id), ..PLAIN };
    let router = router(&[
        ("a/#", 1, with(Qos::AtMostOnce, 10)),
        ("a/+", 1, with(Qos::AtLeastOnce, 20)),
        ("a/b", 1, with(Qos::AtMostOnce, 0)),
    ]);
    let found = router.matches(&home(), "a/b", None, |_| true);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].qos, Qos::AtLeastOnce);
    let mut ids: Vec<u32> = found[0].ids.iter().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [10, 20]);
}

/// How many nodes of the tree are looked at for a topic, and how many subscribers are found.
fn work(router: &Router<Subscriber>, topic: &str) -> (usize, usize) {
    let mut found = Vec::new();
    (router.tenants[&home()].own.collect(topic, &mut found), found.len())
}

#[test]
fn the_work_for_a_topic_is_the_same_among_thousands_of_topics_and_wildcards() {
    let topic = |client: u64| format!("fleet/device-{client}/commands");
    let mut alone = Router::default();
    alone.subscribe(&home(), &topic(0), 0, 0, PLAIN);
    let (one, _) = work(&alone, &topic(0));
    let mut among = Router::default();
    for client in 0..8_000 {
        among.subscribe(&home(), &topic(client), client, client, PLAIN);
    }
    for client in [0, 4_999, 7_999] {
        assert_eq!(work(&among, &topic(client)), (one, 1));
    }
    // Others' wildcards, each of which could be about any topic as far as its last level tells.
    for client in 0..8_000 {
        among.subscribe(&home(), &format!("site-{client}/#"), client, client, PLAIN);
        among.subscribe(&home(), &format!("+/device-{client}/state"), client, client, PLAIN);
    }
    for client in [0, 4_999, 7_999] {
        let (nodes, found) = work(&among, &topic(client));
        assert!(
            nodes <= 2 * one && found == 1,
            "{nodes} nodes for {found} subscribers, {one} where there is one topic"
        );
    }
}

#[test]
fn a_second_subscription_to_a_filter_replaces_the_first() {
    let router = router(&[("a", 1, PLAIN), ("a", 1, Options { qos: Qos::AtMostOnce, ..PLAIN })]);
    assert_eq!(router.matches(&home(), "a", None, |_| true)[0].qos, Qos::AtMostOnce);
}

#[test]
fn no_local_keeps_a_message_from_its_publisher_only() {
    let router = router(&[("a", 1, Options { no_local: true, ..PLAIN }), ("a", 2, PLAIN)]);
    let found = router.matches(&home(), "a", Some(1), |_| true);
    assert_eq!(found.iter().map(|m| m.subscriber).collect::<Vec<_>>(), [2]);
}

#[test]
fn another_tenants_subscriptions_are_out_of_reach() {
    let router = router(&[("#", 1, PLAIN)]);
    let other = TenantId::new("other").expect("valid");
    assert!(router.matches(&other, "a", None, |_| true).is_empty());
}

#[test]
fn what_is_unsubscribed_leaves_nothing_behind() {
    let filters = ["#", "+", "a/b/c", "a/+/c/#", "$x/#", "$share/g/a/+", "$share/h/a/+"];
    let mut router = router(&filters.map(|filter| (filter, 1, PLAIN)));
    assert!(filters.iter().all(|filter| router.unsubscribe(&home(), filter, 1)));
    assert!(router.is_empty());
}

#[test]
fn members_of_a_shared_subscription_take_turns_and_the_absent_are_passed_over() {
    // [MQTT-4.8.2-3] and section 4.8.2
    let one = Options { qos: Qos::AtMostOnce, id: SubscriptionId::new(7), ..PLAIN };
    let router = router(&[
        ("$share/g/a/+", 1, one),
        ("$share/g/a/+", 2, PLAIN),
        ("$share/h/a/+", 3, PLAIN),
        ("$share/g/a/b", 4, PLAIN),
        ("a/#", 1, PLAIN),
    ]);
    let found = |ready: &dyn Fn(&Subscriber) -> bool| {
        let mut found: Vec<(Subscriber, Option<String>)> = router
            .matches(&home(), "a/b", None, ready)
            .into_iter()
            .map(|m| (m.subscriber, m.share.map(|share| share.to_string())))
            .collect();
        found.sort();
        found
    };
    let share = |filter: &str| Some(filter.to_owned());
    let expected = |first| {
        let mut expected =
            vec![(1, None), (first, share("$share/g/a/+")), (3, share("$share/h/a/+")), (4, share("$share/g/a/b"))];
        expected.sort();
        expected
    };
    assert_eq!(found(&|_| true), expected(1), "each share name and filter is a subscription of its own");
    assert_eq!(found(&|_| true), expected(2));
    assert_eq!(found(&|number| *number != 1), expected(2));
    assert!(found(&|_| false).len() == 4, "the absent get it if nobody else is there");
    assert_eq!(router.member(&home(), "$share/h/a/+", |_| true).map(|m| m.subscriber), Some(3));
    assert_eq!(router.member(&home(), "$share/h/a/+", |_| false), None);
    assert_eq!(router.member(&home(), "$share/x/a/+", |_| true), None);
}

/// The time for this many topics, in the fastest of several runs.
fn fastest(router: &Router<Subscriber>, topics: &[String]) -> std::time::Duration {
    let run = |_| {
        let began = tokio::time::Instant::now();
        assert!(topics.iter().all(|topic| subscribers(router, topic).len() == 1));
        began.elapsed()
    };
    (0..20).map(run).min().expect("several runs")
}

#[test]
fn matching_does_not_grow_with_the_number_of_topics_and_their_clients() {
    let topics: Vec<String> = (0..8_000).map(|n| format!("fleet/device-{n}/commands")).collect();
    let mut many = Router::default();
    for (number, topic) in (1..).zip(&topics) {
        many.subscribe(&home(), topic, number, number, PLAIN);
    }
    let one = router(&[(topics[0].as_str(), 1, PLAIN)]);
    let (among_one, among_many) = (fastest(&one, &vec![topics[0].clone(); 8_000]), fastest(&many, &topics));
    // Looking at each of them would be thousands of times slower; `benches/router.rs` has the true figures.
    assert!(among_many < among_one * 20, "{among_many:?}, among one: {among_one:?}");
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")]
}

fn topics() -> impl Strategy<Value = String> {
    proptest::collection::vec(level(), 1..4).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 0..4);
    (levels, any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
        levels.extend(rest.then_some("#"));
        Some(levels.join("/")).filter(|filter| !filter.is_empty())
    })
}

proptest! {
    #[test]
    fn the_tree_finds_exactly_what_matching_one_by_one_finds(
        filters in proptest::collection::vec(filters(), 0..20),
        topic in topics(),
        removed in any::<prop::sample::Index>(),
    ) {
        let mut router = Router::default();
        for (number, filter) in (1..).zip(&filters) {
            router.subscribe(&home(), filter, number, number, PLAIN);
        }
        let gone = if filters.is_empty() { 0 } else { removed.index(filters.len()) as u64 + 1 };
        if gone > 0 {
            router.unsubscribe(&home(), &filters[gone as usize - 1], gone);
        }
        let expected: Vec<u64> = (1..)
            .zip(&filters)
            .filter(|(number, filter)| *number != gone && drover_types::matches(filter, &topic))
            .map(|(number, _)| number)
            .collect();
        prop_assert_eq!(subscribers(&router, &topic), expected);
    }
}
