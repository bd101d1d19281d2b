//! Deadlines, further tries, replicas.

use std::time::Duration;

use drover_host::{Metrics, dependency};
use tonic::Code;

use crate::service::{GET, MAKE, Served, call, network, nobody};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_may_be_called_twice_is_called_again_while_the_service_is_unavailable() {
    let served = Served::start();
    let network = network(&[served.address], DEADLINE);
    let metrics = Metrics::default();
    network.register(&metrics);
    let client = network.client("thing");
    served.thing.answers(&[Code::Unavailable; 3]);
    call(&client, GET).await.expect("the fourth try works");
    assert_eq!(served.thing.calls().len(), 4);
    served.thing.answers(&[Code::Unavailable; 4]);
    assert_eq!(call(&client, GET).await.expect_err("tries are bounded").message(), "as told");
    assert_eq!(served.thing.calls().len(), 4);
    let text = metrics.encode();
    assert!(text.contains(r#"drover_network_retries_total{service="thing"} 6"#), "{text}");
    assert!(text.contains(r#"drover_network_failures_total{service="thing"} 1"#), "{text}");
}

#[tokio::test]
async fn what_may_not_be_called_twice_and_other_codes_are_final() {
    let served = Served::start();
    let client = network(&[served.address], DEADLINE).client("thing");
    for (path, code) in [(MAKE, Code::Unavailable), (GET, Code::Internal), (GET, Code::NotFound)] {
        served.thing.answers(&[code]);
        assert_eq!(call(&client, path).await.expect_err("final").code(), code);
        assert_eq!(served.thing.calls().len(), 1, "{path} {code}");
    }
}

#[tokio::test]
async fn a_replica_that_is_away_costs_no_call_even_of_what_may_not_be_called_twice() {
    let served = Served::start();
    let client = network(&[nobody(), served.address], DEADLINE).client("thing");
    for _ in 0..10 {
        call(&client, MAKE).await.expect("the other replica takes it");
    }
    assert_eq!(served.thing.calls().len(), 10);
}

#[tokio::test]
async fn replicas_take_turns() {
    let (one, two) = (Served::start(), Served::start());
    let client = network(&[one.address, two.address], DEADLINE).client("thing");
    for _ in 0..10 {
        call(&client, MAKE).await.expect("works");
    }
    assert_eq!((one.thing.calls().len(), two.thing.calls().len()), (5, 5));
}

#[tokio::test]
async fn each_replica_can_be_called_by_itself_and_has_a_name() {
    let (one, two) = (Served::start(), Served::start());
    let network = network(&[one.address, two.address], DEADLINE);
    for (name, client) in network.replicas("thing") {
        call(&client, MAKE).await.expect("works");
        assert!([one.address, two.address].iter().any(|address| address.to_string() == name), "{name}");
    }
    assert_eq!((one.thing.calls().len(), two.thing.calls().len()), (1, 1));
    let names = |network: &drover_host::Network| network.replicas("thing")[0].0.clone();
    assert_eq!(names(&crate::service::network(&[one.address], DEADLINE)), "thing");
    assert_eq!(names(&drover_host::Network::default()), "thing");
}

#[tokio::test]
async fn every_call_carries_its_deadline_and_none_outlives_it() {
    let served = Served::start();
    let short = Duration::from_millis(300);
    call(&network(&[served.address], short).client("thing"), GET).await.expect("works");
    let told = served.thing.calls().remove(0);
    let left: u64 = told.strip_suffix('m').and_then(|digits| digits.parse().ok()).expect("milliseconds");
    assert!((1..=300).contains(&left), "{told}");
    // Takes connections and says nothing on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let client = network(&[silent.local_addr().expect("bound")], short).client("thing");
    assert_eq!(call(&client, GET).await.expect_err("late").code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn nobody_there_is_unavailable_with_the_address_and_is_found_when_it_comes() {
    let address = nobody();
    let network = network(&[address], DEADLINE);
    let (client, probe) = (network.client("thing"), dependency::service("thing", network.client("thing")));
    let refused = call(&client, GET).await.expect_err("nobody listens");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with(&format!("thing at http://{address}/: ")), "{refused}");
    assert!(probe().await.expect_err("nobody listens").contains(&address.to_string()));
    let served = Served::start_at(address);
    call(&client, GET).await.expect("the same client finds it");
    probe().await.expect("there");
    served.stop().await;
    assert!(probe().await.is_err(), "and notices when it goes");
}
