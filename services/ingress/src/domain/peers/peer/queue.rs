//! The queue to a peer: what is put into it in order, and what is taken out of it, or given up.

use std::sync::Arc;

use drover_types::Qos;
use tokio::sync::oneshot;

use super::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Condition, Peer, QUEUE_KIB_MAX, State, Waiting};
use crate::domain::message::Message;
use crate::domain::peers::held::Done;
use crate::domain::shares::Share;
use crate::telemetry::Telemetry;

/// A message for a peer.
pub struct Offered {
    pub message: Arc<Message>,
    /// For which shared subscriptions a member is to be given it.
    pub shares: Vec<Share>,
    /// Who waits for it besides.
    pub done: Vec<Done>,
}

impl Peer {
    /// Messages in the queue.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Returns when it has what is in the queue, or is away.
    pub async fn flushed(&self) {
        let offered = self.state().offered;
        // An error means that nobody will tell: the node stops.
        self.settled.subscribe().wait_for(|settled| *settled >= offered).await.ok();
    }

    /// Puts messages into the queue in order. The answer is resolved when those of QoS 1 are with the peer or it is away,
    /// and is absent where nothing is to be waited for. They were routed on this node in `round`, or later.
    pub async fn offer(
        &self,
        offered: Vec<Offered>,
        round: u64,
        telemetry: &Telemetry,
    ) -> Option<oneshot::Receiver<()>> {
        let last = offered.iter().rposition(|offered| offered.message.telemetry.qos > Qos::AtMostOnce);
        let (tell, confirmed) = oneshot::channel();
        let tell: Done = Arc::new(tell);
        let mut offered = offered.into_iter().enumerate();
        while let Some((at, Offered { message, shares, mut done })) = offered.next() {
            // What is for a member is waited for by itself: it may be given to somebody else later.
            let is_waited_for = message.telemetry.qos > Qos::AtMostOnce && !shares.is_empty();
            done.extend((is_waited_for || Some(at) == last).then(|| tell.clone()));
            let kib = u32::try_from(message.bytes() / 1_024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX as u32);
            let permits = match message.telemetry.qos {
                Qos::AtMostOnce => self.room.try_acquire_many(kib).ok(),
                Qos::AtLeastOnce | Qos::ExactlyOnce => self.room.acquire_many(kib).await.ok(),
            };
            let Some(permits) = permits else {
                telemetry.not_forwarded("queue_full", 1);
                continue;
            };
            let mut state = self.state();
            let (condition, claimed, has_left) = (state.condition, state.claimed, state.has_left);
            match condition {
                Condition::Ourselves => return None,
                // Once the others have its sessions, it only hands over what was routed before that.
                Condition::Away | Condition::Leaving
                    if round >= claimed && (has_left || condition == Condition::Away) =>
                {
                    drop(state);
                    telemetry.not_forwarded("peer_away", offered.len() + 1);
                    self.unplace(&message, shares, &done);
                    for (_, Offered { message, shares, mut done }) in offered {
                        done.push(tell.clone());
                        self.unplace(&message, shares, &done);
                    }
                    break;
                }
                Condition::Leaving if message.telemetry.qos == Qos::AtMostOnce => {
                    drop(state);
                    telemetry.not_forwarded("peer_away", 1);
                    self.unplace(&message, shares, &done);
                    continue;
                }
                // Those that are away now, and were not yet when the message was routed, have heirs.
                Condition::Unknown | Condition::Live | Condition::Leaving | Condition::Away => {}
            }
            permits.forget();
            state.offered += 1;
            state.waiting.push_back(Waiting { message, shares, kib, round, done });
            self.more.notify_one();
        }
        (Arc::strong_count(&tell) > 1).then_some(confirmed)
    }

    /// Gives up what waits in the queue; how many messages that were.
    pub(super) fn settle_all(&self) -> usize {
        let left: Vec<_> = self.state().waiting.drain(..).collect();
        let count = left.len();
        self.give_back(left);
        count
    }

    /// Nobody waits for these any more, and their room is free.
    pub(super) fn settle(&self, batch: Vec<Waiting>) {
        let count = batch.len() as u64;
        for Waiting { kib, done, .. } in batch {
            self.room.add_permits(kib as usize);
            drop(done);
        }
        if count > 0 {
            self.settled.send_modify(|settled| *settled += count);
        }
    }
}

impl State {
    pub(super) fn take_batch(&mut self) -> Vec<Waiting> {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += waiting.message.bytes();
            bytes <= BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take(BATCH_MESSAGES_MAX).take_while(fits).count();
        let count = count.max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }
}
