//! The retained messages of a new subscription, from the store into its session.
//!
//! Domain layer over the RetainedStore port. One reader a session at a time, which waits for room: a subscription to
//! everything costs neither memory nor messages. The filter is routed by before the store is read, so that no message
//! falls in between; one that arrives meanwhile may come twice, as a live one and as a retained one.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::node::Node;
use crate::domain::session::{Delivery, Dropped, Session, Wanted};
use crate::ports::RetainedQuery;

/// Reads at the same time; more wait for their turn.
pub const READS_MAX: usize = 16;
/// Messages of one read.
const PAGE_MESSAGES_MAX: usize = 100;
/// Payload bytes of one read, unless a single message is larger.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Wait for room in a session whose client reads slowly.
const ROOM: Duration = Duration::from_millis(10);

/// Sends what the session wants until it wants no more.
pub async fn send(node: Arc<Node>, session: Arc<Session>) {
    while let Some(wanted) = session.next_wanted() {
        send_one(&node, &session, &wanted).await;
    }
}

async fn send_one(node: &Node, session: &Session, wanted: &Wanted) {
    let mut after = None;
    while session.has_filter(&wanted.filter) {
        let query = RetainedQuery {
            tenant: session.tenant().clone(),
            filter: wanted.filter.clone(),
            after,
            now_ms: node.now().unix_ms,
            messages_max: PAGE_MESSAGES_MAX,
            bytes_max: PAGE_BYTES_MAX,
        };
        let turn = node.retained_reads.acquire().await;
        let read = node.retained.matching(query).await;
        drop(turn);
        let page = match read {
            Ok(page) => page,
            Err(error) => return node.telemetry.retained_unread(&error),
        };
        for message in page.messages {
            let delivery = Delivery {
                qos: message.telemetry.qos.min(wanted.qos),
                message: Arc::new(message),
                retain: true, // [3.1.1 MQTT-3.3.1-8]
                ids: wanted.id.into_iter().collect(),
                share: None,
            };
            if !offer(node, session, &delivery).await {
                return;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return,
        }
    }
}

/// Puts a message in as soon as there is room; false if nobody waits for it any more.
async fn offer(node: &Node, session: &Session, delivery: &Delivery) -> bool {
    loop {
        match session.offer(delivery.clone()) {
            Ok(_) => return true,
            Err(Dropped::InboxFull | Dropped::SlowReader) if session.is_held() => tokio::time::sleep(ROOM).await,
            Err(why) => {
                node.telemetry.dropped(why, 1);
                return !matches!(why, Dropped::InboxFull | Dropped::SlowReader) && !session.has_ended();
            }
        }
    }
}
