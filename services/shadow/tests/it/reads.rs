//! Who was told that a change is accepted reads it, by any replica, however slow the store is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_host::{SystemClock, grpc};
use drover_proto::from_status;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{DeleteShadowRequest, GetShadowRequest, ListShadowsRequest, UpdateShadowRequest};
use drover_shadow::DOCUMENTS_TOPIC;
use drover_shadow::conformance::SlowStore;
use drover_shadow::ports::Store;
use drover_types::{ApiError, ErrorCode};
use tempfile::TempDir;
use tonic::{Response, Status};

use crate::commands::open_store;
use crate::stage::{Replica, Stage, until};

/// How long after its answer a change is in the store: longer than it takes to ask what is there.
const LATE: Duration = Duration::from_millis(50);
/// Devices, so that each replica owns the partitions of some.
const DEVICES: usize = 6;
/// Counter of a replica.
const UNSEEN: &str = "drover_shadow_answers_unseen_total";

/// A shadow as a replica is asked about it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    replica: &'a Replica,
    device: &'a str,
    name: &'a str,
}

impl<'a> Asked<'a> {
    fn classic(replica: &'a Replica, device: &'a str) -> Self {
        Self { replica, device, name: "" }
    }

    fn client(&self) -> ShadowClient<grpc::Client> {
        ShadowClient::new(self.replica.network.client("shadow"))
    }

    fn whose(&self) -> (String, String, String) {
        ("home".to_owned(), self.device.to_owned(), self.name.to_owned())
    }

    /// The version it then has.
    async fn update(&self) -> Result<u64, ApiError> {
        let (tenant, device, name) = self.whose();
        let document = br#"{"state": {"desired": {"on": true}}}"#.to_vec();
        let request = UpdateShadowRequest { tenant, device, name, document, id: id() };
        told(self.client().update_shadow(request).await).map(|answer| answer.version)
    }

    /// The version of its deletion.
    async fn delete(&self) -> Result<u64, ApiError> {
        let (tenant, device, name) = self.whose();
        let request = DeleteShadowRequest { tenant, device, name, id: id() };
        told(self.client().delete_shadow(request).await).map(|answer| answer.version)
    }

    /// The version that is read; none: there is no shadow.
    async fn read(&self) -> Option<u64> {
        let (tenant, device, name) = self.whose();
        match told(self.client().get_shadow(GetShadowRequest { tenant, device, name }).await) {
            Ok(answer) => Some(answer.version),
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    async fn is_listed(&self) -> bool {
        let (tenant, device, name) = self.whose();
        let listed = told(self.client().list_shadows(ListShadowsRequest { tenant, device }).await).expect("listed");
        listed.names.contains(&name)
    }
}

/// An id that no other request has.
fn id() -> Vec<u8> {
    static IDS: AtomicU64 = AtomicU64::new(0);
    u128::from(IDS.fetch_add(1, Ordering::Relaxed)).to_be_bytes().to_vec()
}

fn told<T>(answer: Result<Response<T>, Status>) -> Result<T, ApiError> {
    answer.map(Response::into_inner).map_err(|status| from_status(&status))
}

/// A store that gets what is put after `delay`, as a test and as services have it.
fn slow_store(delay: Duration) -> (TempDir, Arc<SlowStore>, Arc<dyn Store>) {
    let (directory, store) = open_store();
    let slow = Arc::new(SlowStore::new(store, delay));
    (directory, Arc::clone(&slow), slow)
}

#[tokio::test]
async fn what_was_accepted_is_read_by_any_replica_at_once() {
    let (stage, (_directory, _, store)) = (Stage::new(), slow_store(LATE));
    let start = |member| stage.start_over(member, &store, Arc::new(SystemClock));
    let (one, two) = (start("shadow-0"), start("shadow-1"));
    tokio::join!(one.ready(), two.ready());
    for number in 0..DEVICES {
        let device = format!("lamp-{number}");
        // Until this one is answered the partitions are shared out.
        one.update(&device, 0).await;
        for (name, before) in [("", 1), ("config", 0)] {
            let at = |replica| Asked { replica, device: &device, name };
            let (here, there) = (at(&one), at(&two));
            let seen =
                async || (here.read().await, there.read().await, here.is_listed().await, there.is_listed().await);
            assert_eq!(here.update().await, Ok(before + 1));
            assert_eq!(seen().await, (Some(before + 1), Some(before + 1), true, true), "{device}/{name}");
            assert_eq!(there.update().await, Ok(before + 2));
            assert_eq!(seen().await, (Some(before + 2), Some(before + 2), true, true), "{device}/{name}");
            assert_eq!(here.delete().await, Ok(before + 3));
            assert_eq!(seen().await, (None, None, false, false), "{device}/{name}");
            assert_eq!(here.delete().await.map_err(|error| error.code), Err(ErrorCode::NotFound));
            assert_eq!(there.update().await, Ok(before + 4));
            assert_eq!(seen().await, (Some(before + 4), Some(before + 4), true, true), "{device}/{name}");
        }
    }
    assert_eq!((one.counted(UNSEEN), two.counted(UNSEEN)), (0, 0));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_change_that_the_store_does_not_take_in_time_is_answered_as_kept_and_read_later() {
    let (stage, (_directory, slow, store)) = (Stage::new(), slow_store(Duration::ZERO));
    let replica = stage.start_over("shadow-0", &store, Arc::new(SystemClock));
    replica.ready().await;
    let lamp = Asked::classic(&replica, "lamp");
    slow.hang_puts(true);
    assert_eq!(lamp.update().await, Ok(1));
    assert_eq!((lamp.read().await, replica.counted(UNSEEN)), (None, 1));
    slow.hang_puts(false);
    until(async || lamp.read().await == Some(1)).await;
    assert_eq!((lamp.update().await, lamp.read().await), (Ok(2), Some(2)));
    assert_eq!(replica.counted(UNSEEN), 1);
    replica.stop().await;
}

#[tokio::test]
async fn a_store_that_hangs_altogether_does_not_hold_an_answer_back_for_ever() {
    let (stage, (_directory, slow, store)) = (Stage::new(), slow_store(Duration::ZERO));
    let replica = stage.start_over("shadow-0", &store, Arc::new(SystemClock));
    replica.ready().await;
    let lamp = Asked::classic(&replica, "lamp");
    slow.hang_puts(true);
    let hanging = async {
        until(async || !stage.records(DOCUMENTS_TOPIC).await.is_empty()).await;
        slow.hang_gets(true);
    };
    let (answered, ()) = tokio::join!(lamp.update(), hanging);
    assert_eq!((answered, replica.counted(UNSEEN)), (Ok(1), 1));
    slow.hang_gets(false);
    slow.hang_puts(false);
    until(async || lamp.read().await == Some(1)).await;
    replica.stop().await;
}
