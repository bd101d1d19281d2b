//! Publishers wait for subscribers of this node that read more slowly than they send (ADR 40).
//!
//! Domain layer. No lane and no loop waits: a message is in the log and in the inbox by then, and what waits is its
//! acknowledgement. Whoever has none that is bounded by a receive maximum waits for a moment at most, and other nodes do not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;

use super::Node;
use crate::domain::router::Subscriber;
use crate::domain::session::{Look, Session};

/// How long requests by HTTP and CoAP, what other services publish, and wills wait: less than a call between services may take.
pub(super) const MOMENT: Duration = Duration::from_millis(500);

/// Sessions whose inboxes have taken more than they hold, or lately had, by their numbers.
pub(super) type Overfull = BTreeMap<Subscriber, Arc<Session>>;

impl Node {
    /// The connection of `publisher` acknowledges nothing until there is room in these inboxes: they have a message of its.
    pub(super) fn withhold(&self, overfull: Overfull, publisher: &Session) {
        self.telemetry.withheld();
        if let Some(link) = publisher.link() {
            overfull.values().for_each(|session| session.withhold(&link));
        }
        self.look_after(overfull);
    }

    /// Returns when there is room in these inboxes, after a moment at the latest.
    pub(super) async fn room_in(&self, overfull: Overfull) {
        if overfull.is_empty() {
            return;
        }
        let rooms: Vec<_> = overfull.values().filter_map(|session| session.room()).collect();
        self.look_after(overfull);
        // An error of either means that nobody has to wait any more.
        let rooms = rooms.into_iter().map(|mut room| async move { room.changed().await.ok() });
        tokio::time::timeout(MOMENT, join_all(rooms)).await.ok();
    }

    fn look_after(&self, overfull: Overfull) {
        self.overfull.lock().unwrap_or_else(PoisonError::into_inner).extend(overfull);
    }

    /// Gives up waiting for clients that are too slow.
    pub(super) fn look_at_overfull(&self, now_ms: u64) {
        let mut overfull = self.overfull.lock().unwrap_or_else(PoisonError::into_inner);
        let mut awaited = 0;
        overfull.retain(|_, session| {
            let look = session.look(now_ms);
            if look == Look::GivenUp {
                self.telemetry.subscriber_too_slow(session.client());
            }
            awaited += usize::from(look == Look::Awaited);
            look != Look::Over
        });
        self.telemetry.subscribers_awaited(awaited);
    }
}
