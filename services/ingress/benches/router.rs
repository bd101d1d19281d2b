//! Nanoseconds to find the subscribers of a message: one topic and one client, and then thousands of clients each on a
//! topic of its own. Fails if the latter costs more than twice as much as a message whose topic is the only one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use drover_ingress::domain::router::{Options, Router};
use drover_types::{Qos, TenantId};
use tokio::time::Instant;

/// Clients, each on a topic of its own.
const CLIENTS: u64 = 8_000;
/// Runs of which the fastest counts: others of this machine are not what is measured.
const RUNS: usize = 20;
/// What a message costs besides, on the best of paths: a QoS 0 message of the fastest peer.
const MESSAGE: Duration = Duration::from_nanos(1_100);

fn router(clients: u64, filter: impl Fn(u64) -> String) -> Router<u64> {
    let mut router = Router::default();
    let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
    for client in 0..clients {
        router.subscribe(&TenantId::default_tenant(), &filter(client), client, client, options);
    }
    router
}

fn topics(clients: u64) -> Vec<String> {
    // Each neighbour in the list is far away in the tree.
    (0..clients).map(|client| format!("fleet/device-{}/commands", client * 4_999 % clients)).collect()
}

/// The subscribers of one topic after the other.
fn find(router: &Router<u64>, topics: &[String]) -> usize {
    let tenant = TenantId::default_tenant();
    topics.iter().map(|topic| router.matches(&tenant, black_box(topic), None, |_| true).len()).sum()
}

/// What one topic costs, in the fastest of several runs.
fn fastest(router: &Router<u64>, topics: &[String]) -> Duration {
    let run = |_| {
        let began = Instant::now();
        assert_eq!(black_box(find(router, topics)), topics.len());
        began.elapsed()
    };
    (0..RUNS).map(run).min().unwrap_or_default() / u32::try_from(topics.len()).expect("thousands")
}

fn matching(c: &mut Criterion) {
    let own = |client| format!("fleet/device-{client}/commands");
    let kinds = [
        ("one client, one topic", router(1, own), vec![topics(1)[0].clone(); 8_000]),
        ("8,000 clients, a topic each", router(CLIENTS, own), topics(CLIENTS)),
        (
            "8,000 clients, a wildcard each",
            router(CLIENTS, |client| format!("fleet/device-{client}/#")),
            topics(CLIENTS),
        ),
    ];
    for (name, router, topics) in &kinds {
        let mut next = topics.iter().cycle();
        c.bench_function(name, |bench| {
            bench.iter(|| {
                let topic = next.next().expect("it never ends");
                router.matches(&TenantId::default_tenant(), black_box(topic), None, |_| true).len()
            });
        });
    }
    let [one, own, _] = kinds.map(|(_, router, topics)| fastest(&router, &topics));
    println!("a topic among one: {one:?}, among {CLIENTS}: {own:?}");
    assert!(MESSAGE + own <= 2 * (MESSAGE + one), "a message among {CLIENTS} topics costs more than twice as much");
}

criterion_group!(benches, matching);
criterion_main!(benches);
