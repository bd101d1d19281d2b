//! A store of retained messages that fails, and a subscriber that does not read, on virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use drover_types::limits::INBOX_MESSAGES_MAX;
use drover_types::{ClientId, Qos, TenantId};

use super::overfull::MOMENT;
use super::*;
use crate::domain::inherit::tests::alone;
use crate::domain::router::Options;
use crate::domain::session::tests::message;
use crate::ports::{RetainedPage, RetainedQuery};

/// Keeps what it is given, unless it is away, or hangs.
#[derive(Default)]
struct Store {
    away: AtomicBool,
    hangs: AtomicBool,
    kept: Mutex<Vec<Arc<Message>>>,
}

#[async_trait]
impl RetainedStore for Store {
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { reason: "as told".to_owned() });
        }
        self.kept.lock().expect("no panic").extend(messages);
        Ok(0)
    }

    async fn matching(&self, _: RetainedQuery) -> Result<RetainedPage, StoreError> {
        Ok(RetainedPage::default())
    }

    async fn sweep(&self, _: u64) -> Result<usize, StoreError> {
        Ok(0)
    }
}

fn retained() -> Arc<Message> {
    let mut message = (*message(vec![1])).clone();
    message.telemetry.retain = true;
    Arc::new(message)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_retained_now_is_later_and_holds_its_publisher_up_within_a_bound() {
    let store = Arc::<Store>::default();
    let node = alone(store.clone()).await;
    let kept = || store.kept.lock().expect("no panic").len();
    node.publish(retained()).await.expect("kept");
    assert_eq!(kept(), 1);

    store.away.store(true, Ordering::Relaxed);
    node.publish(retained()).await.expect("it is in the log");
    assert_eq!(kept(), 1);
    store.away.store(false, Ordering::Relaxed);
    tokio::time::sleep(2 * RETAIN_RETRY).await;
    assert_eq!(kept(), 2);

    store.hangs.store(true, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    node.publish(retained()).await.expect("it is in the log");
    assert!(began.elapsed() >= RETAIN_PATIENCE && began.elapsed() < 2 * RETAIN_PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_wait_for_the_store_of_retained_ones_than_may() {
    let store = Arc::<Store>::default();
    let node = alone(store.clone()).await;
    store.away.store(true, Ordering::Relaxed);
    for _ in 0..=RETAINING_MAX {
        node.publish(retained()).await.expect("it is in the log");
    }
    assert_eq!(node.retaining.available_permits(), 0);
    store.away.store(false, Ordering::Relaxed);
    tokio::time::sleep(2 * RETAIN_RETRY).await;
    assert_eq!(store.kept.lock().expect("no panic").len(), RETAINING_MAX);
}

#[tokio::test(start_paused = true)]
async fn who_publishes_without_a_session_waits_for_a_full_inbox_for_a_moment() {
    let node = alone(Arc::<Store>::default()).await;
    let client = ClientId::new("s").expect("valid");
    let session = Arc::new(Session::new(1, TenantId::default_tenant(), client));
    session.hold(1, Arc::default());
    let options = Options { qos: Qos::AtLeastOnce, ..Options::default() };
    node.subscribe(&session, vec![Granted { filter: "t".into(), options, retained: false }]);
    let publish = async |count: usize| {
        let (messages, began) = (vec![message(vec![1]); count], tokio::time::Instant::now());
        node.publish_all(&messages, 0).await.expect("kept");
        began.elapsed()
    };
    let waited = [publish(INBOX_MESSAGES_MAX).await, publish(1).await];
    assert!(waited[0] < MOMENT && (MOMENT..2 * MOMENT).contains(&waited[1]), "{waited:?}");
    assert_eq!(session.depth(), (INBOX_MESSAGES_MAX + 1, 0));
}
