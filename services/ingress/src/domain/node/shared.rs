//! Shared subscriptions whose members are on several nodes: each message to one of them (ADR 32).
//!
//! The node that logs a message finds the member: one of its own that is there, else one on another node, which is asked to
//! give it to whom it likes; at last one that is away, or will be somewhere when the sessions of a node that is gone are
//! claimed. What a node has no member for, or takes with it when it is lost,
//! is given to somebody else.

use std::sync::{Arc, PoisonError, Weak};

use drover_types::Qos;
use futures::future::{BoxFuture, join_all};

use super::routing::{Handed, Members, Offered, Routed};
use super::{Node, offer};
use crate::domain::message::Message;
use crate::domain::peers::{Placed, Unplaced};
use crate::domain::session::{Dropped, Session, WhenFull};
use crate::domain::shares::{Refused, Share};

#[cfg(test)]
mod tests;

/// What a member was given.
struct Given {
    offered: Offered,
    /// Whether the store has it: it outlives this node.
    kept: bool,
}

/// Who is to have a message of a shared subscription.
enum Whom {
    /// A member here has it.
    Here(Given),
    /// This node is to be asked.
    Node(Arc<str>),
    Nobody,
}

impl Node {
    /// Gives a message of this node to one member of each shared subscription that matches, wherever it is; `routed` learns
    /// of those on other nodes, and what is to be waited for.
    pub(super) fn share_out(&self, at: usize, message: &Arc<Message>, routed: &mut Routed) {
        let (tenant, topic) = (&message.telemetry.tenant, message.telemetry.topic.as_str());
        let mut filters = self.router.read().unwrap_or_else(PoisonError::into_inner).shares(tenant, topic);
        for filter in self.peers.groups.matching(tenant, topic) {
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
        for filter in filters {
            let mut share = Share::new(filter);
            match self.find_member(message, &mut share) {
                Whom::Here(given) => routed.handed.add(given.offered),
                Whom::Node(node) => routed.placed.push(Placed { at, node, share }),
                Whom::Nobody => self.telemetry.dropped(Dropped::NoMember, 1),
            }
        }
    }

    /// Finds somebody for a share: in the order of this module's rule, and none that was asked before.
    fn find_member(&self, message: &Arc<Message>, share: &mut Share) -> Whom {
        let tenant = &message.telemetry.tenant;
        if !share.absent {
            if let Some(given) = self.give_here(message, share, WhenFull::Wait) {
                return Whom::Here(given);
            }
            if let Some(node) = self.peers.member(tenant, share) {
                return Whom::Node(node);
            }
            (share.absent, share.tried) = (true, Vec::new());
        }
        if let Some(given) = self.give_here(message, share, WhenFull::Wait) {
            return Whom::Here(given);
        }
        // Members of a node whose sessions are being claimed are there when that is done; none of them has QoS 0.
        let is_kept = message.telemetry.qos > Qos::AtMostOnce;
        let leaving = || self.peers.leaving_member(tenant, share).filter(|_| is_kept);
        self.peers.member(tenant, share).or_else(leaving).map_or(Whom::Nobody, Whom::Node)
    }

    /// Gives a message to a member on this node, if there is one that can have it.
    fn give_here(&self, message: &Arc<Message>, share: &Share, when_full: WhenFull) -> Option<Given> {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let ready = |session: &Arc<Session>| share.absent || session.is_ready();
        let found = router.member(&message.telemetry.tenant, &share.filter, ready)?;
        drop(router);
        let kept = found.subscriber.keeps_messages();
        let offered = offer(message.clone(), found, when_full).ok()?;
        Some(Given { offered, kept })
    }

    /// Hands out what another node has logged: to subscribers of this node, and to one member of each shared subscription
    /// that it asks for. Which of these nobody could be given; returns when inboxes of sessions that are kept have
    /// theirs durably. A batch that comes again is not handed out again, and none waits for a full inbox: those behind it would, of
    /// all tenants.
    pub async fn take_batch(
        &self,
        (node, boot): (&str, u64),
        sequence: u64,
        messages: &[Arc<Message>],
        shares: &[Vec<Share>],
    ) -> Vec<Refused> {
        let mut handed = Handed::default();
        if self.peers.senders.is_new(node, boot, sequence) {
            // At once, for whoever asks may go away while this waits, and not ask again.
            let is_new = |shares: &[Share]| !shares.iter().any(|share| share.again);
            for (message, _) in messages.iter().zip(shares).filter(|(_, shares)| is_new(shares)) {
                handed.join(self.hand_out(message, None, WhenFull::Drop, Members::LeftOut, |_| true));
            }
            let (given, refused) = self.give_all(messages, shares, &mut handed);
            self.peers.taken.note(node, boot, sequence, given, refused);
        } else {
            handed.position = self.journal.position(); // also what is said again is confirmed when the inboxes have it
        }
        self.journal.durable(handed.position).await;
        self.peers.taken.refused(node, boot, sequence)
    }

    /// Gives messages to members here: what they hold until they are done with it, and what nobody could be given. `handed`
    /// learns what is to be waited for.
    fn give_all(
        &self,
        messages: &[Arc<Message>],
        shares: &[Vec<Share>],
        handed: &mut Handed,
    ) -> (Vec<Weak<Message>>, Vec<Refused>) {
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for (message, (shared, shares)) in messages.iter().zip(shares).enumerate() {
            for (share, wanted) in shares.iter().enumerate() {
                // Of its own, so that nobody but the member holds it.
                let shared = Arc::new(Message::clone(shared));
                match self.give_here(&shared, wanted, WhenFull::Drop) {
                    Some(given) => {
                        handed.add(given.offered);
                        held.extend((!given.kept).then(|| Arc::downgrade(&shared)));
                    }
                    None => refused.push(Refused { message, share }),
                }
            }
        }
        (held, refused)
    }

    /// A member that is gone leaves a message to others; here is none.
    pub(super) fn give_elsewhere(&self, message: Arc<Message>, filter: Arc<str>) {
        self.peers.unplaced.add([Unplaced { message, share: Share::new(filter), done: Vec::new() }]);
    }

    /// Finds others for what nodes could not give to members, or have taken with them, as long as this process runs.
    pub async fn place_again(&self) {
        loop {
            // All of them at once: one whose node has a full queue keeps no other waiting that came with it.
            let mut placing = Vec::<BoxFuture<'_, ()>>::new();
            for mut unplaced in self.peers.unplaced.next().await {
                match self.find_member(&unplaced.message, &mut unplaced.share) {
                    Whom::Here(given) => placing.push(Box::pin(async move {
                        self.journal.durable(given.offered.position).await;
                        drop(unplaced); // whoever waits for it
                    })),
                    Whom::Node(node) => {
                        placing.push(Box::pin(async move { self.peers.ask(&node, unplaced, &self.telemetry).await }));
                    }
                    Whom::Nobody => self.telemetry.dropped(Dropped::NoMember, 1),
                }
            }
            join_all(placing).await;
        }
    }
}
