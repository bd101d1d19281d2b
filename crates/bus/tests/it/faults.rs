//! File operations fail, a sample of them one by one, once and for a while: nothing acknowledged is lost, no
//! transaction shows by half, receipts tell the truth, and the log works again when the disk does; also if power fails.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_bus::embedded::EmbeddedBus;
use futures::{FutureExt, StreamExt};

use crate::faulty_disk::{FaultyDisk, Image, Operation, lay_out};
use crate::ledger::{Ledger, Work, options};

/// Enough for several segments, checkpoints and compactions.
const ROUNDS: u64 = 12;
/// Long enough for a transaction that can be written.
const BRIEFLY: Duration = Duration::from_secs(2);
/// Runs side by side: most of the time each waits for the next attempt.
const SIDE_BY_SIDE: usize = 8;

/// Opens a log as a loss of power would have left it, and checks it.
async fn check_image(image: &Image, from: &Path, ledger: &Ledger) {
    let directory = tempfile::tempdir().expect("a directory");
    lay_out(image, from, directory.path());
    let (bus, _) = EmbeddedBus::open(directory.path(), options(None)).expect("opens after a loss of power");
    ledger.check(&bus).await;
    let work = Work::begin(bus.clone(), Arc::default());
    work.await.run(1).await;
    bus.close().await;
    let (bus, recovery) = EmbeddedBus::open(directory.path(), options(None)).expect("opens again");
    assert_eq!((recovery.cut, recovery.rewound), (vec![], vec![]), "a clean end leaves nothing to repair");
    drop(bus);
}

/// The workload with operations `first` to `first + count` failing; how many operations there were.
async fn run(first: u64, count: u64) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(FaultyDisk::default());
    let (bus, _) = EmbeddedBus::open(directory.path(), options(Some(disk.clone()))).expect("opens");
    let opened = disk.operations();
    disk.fail(move |number, _, _| (opened + first..opened + first + count).contains(&number));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut work = Work::begin(bus.clone(), ledger.clone()).await;
    work.run(ROUNDS).await;
    let told = ledger.lock().expect("is sound").clone();
    told.check(&bus).await;
    for image in disk.after_power_loss() {
        check_image(&image, directory.path(), &told).await;
    }
    drop(work);
    bus.close().await;
    let operations = disk.operations() - opened;
    disk.heal();
    let (bus, _) = EmbeddedBus::open(directory.path(), options(None)).expect("opens again");
    told.check(&bus).await;
    operations
}

/// Like [`run`], but power fails in the moment of the first failure.
async fn run_until_power_fails(first: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(FaultyDisk::default());
    let (bus, _) = EmbeddedBus::open(directory.path(), options(Some(disk.clone()))).expect("opens");
    let opened = disk.operations();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let told = Arc::new(Mutex::new(None));
    let (asked, answered) = (ledger.clone(), told.clone());
    disk.fail(move |number, _, _| {
        let fails = number >= opened + first;
        if fails {
            answered.lock().expect("is sound").get_or_insert_with(|| asked.lock().expect("is sound").clone());
        }
        fails
    });
    let working = async {
        let mut work = Work::begin(bus.clone(), ledger).await;
        work.run(ROUNDS).await;
    };
    let failing = async {
        while disk.failures() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::select! { () = working => {}, () = failing => {} }
    let told = told.lock().expect("is sound").take();
    for image in disk.after_power_loss_at_first_failure() {
        check_image(&image, directory.path(), told.as_ref().expect("was taken with the image")).await;
    }
}

/// One run for each number, some side by side.
async fn each<F: Future<Output = ()>>(numbers: impl Iterator<Item = u64>, run: impl Fn(u64) -> F) {
    futures::stream::iter(numbers.map(run)).buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_operation_may_fail_once() {
    let operations = run(u64::MAX / 2, 0).await;
    each((0..operations).step_by(3), |number| run(number, 1).map(|_operations| ())).await;
    println!("{operations} operations, every third of them failed once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_disk_may_fail_for_a_while() {
    let operations = run(u64::MAX / 2, 0).await;
    each((1..operations).step_by(9), |number| run(number, 7).map(|_operations| ())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn power_may_fail_at_any_operation() {
    let operations = run(u64::MAX / 2, 0).await;
    each((0..operations).step_by(4), run_until_power_fails).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_never_stands_where_a_failed_append_may_come_back() {
    for can_cut in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(FaultyDisk::default());
        let (bus, _) = EmbeddedBus::open(directory.path(), options(Some(disk.clone()))).expect("opens");
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut work = Work::begin(bus.clone(), ledger.clone()).await;
        work.run(1).await;
        let mut syncs = 0;
        disk.fail(move |_, operation, _| match operation {
            Operation::Sync => {
                syncs += 1;
                syncs == 1
            }
            Operation::Truncate => !can_cut,
            _ => false,
        });
        work.append_in_vain().await;
        let committed = tokio::time::timeout(BRIEFLY, work.transact(1)).await.is_ok();
        assert_eq!(committed, can_cut, "nothing is placed behind bytes that cannot be cut off");
        let told = ledger.lock().expect("is sound").clone();
        for image in disk.after_power_loss() {
            check_image(&image, directory.path(), &told).await;
        }
    }
}
