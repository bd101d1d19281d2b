//! kcat, as a person at a shell uses it.

use crate::broker::Broker;
use crate::console::{owned, run};

/// What a shell says where there is no such program.
const NOT_FOUND: i32 = 127;

/// Runs kcat against the broker; its standard output, or `None` where it is not installed.
pub async fn kcat(broker: &Broker, arguments: &[&str], input: &str) -> Option<String> {
    let address = broker.address.to_string();
    let arguments = [&["-b", address.as_str()], arguments].concat();
    let output = run("kcat", owned(&arguments), input.to_owned()).await;
    if output.status.code() == Some(NOT_FOUND) {
        println!("NOT RUN: kcat is not installed");
        return None;
    }
    assert!(output.status.success(), "kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_lists_topics_with_their_leader() {
    let broker = Broker::start().await;
    broker.topic("listed", 2).await;
    let Some(listing) = kcat(&broker, &["-L"], "").await else { return };
    assert!(listing.contains(&format!("broker 1 at {}", broker.address)), "{listing}");
    assert!(listing.contains("topic \"listed\" with 2 partitions"), "{listing}");
    assert!(listing.contains("partition 1, leader 1, replicas: 1, isrs: 1"), "{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_to_the_end_what_kcat_wrote() {
    let broker = Broker::start().await;
    broker.topic("written", 1).await;
    let lines: String = (0..500).map(|n| format!("k{n}:line {n}\n")).collect();
    let Some(_) = kcat(&broker, &["-P", "-t", "written", "-K", ":"], &lines).await else { return };
    let reading = ["-C", "-t", "written", "-X", "isolation.level=read_committed", "-e", "-q", "-K", ":"];
    assert_eq!(kcat(&broker, &reading, "").await, Some(lines));
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_in_a_group_to_the_end_of_all_partitions_and_goes_on_later() {
    let broker = Broker::start().await;
    broker.topic("grouped", 3).await;
    let group = ["-G", "listeners", "-e", "-q", "-X", "auto.offset.reset=earliest", "grouped"];
    for round in 0..2 {
        let lines: Vec<String> = (0..60).map(|n| format!("round {round} line {n}")).collect();
        let Some(_) = kcat(&broker, &["-P", "-t", "grouped"], &(lines.join("\n") + "\n")).await else { return };
        let read = kcat(&broker, &group, "").await.expect("it is installed");
        let mut read: Vec<&str> = read.lines().collect();
        let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
        read.sort_unstable();
        expected.sort_unstable();
        assert_eq!(read, expected, "round {round}");
    }
}
