//! A store of retained messages that fails, on virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::domain::inherit::tests::alone;
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
