//! What ingress nodes share, on a Cassandra that hangs and that is killed: calls end in time, nothing answered is lost.

use std::sync::Arc;
use std::time::Duration;

use drover_backends::cassandra::{self, Cassandra as Server};
use drover_host::Cassandra;
use drover_ingress::conformance::retained_message;
use drover_ingress::ports::sessions::{Change, Head, Place, Row, SessionStore, What};
use drover_ingress::ports::{RetainedBounds, RetainedQuery, RetainedStore, StoreError};
use drover_ingress::scylla::{Retained, Sessions};
use drover_mqtt::PacketId;
use drover_scylla_kit::{Options, Replication};
use drover_types::{ClientId, DeviceId, TenantId};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What calls are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What calls are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// What a call may take beyond that, on a machine that does other things.
const SLACK: Duration = Duration::from_secs(8);
/// Of the session's connection, microseconds since the Unix epoch.
const EPOCH: u64 = 1_795_000_000_000_000;

/// Held by a test that has a server of its own: two of them beside the shared one are much for a small machine.
pub static OWN_SERVER: Mutex<()> = Mutex::const_new(());

/// Both stores as one node has them, a session and a tenant in them.
struct Stores {
    sessions: Sessions,
    retained: Retained,
    key: Arc<(TenantId, ClientId)>,
}

impl Stores {
    async fn open(options: &Options) -> Self {
        let cassandra = Cassandra::new(options.clone());
        let waiting = |why: &_| eprintln!("waiting: {why}");
        let sessions = Sessions::open(&cassandra, "n", waiting).await.expect("opens");
        let bounds = RetainedBounds { messages: 100, bytes: 1 << 20 };
        let retained = Retained::open(&cassandra, bounds, waiting).await.expect("opens");
        let client = ClientId::new("c").expect("valid");
        Self { sessions, retained, key: Arc::new((TenantId::default_tenant(), client)) }
    }

    /// Writes the session's head and a message of its inbox; the same ones however often it is called.
    async fn write(&self, number: u32) -> Result<(), StoreError> {
        let device = DeviceId::new("d").expect("valid");
        let head = Head { epoch: EPOCH, device, expiry_s: 60, away: None, will: None, sent: None };
        let row = Row { place: Place { epoch: EPOCH, number }, packet_id: PacketId::MIN, delivery: None };
        let first_stamp = EPOCH + u64::from(number) * 10;
        let changes = (first_stamp..).zip([What::Head(Box::new(head)), What::Put(row)]);
        let changes = changes.map(|(stamp, what)| Change { key: self.key.clone(), stamp, what });
        self.sessions.write(changes.collect()).await
    }

    /// Retains a message; the same one however often it is called.
    async fn retain(&self, number: u32) -> Result<usize, StoreError> {
        let message = retained_message(&self.key.0, &format!("r/{number}"), "x", number.into(), 1, None);
        self.retained.keep(vec![Arc::new(message)]).await
    }

    async fn places(&self) -> Result<Vec<u32>, StoreError> {
        let rows = self.sessions.inbox(&self.key, None, 100).await?;
        Ok(rows.iter().map(|row| row.place.number).collect())
    }

    async fn topics(&self) -> Result<Vec<String>, StoreError> {
        let query = RetainedQuery {
            tenant: self.key.0.clone(),
            filter: "r/#".into(),
            after: None,
            now_ms: 0,
            messages_max: 100,
            bytes_max: 1 << 20,
        };
        let page = self.retained.matching(query).await?;
        Ok(page.messages.iter().map(|message| message.telemetry.topic.to_string()).collect())
    }

    /// Makes both writes until they are answered.
    async fn keep(&self, number: u32) {
        answered(async || self.write(number).await).await;
        assert_eq!(answered(async || self.retain(number).await).await, 0, "there is room");
    }

    /// All calls say in time that nobody answers.
    async fn are_away(&self, number: u32) {
        is_away(self.write(number)).await;
        is_away(self.sessions.read(&self.key)).await;
        is_away(self.places()).await;
        is_away(self.retain(number)).await;
        is_away(self.topics()).await;
    }
}

/// Calls until there is an answer.
async fn answered<T>(mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let began = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable { .. }) if began.elapsed() < PATIENCE => {}
            Err(failure) => panic!("{failure}"),
        }
    }
}

async fn is_away<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) {
    let began = Instant::now();
    let failure = call.await.expect_err("nobody answers");
    assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}");
    assert!(began.elapsed() < IMPATIENCE + SLACK, "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_or_hanging_refuses_in_time_and_sessions_and_retained_messages_live_through_it() {
    let _turn = OWN_SERVER.lock().await;
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    let options = Options {
        hosts: vec![server.address()],
        keyspace: "ingress_away".to_owned(),
        replication: Replication::Factor(1),
        request_timeout: IMPATIENCE,
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    };
    // Tables take longer than calls do.
    drop(Stores::open(&Options { request_timeout: PATIENCE, ..options.clone() }).await);
    let stores = Stores::open(&options).await;
    stores.keep(1).await;

    server.hang();
    stores.are_away(2).await;
    server.resume();
    stores.keep(2).await;

    server.kill();
    stores.are_away(3).await;
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("it starts");
    stores.keep(3).await;

    assert_eq!(answered(async || stores.places().await).await, [1, 2, 3]);
    assert_eq!(answered(async || stores.topics().await).await, ["r/1", "r/2", "r/3"]);
    let stored = answered(async || stores.sessions.read(&stores.key).await).await.expect("it is there");
    assert_eq!((stored.head.epoch, stored.stamp), (EPOCH, EPOCH + 30));
    stores.keep(2).await;
    assert_eq!(
        answered(async || stores.places().await).await,
        [1, 2, 3],
        "an old write that comes late changes nothing"
    );
}
