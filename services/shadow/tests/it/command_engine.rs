//! The loop over the log of commands: when no more fit in, and while partitions move between two members.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::Partition;
use drover_host::SystemClock;
use drover_types::command::COMMANDS_TOPIC;
use drover_types::{Clock, RecordId, header};

use crate::commands::{list_of, logged, open_store};
use crate::ingress::FakeIngress;
use crate::stage::{Replica, Stage, until};

/// Devices that are told to do something in turn: some of each partition.
const DEVICES: usize = 40;
/// Commands that wait for the ingress before no more are read, and records that one poll brings.
const WAITING_MAX: usize = 256;
const POLL_RECORDS: usize = 100;
/// Three polls of a loop that has no room.
const THREE_POLLS: Duration = Duration::from_secs(3);
/// Counters of a replica.
const SENT: &str = "drover_shadow_commands_sent_total";
const RESTARTS: &str = "drover_shadow_restarts_total";

fn device(number: usize) -> String {
    format!("lamp-{}", number % DEVICES)
}

fn id(number: usize) -> RecordId {
    RecordId((number as u128 + 1).to_be_bytes())
}

/// Appends commands as if they were sent.
async fn log_commands(stage: &Stage, numbers: Range<usize>) {
    let expires_ms = SystemClock.now_ms() + 3_600_000;
    let request = format!(r#"{{"name":"fan","payload":null,"expires":{expires_ms}}}"#);
    let records = numbers.map(|number| {
        let (device, id) = (device(number), id(number));
        logged(&device, id, &format!("$drover/commands/{device}/{id}/request"), &request)
    });
    stage.bus.append(records.collect()).await.expect("taken").await.expect("durable");
}

/// How many commands are in the store.
async fn folded(replica: &Replica) -> usize {
    let mut folded = 0;
    for number in 0..DEVICES {
        folded += list_of(replica, &device(number), 0, "").await.commands.len();
    }
    folded
}

/// The ids of the commands in the log, partition by partition.
async fn by_partition(stage: &Stage) -> Vec<BTreeSet<Vec<u8>>> {
    let mut ids: BTreeMap<Partition, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for stored in stage.records(COMMANDS_TOPIC).await {
        let id = stored.record.header(header::ID).expect("an id").to_vec();
        ids.entry(stored.position.at.partition).or_default().insert(id);
    }
    ids.into_values().collect()
}

/// Checks that exactly these were published, each once, and those of a device in order.
fn check_published(ingress: &FakeIngress, numbers: Range<usize>) {
    let published = ingress.published();
    let ids: BTreeSet<&[u8]> = published.iter().map(|request| request.id.as_slice()).collect();
    let expected: Vec<RecordId> = numbers.map(id).collect();
    assert_eq!(ids, expected.iter().map(|id| id.0.as_slice()).collect());
    assert_eq!(published.len(), expected.len(), "each once");
    let mut of_device: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for request in &published {
        of_device.entry(&request.device).or_default().push(&request.id);
    }
    assert!(of_device.values().all(|ids| ids.is_sorted()), "{of_device:?}");
}

#[tokio::test]
async fn while_no_more_fit_in_the_log_is_not_read_on_and_then_all_go_out() {
    const COMMANDS: usize = 480;
    let (stage, ingress) = (Stage::new(), FakeIngress::default().away());
    let replica = stage.start_embedded("shadow-0");
    ingress.serve(&replica.network);
    replica.ready().await;
    log_commands(&stage, 0..COMMANDS).await;
    until(async || folded(&replica).await >= WAITING_MAX).await;
    tokio::time::sleep(THREE_POLLS).await;
    let waiting = folded(&replica).await;
    assert!((WAITING_MAX..WAITING_MAX + POLL_RECORDS).contains(&waiting), "{waiting} wait for the ingress");
    assert_eq!(replica.counted(SENT), 0);

    ingress.come();
    until(async || replica.counted(SENT) >= COMMANDS as u64).await;
    check_published(&ingress, 0..COMMANDS);
    assert_eq!((folded(&replica).await, replica.counted(RESTARTS)), (COMMANDS, 0));
    replica.stop().await;
}

#[tokio::test]
async fn a_member_lets_go_of_what_is_another_ones_and_one_goes_on_for_the_other() {
    let (stage, ingress, (_directory, store)) = (Stage::new(), FakeIngress::default(), open_store());
    let start = |member| stage.start_over(member, &store, Arc::new(SystemClock));
    let (one, away) = (start("shadow-0"), ingress.away());
    away.serve(&one.network);
    one.ready().await;
    log_commands(&stage, 0..80).await;
    until(async || folded(&one).await == 80).await;
    // For the first one the ingress is away: what waits there goes out once the other has its partition.
    let two = start("shadow-1");
    ingress.serve(&two.network);
    let logged = by_partition(&stage).await;
    let published = || {
        let published = ingress.published();
        let of = |ids: &BTreeSet<Vec<u8>>| published.iter().filter(|request| ids.contains(&request.id)).count();
        logged.iter().map(|ids| (of(ids), ids.len())).collect::<Vec<_>>()
    };
    until(async || published().iter().filter(|(sent, all)| sent == all).count() == 2).await;
    assert_eq!(published().iter().filter(|(sent, _)| *sent == 0).count(), 2, "{:?}", published());

    away.come();
    let sent = || one.counted(SENT) + two.counted(SENT);
    until(async || sent() >= 80).await;
    assert!(one.counted(SENT) > 0, "it has kept half of them");
    check_published(&ingress, 0..80);

    let so_far = two.counted(SENT);
    one.stop().await;
    log_commands(&stage, 80..160).await;
    until(async || two.counted(SENT) >= so_far + 80).await;
    check_published(&ingress, 0..160);
    two.stop().await;
}
