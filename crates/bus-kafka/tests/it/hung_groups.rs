//! Groups over a broker that hangs for longer than their sessions: nothing is copied twice, and nobody stays without work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_backends::kafka::Kafka;
use drover_bus::Bus;
use tokio::sync::watch;

use crate::broker::{bus, own, record, topic, values, with, within};
use crate::exactly_once::Copier;

/// Groups at a time: what goes wrong in one of many is seen soon.
const GROUPS: usize = 12;
const PARTITIONS: u32 = 6;
const RECORDS: usize = 4_000;
const CALM: Duration = Duration::from_secs(5);
/// Longer than the sessions of the members, which are 6 s.
const HANG: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_group_copies_every_record_once_over_a_broker_that_hung_for_longer_than_its_sessions() {
    let Some(kafka) = own("").await else { return };
    let feeder = bus(&kafka);
    let input = topic(&feeder, "hung-in", PARTITIONS).await;
    let members = [("a", bus(&kafka)), ("b", bus(&kafka))];
    let (stop, alive) = watch::channel(true);
    let (mut outputs, mut copying) = (Vec::new(), Vec::new());
    for group in 0..GROUPS {
        let group = format!("hung-{group}");
        let output = topic(&feeder, &group, 1).await;
        for (name, bus) in &members {
            let copier =
                Copier { bus: bus.clone(), name, group: group.clone(), input: input.clone(), output: output.clone() };
            copying.push(tokio::spawn(Arc::new(copier).run(alive.clone())));
        }
        outputs.push(output);
    }
    let feeding = tokio::spawn(async move {
        for number in 0..RECORDS {
            let value = number.to_string();
            drop(feeder.append(vec![record(&input, &value, &value)]).await.expect("is taken"));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        feeder
    });
    tokio::time::sleep(CALM).await;
    with(&kafka, Kafka::pause).await;
    tokio::time::sleep(HANG).await;
    with(&kafka, Kafka::resume).await;
    let feeder = within(feeding).await.expect("no panic");
    let mut late = Vec::new();
    for output in &outputs {
        let all = tokio::time::timeout(Duration::from_secs(90), async {
            while values(&feeder, output, 0).await.len() < RECORDS {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        if all.await.is_err() {
            late.push(output);
        }
    }
    stop.send(false).expect("they listen");
    for task in copying {
        within(task).await.expect("no panic");
    }
    // Nobody copies any more: what came twice is there.
    let mut failures: Vec<String> = late.iter().map(|output| format!("{output} was not whole in time")).collect();
    for output in &outputs {
        let mut times = BTreeMap::<usize, usize>::new();
        for value in values(&feeder, output, 0).await {
            *times.entry(value.parse().expect("a number")).or_default() += 1;
        }
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).map(|(number, _)| *number).collect();
        if !doubled.is_empty() || times.len() != RECORDS {
            let (there, first) = (times.len(), doubled.first());
            failures.push(format!("{output}: {there} of {RECORDS}, {} doubled: {first:?}", doubled.len()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
